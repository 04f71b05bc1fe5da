-- Schedules, and what became of each of their ticks. Older programs go on without them.

-- `settings` and `declaration` (what code declared last) are JSON, so that a new setting needs no new column.
-- `edited` maps each setting that an operator changed to who and when. `revision` grows with every change, so that
-- whoever read the row can tell that it is still as it was.
CREATE TABLE {schema}.schedules (
  name text COLLATE "C" NOT NULL PRIMARY KEY,
  settings text NOT NULL,
  state text NOT NULL CHECK (state IN ('active', 'disabled', 'invalid', 'finished')),
  revision bigint NOT NULL DEFAULT 0,
  next_fire_at bigint,
  last_fired_at bigint,
  last_outcome text,
  last_error text,
  consecutive_errors integer NOT NULL DEFAULT 0,
  declaration text,
  version bigint NOT NULL DEFAULT 0,
  edited text NOT NULL,
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL,
  updated_by text
) WITH (fillfactor = 50);

-- The primary key is what makes a tick happen once: the row is written with its job, in one transaction.
CREATE TABLE {schema}.ticks (
  schedule text COLLATE "C" NOT NULL,
  fire_at bigint NOT NULL,
  through bigint,
  outcome text NOT NULL CHECK (outcome IN ('fired', 'skipped', 'error')),
  reason text,
  job_id text COLLATE "C",
  at bigint NOT NULL,
  PRIMARY KEY (schedule, fire_at)
);
CREATE INDEX ticks_at ON {schema}.ticks (at);
