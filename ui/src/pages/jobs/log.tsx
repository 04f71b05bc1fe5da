import { path } from '../../api/client'
import { going, useRead } from '../../api/queries'
import type { JobDetail, LogLine, Page } from '../../api/types'
import { counted } from '../../lib/text'
import { clock } from '../../lib/time'
import { Text } from '../../parts/text'

/** The tail of what the handler logged. */
export function Log({ job }: { job: JobDetail }) {
  const read = useRead<Page<LogLine>>(['job', job.id, 'log'], path('jobs', job.id, 'log'), { limit: 500 }, { enabled: () => job.log_count > 0 && !going.has(job.id), keep: false })
  const lines = read.data?.items ?? []
  if (!lines.length) return null
  return (
    <section className="panel">
      <header className="panel-head">
        <h2>Log</h2>
        <span className="faint num">{counted(job.log_count, 'line')}</span>
      </header>
      <pre className="code log" tabIndex={0}>
        {lines.map((line, i) => (
          <span key={i} className={`log-${line.level.toLowerCase()}`}>
            {line.skipped > 0 && <span className="warn">… {line.skipped} lines left out{'\n'}</span>}
            {i > 0 && lines[i - 1]!.attempt !== line.attempt && <span className="faint">— attempt {line.attempt}{'\n'}</span>}
            <span className="faint">{clock(new Date(line.at))}</span> <span className="level">{line.level.toUpperCase().padEnd(7)}</span> <Text>{line.message}</Text>
            {'\n'}
          </span>
        ))}
      </pre>
    </section>
  )
}
