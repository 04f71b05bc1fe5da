// What the API answers, as its OpenAPI document says.
export type Check = { name: string; verdict: 'ok' | 'warn' | 'fail'; detail: string; remedy: string | null; queue: string | null; kind: string | null }
export type Findings = { at: string; ok: boolean; checks: Check[] }
export type Status = 'pending' | 'in_progress' | 'done' | 'failed' | 'dead'

export type JobRow = {
  id: string
  queue: string
  kind: string
  status: Status
  priority: number
  attempts: number
  max_attempts: number
  crashes: number
  fence: number
  enqueued_at: string
  scheduled_at: string
  expires_at: string | null
  started_at: string | null
  completed_at: string | null
  heartbeat_at: string | null
  process_id: string | null
  worker: string | null
  dedupe_key: string | null
  dead_reason: string | null
  last_error: string | null
  cancel_requested_at: string | null
  tags: string[]
  parent_id: string | null
  schedule: string | null
  payload_preview: string
}

export type Page<T> = { items: T[]; next_cursor: string | null; total: number | null; total_at_least?: number | null }
export type Listed<T> = { items: T[]; next_cursor?: string | null; total?: number | null }

export type HistoryEntry = { at: string; attempt: number; fence: number; process: string | null; message: string; kind_of_error: string }
export type Progress = { current: number; total: number | null; message: string | null; at: string }
export type JobEvent = {
  at: string
  type: string
  queue: string
  kind: string
  job_id: string | null
  attempt: number | null
  cause: string | null
  duration_ms: number | null
  count: number
}
export type JobDetail = JobRow & {
  payload: string
  payload_bytes: number
  payload_cut: boolean
  payload_hidden: boolean
  history: HistoryEntry[]
  timeline: JobEvent[]
  traceback: string | null
  progress: Progress | null
  trace: Record<string, string> | null
  log_count: number
  children: JobRow[]
  children_total: number
}

export type LogLine = { at: string; attempt: number; fence: number; seq: number; level: string; logger: string; message: string; skipped: number }
export type Blocker = { code: string; text: string; since: string | null; until: string | null; remedy: string | null }
export type Kind = {
  kind: string
  description: string
  declared: boolean
  executor: string | null
  rate_limit: string | null
  paid_by_payload: boolean
  payload_hidden: boolean
  served: boolean
  queues: { queue: string; waiting: number; in_progress: number; dead: number; served: boolean }[]
  waiting: number
  in_progress: number
  dead: number
  workers: { host_id: string; worker: string; queues: string[] }[]
  workers_total: number
}
export type KindDetail = Kind & {
  declaration: {
    executor: string
    schema: Record<string, unknown> | null
    queue: string | null
    cost: number | null
    max_attempts: number | null
    timeout_s: number | null
    max_crashes: number | null
    bad_payload: string
    redact: string[]
    payload_view: string
  } | null
  redact: string[]
  payload_view: 'redacted' | 'hidden'
  hides_more_than_code: boolean
  declared_at: string | null
  declared_by: string | null
  declared_by_label: string | null
}
export type Group = { fingerprint: string; sample: string; count: number; kinds: string[]; queues: string[]; first: string; last: string; ids: string[] }
export type Act = { id: string; changed: boolean; outcome: string; held_by: string | null }
export type Preview = { count: number; by_status: Record<string, number>; sample: JobRow[] }
export type Operation = {
  id: string
  action: string
  state: 'running' | 'done' | 'stopped' | 'failed'
  total: number
  done: number
  changed: number
  skipped: Record<string, number>
  error: string | null
}

export type Counts = {
  pending: number
  ready: number
  scheduled: number
  in_progress: number
  failed: number
  done: number
  dead: number
  oldest_ready_at: string | null
}

