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

-- How many finished jobs a queue has that ended before `counted_until`; those that ended later are few, and counted when
-- somebody asks. The triggers fire for finished jobs that are deleted or run again, so ordinary work pays nothing.
CREATE TABLE forge_finished (
  queue TEXT NOT NULL,
  status TEXT NOT NULL,
  count INTEGER NOT NULL,
  counted_until INTEGER NOT NULL,
  PRIMARY KEY (queue, status)
) WITHOUT ROWID;
CREATE TRIGGER forge_finished_deleted AFTER DELETE ON forge_jobs WHEN OLD.completed_at IS NOT NULL BEGIN
  UPDATE forge_finished SET count = count - 1
  WHERE queue = OLD.queue AND status = OLD.status AND counted_until > OLD.completed_at;
END;
CREATE TRIGGER forge_finished_again AFTER UPDATE OF completed_at ON forge_jobs WHEN OLD.completed_at IS NOT NULL BEGIN
  UPDATE forge_finished SET count = count - 1
  WHERE queue = OLD.queue AND status = OLD.status AND counted_until > OLD.completed_at;
END;

-- Jobs that wait for a retry, so that the others that wait are counted in the indexes that claims use.
CREATE INDEX forge_jobs_failed ON forge_jobs (queue, scheduled_at) WHERE status = 'failed';
