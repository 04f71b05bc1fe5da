import { useState } from 'react'
import { useMay, useQueues } from '../../api/queries'
import { timesOf, useSeries } from '../../api/series'
import type { Queue } from '../../api/types'
import { compact, whole } from '../../lib/format'
import { address } from '../../lib/hash_router'
import { PRESETS } from '../../lib/range'
import { now } from '../../lib/time'
import { Button } from '../../parts/button'
import { PageHead } from '../../parts/page_head'
import { Empty, Loaded } from '../../parts/states'
import { Text } from '../../parts/text'
import { Age } from '../../parts/time'
import { Load, Tinted } from '../overview'
import { NewQueue } from './new_queue'
import { QueueActs } from './queue_acts'
import { QueueState } from './queue_state'

export function Queues() {
  const read = useQueues()
  const admin = useMay('admin')
  const [making, setMaking] = useState(false)
  return (
    <>
      <PageHead title="Queues" note={read.data && `${whole(read.data.items.length)} queues`}>
        {admin && (
          <Button icon="add" onClick={() => setMaking(true)}>
            New queue
          </Button>
        )}
      </PageHead>
      <Loaded read={read}>
        {(queues) =>
          queues.items.length === 0 ? (
            <section className="panel">
              <Empty title="No queues yet">A queue is there with its first job, or when a worker serves it.</Empty>
            </section>
          ) : (
            <ul className="cards">
              {queues.items.map((queue) => (
                <QueueCard key={queue.name} queue={queue} />
              ))}
            </ul>
          )
        }
      </Loaded>
      {making && <NewQueue close={() => setMaking(false)} />}
    </>
  )
}

function QueueCard({ queue }: { queue: Queue }) {
  const { counts, name } = queue
  const here = `/queues/${encodeURIComponent(name)}`
  return (
    <li className="panel card">
      <header>
        <a className="card-name cut" href={`#${here}`}>
          <Text>{name}</Text>
        </a>
        <QueueState queue={queue} />
      </header>
      <Spark queue={name} />
      <dl className="numbers">
        <div>
          <dt>Ready</dt>
          <dd className="num">
            <a href={`#${address('/jobs', { q: `queue:${name}`, status: 'pending' })}`}>{compact(counts.ready)}</a>
          </dd>
        </div>
        <div>
          <dt>Oldest</dt>
          <dd>
            <Age since={counts.oldest_ready_at} warnS={60} badS={600} />
          </dd>
        </div>
        <div>
          <dt>Scheduled</dt>
          <dd className="num">{compact(counts.scheduled)}</dd>
        </div>
        <div>
          <dt>Retries</dt>
          <dd className="num">
            <Tinted count={counts.failed} tone="warn" to={address('/retries', { q: `queue:${name}` })} />
          </dd>
        </div>
        <div>
          <dt>Dead</dt>
          <dd className="num">
            <Tinted count={counts.dead} tone="bad" to={address('/dead', { view: 'jobs', q: `queue:${name}` })} />
          </dd>
        </div>
        <div>
          <dt>Done</dt>
          <dd className="num">{compact(counts.done)}</dd>
        </div>
      </dl>
      <footer>
        <Load queue={queue} />
        <span className="faint">{queue.max_workers === null ? 'no total' : `of ${queue.max_workers} in all`}</span>
        <QueueActs queue={queue} />
      </footer>
    </li>
  )
}

const SPARK_BUCKET_S = 60

/** Jobs done per minute over the last half hour. */
function Spark({ queue }: { queue: string }) {
  // Up to the last minute that is surely counted.
  const toS = (Math.floor(now() / 1000 / SPARK_BUCKET_S) - 1) * SPARK_BUCKET_S
  const window = { fromS: toS - PRESETS['30m'], toS, bucketS: SPARK_BUCKET_S, preset: null }
  const points = useSeries('queue', window, { queue }).data?.lines.find((line) => line.metric === 'completed')?.points ?? []
  const counts = new Map(points.map((point) => [Date.parse(point.at) / 1000, point.count]))
  const values = timesOf(window).map((time) => counts.get(time) ?? 0)
  const top = Math.max(1, ...values)
  const total = values.reduce((sum, value) => sum + value, 0)
  const line = values.map((value, i) => `${i ? 'L' : 'M'}${(i / (values.length - 1)) * 100} ${29 - (value / top) * 27}`).join('')
  return (
    <svg className="spark" viewBox="0 0 100 30" preserveAspectRatio="none" role="img" aria-label={`${total} done in the last 30 minutes`}>
      <title>{`${total} done in the last 30 minutes`}</title>
      <path className="ground" d={`${line}L100 30L0 30Z`} />
      <path d={line} />
    </svg>
  )
}
