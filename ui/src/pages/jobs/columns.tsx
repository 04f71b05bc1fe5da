import type { JobRow } from '../../api/types'
import { duration } from '../../lib/format'
import { peekAt } from '../../lib/hash_router'
import { JobStatus } from '../../parts/badge'
import type { Column } from '../../parts/table'
import { Text } from '../../parts/text'
import { Age, Time } from '../../parts/time'

// A worker beats every 5 s, and is taken for lost after 30.
const BEAT_LATE_S = 15
const BEAT_LOST_S = 30

export function JobLink({ id, short }: { id: string; short?: boolean }) {
  return (
    <a className="mono" href={`#/jobs/${id}`} title={id} onClick={peekAt(id)}>
      {short ? `…${id.slice(-8)}` : id}
    </a>
  )
}

const id: Column<JobRow> = { id: 'id', head: 'Job', cell: (job) => <JobLink id={job.id} short /> }
const kind: Column<JobRow> = { id: 'kind', head: 'Kind', cell: (job) => <strong><Text>{job.kind}</Text></strong> }
const queue: Column<JobRow> = { id: 'queue', head: 'Queue', cell: (job) => <span className="soft"><Text>{job.queue}</Text></span> }
const status: Column<JobRow> = { id: 'status', head: 'Status', cell: (job) => <JobStatus job={job} /> }
const attempts: Column<JobRow> = { id: 'attempts', head: 'Attempts', right: true, cell: (job) => <Attempts job={job} /> }
const enqueued: Column<JobRow> = { id: 'enqueued', head: 'Added', right: true, cell: (job) => <Time at={job.enqueued_at} /> }
const due: Column<JobRow> = { id: 'due', head: 'Due', right: true, cell: (job) => <Time at={job.scheduled_at} /> }
const about: Column<JobRow> = { id: 'about', head: 'Payload or error', grow: true, hide: 'narrow', cell: (job) => <About job={job} /> }
const beat: Column<JobRow> = {
  id: 'beat',
  head: 'Time',
  right: true,
  hide: 'middle',
  cell: (job) => <Took job={job} />,
}
const reason: Column<JobRow> = { id: 'reason', head: 'Reason', cell: (job) => <span className="bad">{job.dead_reason}</span> }
const error: Column<JobRow> = { id: 'error', head: 'Last error', grow: true, cell: (job) => <span className="mono soft"><Text>{firstLine(job.last_error)}</Text></span> }
const ended: Column<JobRow> = { id: 'ended', head: 'Died', right: true, cell: (job) => <Time at={job.completed_at} /> }
const priority: Column<JobRow> = { id: 'priority', head: 'Priority', right: true, hide: 'middle', cell: (job) => job.priority || <span className="faint">0</span> }

export const COLUMNS = {
  jobs: [id, status, kind, queue, about, attempts, beat, enqueued],
  scheduled: [id, status, kind, queue, about, priority, due],
  retries: [id, kind, queue, error, attempts, due],
  dead: [id, kind, queue, reason, error, attempts, ended],
}

function Attempts({ job }: { job: JobRow }) {
  return (
    <span title={job.crashes ? `${job.crashes} of its runs ended with their process` : undefined}>
      {job.attempts}
      <span className="faint">/{job.max_attempts}</span>
      {job.crashes > 0 && <span className="bad"> ⚡{job.crashes}</span>}
    </span>
  )
}

function About({ job }: { job: JobRow }) {
  if (job.last_error && job.status !== 'done') {
    return (
      <span className={`mono ${job.status === 'dead' ? 'bad' : 'warn'}`}>
        <Text>{firstLine(job.last_error)}</Text>
      </span>
    )
  }
  return (
    <span className="mono soft">
      <Text>{job.payload_preview}</Text>
    </span>
  )
}

/** How long a run takes or took; of a running job also how old its worker's beat is, once that is late. */
function Took({ job }: { job: JobRow }) {
  if (job.status === 'in_progress') {
    return (
      <>
        <Age since={job.started_at} /> <span className="beat"><Age since={job.heartbeat_at} warnS={BEAT_LATE_S} badS={BEAT_LOST_S} /></span>
      </>
    )
  }
  if (!job.started_at || !job.completed_at || job.status !== 'done') return <span className="faint">–</span>
  return <>{duration((Date.parse(job.completed_at) - Date.parse(job.started_at)) / 1000)}</>
}

export function firstLine(text: string | null): string {
  return text?.split('\n', 1)[0] ?? ''
}