export type Backoff = { enabled: boolean; base_s: number; cap_s: number; jitter: number }
export type QueueSettings = {
  etag: string
  name: string
  max_workers: number | null
  retain_done_days: number | null
  retain_dead_days: number | null
  backoff: Backoff
  cool_down: boolean
  max_pending: number | null
  throttle_attempts: number
  throttled_until: string | null
  paused: boolean
  pause_signal: boolean
  paused_at: string | null
  paused_by: string | null
  paused_processes: string[]
  updated_at: string | null
  updated_by: string | null
  clamped?: string[] | null
}
export type Queue = QueueSettings & {
  counts: Counts
  shares: { host_id: string; share: number | null; open: number }[]
  unassigned: number
  slots_open: number
  slots_busy: number
  unserved: boolean
  unserved_kinds: string[]
}

export type Fire = { at: string; local: string; odd: string | null }
export type Schedule = {
  etag: string
  name: string
  kind: string
  expr: string
  in_words: string | null
  payload: unknown
  queue: string | null
  zone: string
  gap: string
  fold: string
  misfire: string
  misfire_grace_s: number | null
  enabled: boolean
  max_attempts: number | null
  priority: number
  dedupe_key: string | null
  skip_if_running: boolean
  jitter_s: number
  starts_at: string | null
  ends_at: string | null
  state: string
  version: number
  next_fire_at: string | null
  last_fired_at: string | null
  last_outcome: string | null
  last_error: string | null
  consecutive_errors: number
  edited: Record<string, { by: string; at: string }>
  differences: Record<string, { declared: unknown; stored: unknown }>
  created_at: string
  updated_at: string
  updated_by: string | null
  undeclared: boolean
  why_silent: string | null
  next_fires: Fire[]
}
export type Tick = { schedule: string; fire_at: string; through: string | null; outcome: string; reason: string | null; job_id: string | null; at: string }

export type RateLimit = {
  etag: string
  scope: string
  capacity: number
  refill_per_s: number
  per_key: boolean
  template: string | null
  tokens: number
  blocked_until: string | null
  changed_at: string | null
  changed_by: string | null
  kinds: string[]
  waiting: number
}

export type Worker = {
  host_id: string
  worker: string
  label: string | null
  host_name: string
  pid: number
  version: string
  state: string
  live: boolean
  queues: string[]
  kinds: string[]
  slots: Record<string, number>
  shares: Record<string, number>
  offered: Record<string, number>
  running: Record<string, string>
  loop_lag_ms: number
  started_at: string
  heartbeat_at: string
}
export type Unserved = { queue: string; kind: string | null; jobs: number }
export type Workers = Listed<Worker> & { unserved: Unserved[] }

export type Banner = { kind: string; level: 'warning' | 'error'; text: string; queue: string | null; worker: string | null }
export type Overview = {
  at: string
  counts: Counts
  rates: { enqueued_per_s: number; completed_per_s: number; retried_per_s: number; failed_per_s: number }
  oldest_ready_age_s: number | null
  workers_live: number
  slots_open: number
  slots_busy: number
  banners: Banner[]
  queues: Queue[]
}

export type Point = {
  at: string
  count: number
  sum: number | null
  mean: number | null
  min: number | null
  p50: number | null
  p95: number | null
  p99: number | null
  max: number | null
}
export type Line = { metric: string; unit: string; host_id: string | null; points: Point[] }
export type SeriesAnswer = { from: string; to: string; bucket_s: number; lines: Line[] }

export type StoreInfo = {
  backend: string
  url: string
  version: string
  schema_version: number
  pending_migrations: string[]
  durability: string | null
  leases: { name: string; holder: string; token: number; expires_at: string }[]
  settings: Record<string, unknown>
}

export type Me = {
  name: string
  role: 'read' | 'operate' | 'admin'
  queues: string[] | null
  read_only: boolean
  login: boolean
  expires_at: string | null
  version: string
}

export type AuditRow = {
  at: string
  actor: string
  role: string
  surface: string
  address: string | null
  request_id: string | null
  action: string
  target: string
  count: number
  outcome: string
  before: unknown
  after: unknown
}
