-- Jobs, their history, queues, processes, events and audit.
--
-- {schema} is replaced by the schema's name. Instants are bigints of microseconds UTC, as on SQLite, so that most
-- statements read the same on both; the view `jobs_readable` shows them as timestamps. Text compares byte by byte
-- (collation "C"), so that ids sort as they were made whatever the locale. `ready` places a waiting job: 1 due,
-- 0 not due yet, null not waiting. Only due jobs are in the claim index, so jobs of the future cost a claim nothing;
-- a claim first promotes what fell due.

CREATE TABLE {schema}.jobs (
  id text COLLATE "C" NOT NULL PRIMARY KEY,
  queue text COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL,
  payload text COLLATE "C" NOT NULL,
  status text COLLATE "C" NOT NULL,
  ready smallint,
  alone smallint NOT NULL DEFAULT 0,
  priority integer NOT NULL,
  attempts integer NOT NULL DEFAULT 0,
  max_attempts integer NOT NULL,
  crashes integer NOT NULL DEFAULT 0,
  throttles integer NOT NULL DEFAULT 0,
  fence bigint NOT NULL DEFAULT 0,
  enqueued_at bigint NOT NULL,
  scheduled_at bigint NOT NULL,
  expires_at bigint,
  started_at bigint,
  completed_at bigint,
  heartbeat_at bigint,
  process_id text,
  host_id text COLLATE "C",
  dedupe_key text COLLATE "C",
  dead_reason text,
  last_error text COLLATE "C",
  last_traceback text,
  cancel_requested_at bigint,
  tags text,
  parent_id text COLLATE "C",
  trace text,
  CHECK ((status IN ('pending', 'failed')) = (ready IS NOT NULL)),
  CHECK ((status = 'in_progress') = (process_id IS NOT NULL)),
  CHECK ((status = 'dead') = (dead_reason IS NOT NULL)),
  CHECK ((status IN ('done', 'dead')) = (completed_at IS NOT NULL))
) WITH (
  -- Room on each page for heartbeats, which touch no index. Dead rows go early: they stand at the head of the claim
  -- index, in the way of every claim.
  fillfactor = 85,
  autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 500
);

-- The claim order, per kind, so that kinds nobody here serves are never walked past.
CREATE INDEX jobs_ready ON {schema}.jobs (queue, kind, priority, scheduled_at, id) WHERE ready = 1 AND alone = 0;
CREATE INDEX jobs_alone ON {schema}.jobs (queue, kind, priority, scheduled_at, id) WHERE ready = 1 AND alone = 1;
CREATE INDEX jobs_future ON {schema}.jobs (queue, scheduled_at) WHERE ready = 0;
CREATE INDEX jobs_bands ON {schema}.jobs (queue, kind, priority, scheduled_at, id) WHERE ready = 0;
CREATE INDEX jobs_running ON {schema}.jobs (host_id) WHERE status = 'in_progress';
CREATE INDEX jobs_finished ON {schema}.jobs (queue, status, completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX jobs_expiring ON {schema}.jobs (expires_at) WHERE ready IS NOT NULL AND expires_at IS NOT NULL;
CREATE INDEX jobs_children ON {schema}.jobs (parent_id) WHERE parent_id IS NOT NULL;
CREATE UNIQUE INDEX jobs_dedupe ON {schema}.jobs (dedupe_key)
  WHERE dedupe_key IS NOT NULL AND status IN ('pending', 'in_progress', 'failed');

CREATE VIEW {schema}.jobs_readable AS
SELECT id, queue, kind, status, dead_reason, priority, attempts, max_attempts, crashes,
  to_timestamp(enqueued_at / 1e6) AS enqueued_at, to_timestamp(scheduled_at / 1e6) AS scheduled_at,
  to_timestamp(started_at / 1e6) AS started_at, to_timestamp(completed_at / 1e6) AS completed_at,
  to_timestamp(heartbeat_at / 1e6) AS heartbeat_at, process_id, dedupe_key, last_error, payload
FROM {schema}.jobs;

-- Dedupe keys held beyond their job's end (`unique_for`).
CREATE TABLE {schema}.unique_holds (
  dedupe_key text COLLATE "C" NOT NULL PRIMARY KEY,
  job_id text COLLATE "C" NOT NULL,
  held_until bigint NOT NULL
);
CREATE INDEX unique_holds_until ON {schema}.unique_holds (held_until);

CREATE TABLE {schema}.job_errors (
  job_id text COLLATE "C" NOT NULL,
  seq integer NOT NULL,
  at bigint NOT NULL,
  attempt integer NOT NULL,
  fence bigint NOT NULL,
  process text,
  message text NOT NULL,
  kind_of_error text NOT NULL,
  PRIMARY KEY (job_id, seq)
);

CREATE TABLE {schema}.job_progress (
  job_id text COLLATE "C" NOT NULL PRIMARY KEY,
  fence bigint NOT NULL,
  current double precision NOT NULL,
  total double precision,
  message text,
  at bigint NOT NULL
);

CREATE TABLE {schema}.queues (
  name text COLLATE "C" NOT NULL PRIMARY KEY,
  max_workers integer,
  retain_done_days double precision DEFAULT 7,
  retain_dead_days double precision DEFAULT 30,
  backoff_enabled smallint NOT NULL DEFAULT 1,
  backoff_base_s double precision NOT NULL DEFAULT 5,
  backoff_cap_s double precision NOT NULL DEFAULT 1800,
  backoff_jitter double precision NOT NULL DEFAULT 0.1,
  cool_down smallint NOT NULL DEFAULT 1,
  max_pending integer,
  throttle_attempts integer NOT NULL DEFAULT 0,
  throttled_until bigint,
  updated_at bigint,
  updated_by text
);

-- A row with an empty host_id pauses the queue everywhere, another one in that process only.
CREATE TABLE {schema}.queue_pauses (
  queue text COLLATE "C" NOT NULL,
  host_id text COLLATE "C" NOT NULL,
  signal smallint NOT NULL,
  paused_at bigint NOT NULL,
  paused_by text NOT NULL,
  PRIMARY KEY (queue, host_id)
);

CREATE TABLE {schema}.processes (
  host_id text COLLATE "C" NOT NULL PRIMARY KEY,
  info text NOT NULL,
  label text,
  started_at bigint NOT NULL,
  heartbeat_at bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 100);

CREATE TABLE {schema}.events (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at bigint NOT NULL,
  type text NOT NULL,
  queue text COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL,
  job_id text COLLATE "C",
  attempt integer,
  cause text,
  duration_us bigint,
  count bigint NOT NULL DEFAULT 1
);
CREATE INDEX events_at ON {schema}.events (at);
CREATE INDEX events_job ON {schema}.events (job_id) WHERE job_id IS NOT NULL;

CREATE TABLE {schema}.audit (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at bigint NOT NULL,
  actor text NOT NULL,
  role text NOT NULL,
  address text,
  surface text NOT NULL,
  action text NOT NULL,
  target text NOT NULL,
  count bigint NOT NULL,
  outcome text NOT NULL,
  request_id text,
  before text,
  after text
);
CREATE INDEX audit_at ON {schema}.audit (at);

-- Store time: the server's clock, as microseconds UTC.
CREATE FUNCTION {schema}.now_us() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

-- The values of a JSON list, the members of a JSON object: how a statement takes many values in one parameter.
CREATE FUNCTION {schema}.each(list text) RETURNS TABLE (value text) LANGUAGE sql IMMUTABLE STRICT ROWS 100 AS
$$ SELECT jsonb_array_elements_text(list::jsonb) $$;
