-- Buckets of rate limits.

-- One row per scope. `tokens`, `blocked_us` and `parked_us` are as of the row's last change: how many tokens are in the
-- bucket, for how long it gives none, and up to when its refill is promised to jobs that were put off. How long ago that
-- was is measured on the host's boot-time clock (`tick_us`, `boot`), so a step of the wall clock grants nothing.
-- `template` is the scope that a keyed one was made from: `slack` for `slack:team-42`.
CREATE TABLE forge_rate_limits (
  scope TEXT NOT NULL PRIMARY KEY,
  capacity REAL NOT NULL,
  refill_per_s REAL NOT NULL,
  per_key INTEGER NOT NULL DEFAULT 0,
  template TEXT,
  tokens REAL NOT NULL,
  blocked_us INTEGER NOT NULL DEFAULT 0,
  parked_us INTEGER NOT NULL DEFAULT 0,
  updated_at INTEGER NOT NULL,
  tick_us INTEGER NOT NULL DEFAULT 0,
  boot INTEGER NOT NULL DEFAULT 0,
  changed_at INTEGER,
  changed_by TEXT
) WITHOUT ROWID;
CREATE INDEX forge_rate_limits_template ON forge_rate_limits (template) WHERE template IS NOT NULL;
