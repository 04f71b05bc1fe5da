import type { HistoryEntry, JobDetail, JobEvent } from '../../api/types'
import { milliseconds } from '../../lib/format'
import { Badge } from '../../parts/badge'
import { Text } from '../../parts/text'
import { Time } from '../../parts/time'

const TONES: Record<string, string> = { enqueued: 'wait', started: 'run', completed: 'good', retried: 'warn', failed: 'bad', released: 'wait', superseded: 'bad', requeued: 'later' }
const WORDS: Record<string, string> = { failed: 'dead', retried: 'to run again', requeued: 'retried by a person' }

/** What happened to the job, newest first. */
export function Timeline({ job }: { job: JobDetail }) {
  const events: JobEvent[] = job.timeline.toReversed()
  return (
    <section className="panel">
      <header className="panel-head">
        <h2>Timeline</h2>
      </header>
      {events.length === 0 ? (
        <p className="panel-text faint">No events yet. They are written every two seconds.</p>
      ) : (
        <ol className="timeline">
          {events.map((event, i) => (
            <li key={i} className={`tone-line-${TONES[event.type] ?? 'wait'}`}>
              <span>
                <b>{WORDS[event.type] ?? event.type.replaceAll('_', ' ')}</b>
                {event.cause && <span className="soft"> {event.cause.replaceAll('_', ' ')}</span>}
                {event.attempt !== null && event.type === 'started' && <span className="soft"> attempt {event.attempt}</span>}
              </span>
              <span className="faint num">
                {event.duration_ms !== null && `${event.type === 'started' ? 'waited' : 'ran'} ${milliseconds(event.duration_ms)} · `}
                <Time at={event.at} exact />
              </span>
            </li>
          ))}
        </ol>
      )}
    </section>
  )
}

/** The failures, newest first and opened; the last traceback goes with the newest. */
export function Attempts({ job }: { job: JobDetail }) {
  if (!job.history.length) return null
  const entries: HistoryEntry[] = job.history.toReversed()
  return (
    <section className="panel">
      <header className="panel-head">
        <h2>Errors</h2>
        <span className="faint num">{job.history.length}</span>
      </header>
      {entries.map((entry, i) => (
        <details key={`${entry.at} ${entry.fence}`} className="attempt" open={i === 0}>
          <summary>
            <span className="num">Attempt {entry.attempt}</span>
            <Badge tone="bad">{entry.kind_of_error.replaceAll('_', ' ')}</Badge>
            <span className="cut mono soft">
              <Text>{entry.message.split('\n', 1)[0]}</Text>
            </span>
            <span className="faint">
              <Time at={entry.at} />
            </span>
          </summary>
          {(i === 0 && job.traceback) || entry.message.includes('\n') ? (
            <pre className="code" tabIndex={0}>
              <Text>{i === 0 && job.traceback ? job.traceback : entry.message}</Text>
            </pre>
          ) : null}
          {entry.process && (
            <p className="panel-text faint">
              on <span className="mono"><Text>{entry.process}</Text></span>
            </p>
          )}
        </details>
      ))}
    </section>
  )
}
