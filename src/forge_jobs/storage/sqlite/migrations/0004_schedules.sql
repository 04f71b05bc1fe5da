-- Schedules, and what became of each of their ticks. Older programs go on without them.

-- `settings` and `declaration` (what code declared last) are JSON, so that a new setting needs no new column.
-- `edited` maps each setting that an operator changed to who and when. `revision` grows with every change, so that
-- whoever read the row can tell that it is still as it was.
CREATE TABLE forge_schedules (
  name TEXT NOT NULL PRIMARY KEY,
  settings TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('active', 'disabled', 'invalid', 'finished')),
  revision INTEGER NOT NULL DEFAULT 0,
  next_fire_at INTEGER,
  last_fired_at INTEGER,
  last_outcome TEXT,
  last_error TEXT,
  consecutive_errors INTEGER NOT NULL DEFAULT 0,
  declaration TEXT,
  version INTEGER NOT NULL DEFAULT 0,
  edited TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  updated_by TEXT
) WITHOUT ROWID;

-- The primary key is what makes a tick happen once: the row is written with its job, in one transaction.
CREATE TABLE forge_ticks (
  schedule TEXT NOT NULL,
  fire_at INTEGER NOT NULL,
  through INTEGER,
  outcome TEXT NOT NULL CHECK (outcome IN ('fired', 'skipped', 'error')),
  reason TEXT,
  job_id TEXT,
  at INTEGER NOT NULL,
  PRIMARY KEY (schedule, fire_at)
) WITHOUT ROWID;
CREATE INDEX forge_ticks_at ON forge_ticks (at);
