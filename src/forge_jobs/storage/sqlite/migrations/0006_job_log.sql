-- What jobs logged. Older programs go on; a job that one of them deletes leaves its lines behind.

-- `seq` grows with every line of a job, over all its runs: the fence times a thousand million, and the number of the
-- line in its run. `size` is what the line counts for, in bytes; `skipped` how many lines were dropped right before it.
CREATE TABLE forge_job_log (
  job_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  at INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  fence INTEGER NOT NULL,
  level TEXT NOT NULL,
  logger TEXT NOT NULL,
  message TEXT NOT NULL,
  size INTEGER NOT NULL,
  skipped INTEGER NOT NULL,
  PRIMARY KEY (job_id, seq)
) WITHOUT ROWID;
CREATE INDEX forge_job_log_at ON forge_job_log (at);
