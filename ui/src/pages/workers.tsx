import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { path, post } from '../api/client'
import { useMay, useRead, useWorkers } from '../api/queries'
import { timesOf, useSeries, valuesOf } from '../api/series'
import type { JobRow, Page, Unserved, Worker } from '../api/types'
import { bytes, milliseconds, percent, whole } from '../lib/format'
import { counted } from '../lib/text'
import { now } from '../lib/time'
import { Badge } from '../parts/badge'
import { Button } from '../parts/button'
import { Confirm } from '../parts/dialog'
import { Icon } from '../parts/icons'
import { PageHead } from '../parts/page_head'
import { Empty, Loaded } from '../parts/states'
import { Text } from '../parts/text'
import { Age, Time } from '../parts/time'
import { say } from '../parts/toast'
import { JobLink } from './jobs/columns'

export function Workers() {
  const read = useWorkers()
  const live = read.data?.items.filter((worker) => worker.live).length
  return (
    <>
      <PageHead title="Workers" note={live !== undefined && `${live} live`} />
      <Loaded read={read}>
        {(workers) => (
          <>
            <NotServed unserved={workers.unserved} />
            {workers.items.length === 0 ? (
              <section className="panel">
                <Empty title="No worker yet">
                  Start one: <code>forge-jobs worker myapp.jobs:handlers</code>
                </Empty>
              </section>
            ) : (
              <ul className="cards wide">
                {workers.items.toSorted((a, b) => Number(b.live) - Number(a.live) || a.worker.localeCompare(b.worker)).map((worker) => (
                  <WorkerCard key={worker.host_id} worker={worker} />
                ))}
              </ul>
            )}
          </>
        )}
      </Loaded>
    </>
  )
}

function NotServed({ unserved }: { unserved: Unserved[] }) {
  if (!unserved.length) return null
  return (
    <ul className="banners" aria-label="Not served">
      {unserved.map((one) => (
        <li key={`${one.queue} ${one.kind}`} className="error">
          <Icon name="warn" />
          <span>
            {one.kind === null ? (
              <>
                No live worker serves queue <b><Text>{one.queue}</Text></b>
              </>
            ) : (
              <>
                No live worker of queue <b><Text>{one.queue}</Text></b> has a handler for <b><Text>{one.kind}</Text></b>
              </>
            )}
            : {counted(one.jobs, 'job')} wait
          </span>
          <a href={`#/queues/${encodeURIComponent(one.queue)}`}>Queue</a>
        </li>
      ))}
    </ul>
  )
}

const STATES: Record<string, { tone: string; mark: string }> = {
  running: { tone: 'good', mark: 'tick' },
  draining: { tone: 'later', mark: 'bars' },
  fenced: { tone: 'bad', mark: 'bang' },
  gone: { tone: 'wait', mark: 'cross' },
}

function WorkerCard({ worker }: { worker: Worker }) {
  const look = STATES[worker.state] ?? { tone: 'wait', mark: 'ring' }
  const running = Object.entries(worker.running)
  return (
    <li className={`panel card ${worker.live ? '' : 'gone'}`}>
      <header>
        <span className="card-name cut" title={worker.host_id}>
          <Text>{worker.worker}</Text>
        </span>
        <Badge tone={look.tone} mark={look.mark}>
          {worker.state}
        </Badge>
      </header>
      <p className="faint cut">
        <Text>{worker.host_name}</Text> · pid {worker.pid} · {worker.version} · up <Age since={worker.started_at} />
      </p>
      <dl className="numbers">
        <div>
          <dt>Beat</dt>
          <dd>
            <Age since={worker.heartbeat_at} warnS={15} badS={30} />
          </dd>
        </div>
        <div>
          <dt>Loop lag</dt>
          <dd className={`num ${worker.loop_lag_ms > 500 ? 'warn' : ''}`}>{milliseconds(worker.loop_lag_ms)}</dd>
        </div>
        <Resources hostId={worker.host_id} live={worker.live} />
      </dl>
      <ul className="slots">
        {worker.queues.map((queue) => {
          const busy = running.filter(([slot]) => slot.startsWith(`${queue}-`) && slot.endsWith(worker.host_id)).length
          const open = worker.slots[queue] ?? 0
          return (
            <li key={queue}>
              <a className="cut" href={`#/queues/${encodeURIComponent(queue)}`}>
                <Text>{queue}</Text>
              </a>
              <meter min={0} max={open || 1} value={busy} aria-label={`${busy} of ${open} slots busy`} />
              <span className="num soft">
                {busy}/{open}
              </span>
            </li>
          )
        })}
      </ul>
      {running.length > 0 && <Running hostId={worker.host_id} count={running.length} />}
      <details>
        <summary>{counted(worker.kinds.length, 'kind')}</summary>
        <p className="kinds mono">
          <Text>{worker.kinds.join('  ')}</Text>
        </p>
      </details>
      <Acts worker={worker} />
    </li>
  )
}

