import { path } from '../../api/client'
import { going, useRead } from '../../api/queries'
import type { Blocker, JobDetail, Listed } from '../../api/types'
import { Icon } from '../../parts/icons'
import { Text } from '../../parts/text'
import { Countdown, Time } from '../../parts/time'
import { now } from '../../lib/time'

// Codes that say that all is well, or that time will do it.
const CALM = new Set(['running', 'ready', 'finished', 'scheduled', 'idle', 'retry_wait', 'throttle_wait', 'rate_limited', 'slots_busy', 'behind_others', 'runs_alone', 'poll_mode'])

/** Why the job does not run at the moment. */
export function Explain({ job }: { job: JobDetail }) {
  const read = useRead<Listed<Blocker>>(['job', job.id, 'explain'], path('jobs', job.id, 'explain'), undefined, { keep: false, enabled: () => !going.has(job.id) })
  const blockers = read.data?.items ?? []
  if (job.status === 'dead' && blockers.every((one) => one.code === 'finished')) return null
  return <Blockers title={job.status === 'in_progress' ? 'What it does' : job.status === 'dead' ? 'Why it ended' : 'Why it waits'} blockers={blockers} />
}

/** Why nothing of the queue, or not all of it, runs at the moment. */
export function ExplainQueue({ name }: { name: string }) {
  const read = useRead<Listed<Blocker>>(['queues', name, 'explain'], path('queues', name, 'explain'), undefined, { keep: false, enabled: () => !going.has(name) })
  return <Blockers title="What stands in the way" blockers={(read.data?.items ?? []).filter((one) => one.code !== 'idle' && one.code !== 'ready')} />
}

/** What stands in the way, most final first, each with what to do about it. */
function Blockers({ title, blockers }: { title: string; blockers: Blocker[] }) {
  if (!blockers.length) return null
  return (
    <section className="panel explain">
      <header className="panel-head">
        <h2>{title}</h2>
      </header>
      <ol>
        {blockers.map((one) => (
          <li key={one.code} className={CALM.has(one.code) ? 'calm' : ''}>
            <Icon name={CALM.has(one.code) ? 'info' : 'warn'} />
            <div>
              <p>
                <Text>{one.text}</Text> <code className="faint">{one.code}</code>
              </p>
              <p className="faint">
                {one.since && (
                  <>
                    since <Time at={one.since} />{' '}
                  </>
                )}
                {one.until && Date.parse(one.until) > now() && (
                  <>
                    for another <Countdown until={one.until} />
                  </>
                )}
              </p>
              {one.remedy && (
                <p className="remedy">
                  <Text>{one.remedy}</Text>
                </p>
              )}
            </div>
          </li>
        ))}
      </ol>
    </section>
  )
}
