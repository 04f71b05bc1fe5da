import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { path } from '../../api/client'
import { going, removeGoing, useMay, useRead } from '../../api/queries'
import type { Queue } from '../../api/types'
import { compact } from '../../lib/format'
import { address, navigate } from '../../lib/hash_router'
import { useWindow } from '../../lib/range'
import { useTitle } from '../../lib/title'
import { Button, LinkButton } from '../../parts/button'
import { Confirm } from '../../parts/dialog'
import { JobCharts } from '../../parts/job_charts'
import { PageHead } from '../../parts/page_head'
import { RangeBar } from '../../parts/range_bar'
import { Loaded } from '../../parts/states'
import { Text } from '../../parts/text'
import { Age, Time } from '../../parts/time'
import { ExplainQueue } from '../jobs/explain'
import { Load } from '../overview'
import { QueueActs } from './queue_acts'
import { QueueState } from './queue_state'
import { Settings } from './settings'

export function QueuePage({ name }: { name: string }) {
  useTitle(`${name} · Queues`)
  const read = useRead<Queue>(['queues', name], path('queues', name), undefined, { keep: false, enabled: () => !going.has(name) })
  return <Loaded read={read}>{(queue) => <Shown queue={queue} />}</Loaded>
}

function Shown({ queue }: { queue: Queue }) {
  const admin = useMay('admin')
  const client = useQueryClient()
  const [window, setWindow] = useWindow()
  const [deleting, setDeleting] = useState(false)
  const { counts, name } = queue
  const numbers: [string, React.ReactNode][] = [
    ['Ready', <a href={`#${address('/jobs', { q: `queue:${name}`, status: 'pending' })}`}>{compact(counts.ready)}</a>],
    ['Oldest ready', <Age since={counts.oldest_ready_at} warnS={60} badS={600} />],
    ['Scheduled', <a href={`#${address('/scheduled', { q: `queue:${name}` })}`}>{compact(counts.scheduled)}</a>],
    ['Running', <a href={`#${address('/jobs', { q: `queue:${name}`, status: 'in_progress' })}`}>{compact(counts.in_progress)}</a>],
    ['Retries', <a href={`#${address('/retries', { q: `queue:${name}` })}`}>{compact(counts.failed)}</a>],
    ['Dead', <a href={`#${address('/dead', { view: 'jobs', q: `queue:${name}` })}`}>{compact(counts.dead)}</a>],
    ['Done', <a href={`#${address('/jobs', { q: `queue:${name}`, status: 'done' })}`}>{compact(counts.done)}</a>],
    ['Slots', <Load queue={queue} />],
  ]
  return (
    <>
      <PageHead
        title={
          <span className="job-title">
            <Text>{name}</Text> <QueueState queue={queue} />
          </span>
        }
        note={
          queue.paused && (
            <>
              Paused <Time at={queue.paused_at} />
              {queue.paused_by && (
                <>
                  {' by '}
                  <Text>{queue.paused_by}</Text>
                </>
              )}
            </>
          )
        }
      >
        <QueueActs queue={queue} />
        <LinkButton icon="jobs" href={`#${address('/jobs', { q: `queue:${name}` })}`}>
          Jobs
        </LinkButton>
        {admin && (
          <Button tone="danger" icon="trash" onClick={() => setDeleting(true)}>
            Delete
          </Button>
        )}
      </PageHead>
      <ExplainQueue name={name} />
      <ul className="totals panel compact">
        {numbers.map(([label, value]) => (
          <li key={label}>
            <div>
              <span className="total-name">{label}</span>
              <b className="num">{value}</b>
            </div>
          </li>
        ))}
      </ul>
      <Settings key={name} queue={queue} />
      <div className="block-head">
        <h2>Over time</h2>
        <RangeBar window={window} setWindow={setWindow} />
      </div>
      <JobCharts window={window} zoom={(fromS, toS) => setWindow({ fromS, toS })} queue={name} />
      {deleting && (
        <Confirm
          title={`Delete queue ${name}`}
          act="Delete the queue"
          danger
          close={() => setDeleting(false)}
          run={async () => {
            await removeGoing(name, path('queues', name))
            navigate('/queues', { replace: true })
            void client.invalidateQueries()
          }}
        >
          <p>Its settings are removed. The server refuses while it has jobs or workers.</p>
        </Confirm>
      )}
    </>
  )
}
