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

-- How many finished jobs a queue has that ended before `counted_until`; those that ended later are few, and counted when
-- somebody asks. The triggers fire for finished jobs that are deleted or run again, so ordinary work pays nothing.
CREATE TABLE {schema}.finished (
  queue text COLLATE "C" NOT NULL,
  status text COLLATE "C" NOT NULL,
  count bigint NOT NULL,
  counted_until bigint NOT NULL,
  PRIMARY KEY (queue, status)
) WITH (fillfactor = 50);

-- The row is locked before `counted_until` is compared: whoever moves it must not count a job that is about to go.
CREATE FUNCTION {schema}.finished_deleted_1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  _of record;
BEGIN
  FOR _of IN
    SELECT queue, status FROM gone WHERE completed_at IS NOT NULL GROUP BY queue, status ORDER BY queue, status
  LOOP
    PERFORM FROM {schema}.finished WHERE queue = _of.queue AND status = _of.status FOR UPDATE;
    UPDATE {schema}.finished f SET count = f.count - (
      SELECT count(*) FROM gone g WHERE g.queue = f.queue AND g.status = f.status AND g.completed_at < f.counted_until)
    WHERE f.queue = _of.queue AND f.status = _of.status;
  END LOOP;
  RETURN NULL;
END $$;
CREATE TRIGGER finished_deleted AFTER DELETE ON {schema}.jobs REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION {schema}.finished_deleted_1();

CREATE FUNCTION {schema}.finished_again_1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE {schema}.finished SET count = count - CASE WHEN counted_until > OLD.completed_at THEN 1 ELSE 0 END
  WHERE queue = OLD.queue AND status = OLD.status;
  RETURN NULL;
END $$;
CREATE TRIGGER finished_again AFTER UPDATE OF completed_at ON {schema}.jobs FOR EACH ROW
WHEN (OLD.completed_at IS NOT NULL) EXECUTE FUNCTION {schema}.finished_again_1();

-- Jobs that wait for a retry, so that the others that wait are counted in the indexes that claims use.
CREATE INDEX jobs_failed ON {schema}.jobs (queue, scheduled_at) WHERE status = 'failed';
