-- Metrics by minute.

-- How long ago a completed job was enqueued.
ALTER TABLE {schema}.events ADD COLUMN total_us bigint;

-- One row per minute (its start) and whatever had a value in it. Of jobs: by queue and kind, without a host. Of a
-- process: with its host_id. Of the store: with neither. A counter has a count only; everything else also what its
-- `count` values came to.
CREATE TABLE {schema}.metrics (
  metric text COLLATE "C" NOT NULL,
  minute bigint NOT NULL,
  host_id text COLLATE "C" NOT NULL,
  queue text COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL,
  count bigint NOT NULL,
  sum double precision,
  min double precision,
  p50 double precision,
  p95 double precision,
  p99 double precision,
  max double precision,
  PRIMARY KEY (metric, minute, host_id, queue, kind)
);
CREATE INDEX metrics_age ON {schema}.metrics (minute) WHERE host_id = '';
CREATE INDEX metrics_process_age ON {schema}.metrics (minute) WHERE host_id <> '';
