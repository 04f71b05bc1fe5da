import { plain } from '../lib/text'
import { useSecond } from '../lib/time'
import type { JobRow } from '../api/types'
import { now } from '../lib/time'

// State is told by word, colour and shape.
const LOOKS: Record<string, { word: string; tone: string; mark: string }> = {
  pending: { word: 'ready', tone: 'wait', mark: 'ring' },
  scheduled: { word: 'scheduled', tone: 'later', mark: 'clock' },
  in_progress: { word: 'running', tone: 'run', mark: 'spin' },
  done: { word: 'done', tone: 'good', mark: 'tick' },
  failed: { word: 'retry', tone: 'warn', mark: 'turn' },
  dead: { word: 'dead', tone: 'bad', mark: 'cross' },
}

const MARKS: Record<string, string> = {
  ring: 'M6 2.2a3.8 3.8 0 1 0 0 7.6 3.8 3.8 0 0 0 0-7.6z',
  clock: 'M6 2.2a3.8 3.8 0 1 0 0 7.6 3.8 3.8 0 0 0 0-7.6zM6 4v2.2l1.5.9',
  spin: 'M6 2.2a3.8 3.8 0 0 1 3.8 3.8',
  tick: 'M2.5 6.4l2.4 2.4 4.6-5',
  turn: 'M9.5 5.6A3.7 3.7 0 1 0 8.6 8.6M9.6 2.8v2.9H6.8',
  cross: 'M3 3l6 6M9 3l-6 6',
  bang: 'M6 2.5v4M6 9v.2',
  bars: 'M4.2 3v6M7.8 3v6',
}

function Mark({ shape }: { shape: string }) {
  return (
    <svg className={`mark mark-${shape}`} width="12" height="12" viewBox="0 0 12 12" fill="none" stroke="currentColor" strokeWidth="1.6" strokeLinecap="round" strokeLinejoin="round" aria-hidden="true">
      {shape === 'spin' && <circle className="track" cx="6" cy="6" r="3.8" />}
      <path d={MARKS[shape]} />
    </svg>
  )
}

export function Badge({ tone, mark, children }: { tone: string; mark?: string; children: React.ReactNode }) {
  return (
    <span className={`badge tone-${tone}`}>
      {mark && <Mark shape={mark} />}
      <span>{children}</span>
    </span>
  )
}

export function StatusBadge({ status }: { status: string }) {
  const look = LOOKS[status] ?? { word: plain(status), tone: 'wait', mark: 'bang' }
  return (
    <Badge tone={look.tone} mark={look.mark}>
      {look.word}
    </Badge>
  )
}

/** The status of a job as of this second: pending until its time has come is scheduled. */
export function JobStatus({ job }: { job: Pick<JobRow, 'status' | 'scheduled_at' | 'dead_reason' | 'cancel_requested_at'> }) {
  useSecond()
  const later = job.status === 'pending' && Date.parse(job.scheduled_at) > now()
  return (
    <span className="statuses">
      <StatusBadge status={later ? 'scheduled' : job.status} />
      {job.status === 'in_progress' && job.cancel_requested_at && <Badge tone="warn">stopping</Badge>}
    </span>
  )
}
