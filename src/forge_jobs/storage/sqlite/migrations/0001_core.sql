-- Jobs, their history, queues, processes, events and audit.
--
-- Instants are integers of microseconds UTC. `ready` places a waiting job: 1 due, 0 not due yet, null not
-- waiting. Only due jobs are in the claim index, so jobs of the future cost a claim nothing; a claim first
-- promotes what fell due. Without rowid: jobs are found by id, and every index would carry the id anyway.

CREATE TABLE forge_jobs (
  id TEXT NOT NULL PRIMARY KEY,
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  payload TEXT NOT NULL,
  status TEXT NOT NULL,
  ready INTEGER,
  alone INTEGER NOT NULL DEFAULT 0,
  priority INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  max_attempts INTEGER NOT NULL,
  crashes INTEGER NOT NULL DEFAULT 0,
  throttles INTEGER NOT NULL DEFAULT 0,
  fence INTEGER NOT NULL DEFAULT 0,
  enqueued_at INTEGER NOT NULL,
  scheduled_at INTEGER NOT NULL,
  expires_at INTEGER,
  started_at INTEGER,
  completed_at INTEGER,
  heartbeat_at INTEGER,
  -- The same beat on the host's boot-time clock, and which boot that was: staleness is measured with these,
  -- so a step of the wall clock neither revives nor hides a job.
  beat_us INTEGER,
  beat_boot INTEGER,
  process_id TEXT,
  host_id TEXT,
  dedupe_key TEXT,
  dead_reason TEXT,
  last_error TEXT,
  last_traceback TEXT,
  cancel_requested_at INTEGER,
  tags TEXT,
  parent_id TEXT,
  trace TEXT,
  CHECK ((status IN ('pending', 'failed')) = (ready IS NOT NULL)),
  CHECK ((status = 'in_progress') = (process_id IS NOT NULL)),
  CHECK ((status = 'dead') = (dead_reason IS NOT NULL)),
  CHECK ((status IN ('done', 'dead')) = (completed_at IS NOT NULL))
) WITHOUT ROWID;

-- The claim order, per kind, so that kinds nobody here serves are never walked past.
-- The trailing columns make these indexes covering, so that looking for jobs never touches the table.
CREATE INDEX forge_jobs_ready ON forge_jobs (queue, kind, priority, scheduled_at, id, expires_at, ready, alone)
  WHERE ready = 1 AND alone = 0;
CREATE INDEX forge_jobs_alone ON forge_jobs (queue, kind, priority, scheduled_at, id, expires_at, ready, alone)
  WHERE ready = 1 AND alone = 1;
CREATE INDEX forge_jobs_future ON forge_jobs (queue, scheduled_at, ready) WHERE ready = 0;
CREATE INDEX forge_jobs_bands ON forge_jobs (queue, kind, priority, scheduled_at, ready) WHERE ready = 0;
CREATE INDEX forge_jobs_running ON forge_jobs (host_id) WHERE status = 'in_progress';
CREATE INDEX forge_jobs_finished ON forge_jobs (queue, status, completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX forge_jobs_expiring ON forge_jobs (expires_at) WHERE ready IS NOT NULL AND expires_at IS NOT NULL;
CREATE INDEX forge_jobs_children ON forge_jobs (parent_id) WHERE parent_id IS NOT NULL;
CREATE UNIQUE INDEX forge_jobs_dedupe ON forge_jobs (dedupe_key)
  WHERE dedupe_key IS NOT NULL AND status IN ('pending', 'in_progress', 'failed');

-- Dedupe keys held beyond their job's end (`unique_for`).
CREATE TABLE forge_unique_holds (
  dedupe_key TEXT NOT NULL PRIMARY KEY,
  job_id TEXT NOT NULL,
  held_until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX forge_unique_holds_until ON forge_unique_holds (held_until);

CREATE TABLE forge_job_errors (
  job_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  at INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  fence INTEGER NOT NULL,
  process TEXT,
  message TEXT NOT NULL,
  kind_of_error TEXT NOT NULL,
  PRIMARY KEY (job_id, seq)
) WITHOUT ROWID;

CREATE TABLE forge_job_progress (
  job_id TEXT NOT NULL PRIMARY KEY,
  fence INTEGER NOT NULL,
  current REAL NOT NULL,
  total REAL,
  message TEXT,
  at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE forge_queues (
  name TEXT NOT NULL PRIMARY KEY,
  max_workers INTEGER,
  retain_done_days REAL DEFAULT 7,
  retain_dead_days REAL DEFAULT 30,
  backoff_enabled INTEGER NOT NULL DEFAULT 1,
  backoff_base_s REAL NOT NULL DEFAULT 5,
  backoff_cap_s REAL NOT NULL DEFAULT 1800,
  backoff_jitter REAL NOT NULL DEFAULT 0.1,
  cool_down INTEGER NOT NULL DEFAULT 1,
  max_pending INTEGER,
  throttle_attempts INTEGER NOT NULL DEFAULT 0,
  throttled_until INTEGER,
  updated_at INTEGER,
  updated_by TEXT
) WITHOUT ROWID;

-- A row with an empty host_id pauses the queue everywhere, another one in that process only.
CREATE TABLE forge_queue_pauses (
  queue TEXT NOT NULL,
  host_id TEXT NOT NULL,
  signal INTEGER NOT NULL,
  paused_at INTEGER NOT NULL,
  paused_by TEXT NOT NULL,
  PRIMARY KEY (queue, host_id)
) WITHOUT ROWID;

CREATE TABLE forge_processes (
  host_id TEXT NOT NULL PRIMARY KEY,
  info TEXT NOT NULL,
  label TEXT,
  started_at INTEGER NOT NULL,
  heartbeat_at INTEGER NOT NULL,
  beat_us INTEGER NOT NULL,
  beat_boot INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE forge_events (
  seq INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  type TEXT NOT NULL,
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  job_id TEXT,
  attempt INTEGER,
  cause TEXT,
  duration_us INTEGER,
  count INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX forge_events_at ON forge_events (at);
CREATE INDEX forge_events_job ON forge_events (job_id) WHERE job_id IS NOT NULL;

CREATE TABLE forge_audit (
  seq INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  role TEXT NOT NULL,
  address TEXT,
  surface TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  count INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  request_id TEXT,
  before TEXT,
  after TEXT
);
CREATE INDEX forge_audit_at ON forge_audit (at);