const RUNNING_SHOWN = 100

/** What it runs now, longest first; read once somebody wants to see it. */
function Running({ hostId, count }: { hostId: string; count: number }) {
  const [open, setOpen] = useState(false)
  const read = useRead<Page<JobRow>>(['jobs', 'of', hostId], 'jobs', { process: hostId, status: ['in_progress'], limit: RUNNING_SHOWN }, { enabled: open })
  const jobs = read.data?.items.toSorted((a, b) => (a.started_at ?? '').localeCompare(b.started_at ?? '')) ?? []
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{counted(count, 'running job')}</summary>
      <ul className="running">
        {jobs.map((job) => (
          <li key={job.id}>
            <JobLink id={job.id} short />
            <span className="cut">
              <Text>{job.kind}</Text>
            </span>
            <Age since={job.started_at} />
          </li>
        ))}
      </ul>
    </details>
  )
}

const RECENT_S = 600

/** The newest minute that the process wrote of itself. */
function Resources({ hostId, live }: { hostId: string; live: boolean }) {
  const toS = Math.ceil(now() / 60_000) * 60
  const window = { fromS: toS - RECENT_S, toS, bucketS: 60, preset: null }
  const lines = useSeries('resources', window, { host_id: hostId }).data?.lines ?? []
  const times = timesOf(window)
  const newest = (metric: string) => (live ? valuesOf(lines, metric, 'mean', times).findLast((value) => value !== null) : null)
  return (
    <>
      <div>
        <dt>CPU</dt>
        <dd className="num">{percent(newest('cpu_pct'))}</dd>
      </div>
      <div>
        <dt>Memory</dt>
        <dd className="num">{bytes(newest('rss_bytes'))}</dd>
      </div>
      <div>
        <dt>Threads</dt>
        <dd className="num">{whole(newest('threads'))}</dd>
      </div>
    </>
  )
}

type Signal = { name: 'quiet' | 'resume' | 'stop'; word: string; says: string; danger?: boolean }
const SIGNALS: Signal[] = [
  { name: 'quiet', word: 'Quiet', says: 'It finishes what it runs and takes no more jobs.' },
  { name: 'resume', word: 'Resume', says: 'It takes jobs again.' },
  { name: 'stop', word: 'Stop', says: 'It finishes what it runs, within its grace, and ends.', danger: true },
]

function Acts({ worker }: { worker: Worker }) {
  const admin = useMay('admin')
  const client = useQueryClient()
  const [asked, setAsked] = useState<Signal | null>(null)
  if (!admin || !worker.live) return null
  return (
    <footer>
      <span className="card-acts">
        {SIGNALS.filter((signal) => (signal.name === 'resume') === (worker.state === 'draining') || signal.name === 'stop').map((signal) => (
          <Button key={signal.name} tone={signal.danger ? 'danger' : 'plain'} onClick={() => setAsked(signal)}>
            {signal.word}
          </Button>
        ))}
      </span>
      {asked && (
        <Confirm
          title={`${asked.word}: ${worker.worker}`}
          act={asked.word}
          danger={asked.danger}
          close={() => setAsked(null)}
          run={async () => {
            await post(path('workers', worker.host_id, asked.name))
            say(`${worker.worker} is told with its next beat`)
            void client.invalidateQueries({ queryKey: ['workers'] })
          }}
        >
          <p>
            {asked.says} It runs {counted(Object.keys(worker.running).length, 'job')}; its last beat was <Time at={worker.heartbeat_at} />.
          </p>
        </Confirm>
      )}
    </footer>
  )
}
