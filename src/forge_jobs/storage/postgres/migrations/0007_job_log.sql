-- What jobs logged. Older programs go on; a job that one of them deletes leaves its lines behind.

-- `seq` grows with every line of a job, over all its runs: the fence times a thousand million, and the number of the
-- line in its run. `size` is what the line counts for, in bytes; `skipped` how many lines were dropped right before it.
CREATE TABLE {schema}.job_log (
  job_id text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  at bigint NOT NULL,
  attempt integer NOT NULL,
  fence bigint NOT NULL,
  level text NOT NULL,
  logger text NOT NULL,
  message text NOT NULL,
  size integer NOT NULL,
  skipped bigint NOT NULL,
  PRIMARY KEY (job_id, seq)
);
CREATE INDEX job_log_at ON {schema}.job_log (at);
