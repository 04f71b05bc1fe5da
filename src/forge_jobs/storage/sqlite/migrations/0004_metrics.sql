-- Metrics by minute.

-- How long ago a completed job was enqueued.
ALTER TABLE forge_events ADD COLUMN total_us INTEGER;

-- One row per minute (its start) and whatever had a value in it. Of jobs: by queue and kind, without a host. Of a
-- process: with its host_id. Of the store: with neither. A counter has a count only; everything else also what its
-- `count` values came to.
CREATE TABLE forge_metrics (
  metric TEXT NOT NULL,
  minute INTEGER NOT NULL,
  host_id TEXT NOT NULL,
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  count INTEGER NOT NULL,
  sum REAL,
  min REAL,
  p50 REAL,
  p95 REAL,
  p99 REAL,
  max REAL,
  PRIMARY KEY (metric, minute, host_id, queue, kind)
) WITHOUT ROWID;
CREATE INDEX forge_metrics_age ON forge_metrics (minute) WHERE host_id = '';
CREATE INDEX forge_metrics_process_age ON forge_metrics (minute) WHERE host_id <> '';
