-- Schedules and their ticks.

-- name: list_schedules
SELECT name, settings, state, revision, next_fire_at, last_fired_at, last_outcome, last_error, consecutive_errors,
  declaration, version, edited, created_at, updated_at, updated_by
FROM forge_schedules ORDER BY name

-- name: get_schedule
SELECT name, settings, state, revision, next_fire_at, last_fired_at, last_outcome, last_error, consecutive_errors,
  declaration, version, edited, created_at, updated_at, updated_by
FROM forge_schedules WHERE name = :name

-- name: due_schedules
SELECT name, settings, state, revision, next_fire_at, last_fired_at, last_outcome, last_error, consecutive_errors,
  declaration, version, edited, created_at, updated_at, updated_by
FROM forge_schedules WHERE state = 'active' AND (next_fire_at IS NULL OR next_fire_at <= :until) ORDER BY name

-- name: next_schedule
SELECT min(next_fire_at) FROM forge_schedules WHERE state = 'active' AND next_fire_at > :since

-- name: insert_schedule
INSERT INTO forge_schedules (name, settings, state, declaration, version, edited, created_at, updated_at, updated_by)
VALUES (:name, :settings, :state, :declaration, :version, :edited, :now, :now, :by) ON CONFLICT (name) DO NOTHING

-- name: write_schedule
-- `anew`: the next tick is found anew. `forgive`: errors of before say nothing any more.
UPDATE forge_schedules SET settings = :settings, state = :state, declaration = :declaration, version = :version,
  edited = :edited, revision = revision + 1, updated_at = :now, updated_by = :by,
  next_fire_at = CASE WHEN :anew = 1 THEN NULL ELSE next_fire_at END,
  last_error = CASE WHEN :anew = 1 THEN NULL ELSE last_error END,
  consecutive_errors = CASE WHEN :forgive = 1 THEN 0 ELSE consecutive_errors END
WHERE name = :name

-- name: delete_schedule
DELETE FROM forge_schedules WHERE name = :name

-- name: seed_schedule
UPDATE forge_schedules SET next_fire_at = :next_fire_at, state = :state, revision = revision + 1
WHERE name = :name AND revision = :revision AND state = 'active' AND next_fire_at IS NULL

-- name: move_schedule
-- The tick is taken by whoever moves it on from the value that was read.
UPDATE forge_schedules SET next_fire_at = :next_fire_at, state = :state, revision = revision + 1, last_error = NULL,
  consecutive_errors = 0
WHERE name = :name AND revision = :revision AND state = 'active' AND next_fire_at = :was

-- name: write_outcome
UPDATE forge_schedules SET last_outcome = :outcome, last_fired_at = coalesce(:fired_at, last_fired_at)
WHERE name = :name

-- name: invalidate_schedule
UPDATE forge_schedules SET state = 'invalid', last_error = :error, last_outcome = 'error',
  consecutive_errors = consecutive_errors + 1, revision = revision + 1
WHERE name = :name AND revision = :revision AND state = 'active'

-- name: count_schedule_error
UPDATE forge_schedules SET last_error = :error, last_outcome = 'error', consecutive_errors = consecutive_errors + 1
WHERE name = :name AND revision = :revision AND state = 'active'

-- name: insert_tick
-- One row for each tick, and only one that met an error is written again.
INSERT INTO forge_ticks (schedule, fire_at, through, outcome, reason, job_id, at)
VALUES (:name, :fire_at, :through, :outcome, :reason, :job_id, :now)
ON CONFLICT (schedule, fire_at) DO UPDATE SET through = excluded.through, outcome = excluded.outcome,
  reason = excluded.reason, job_id = excluded.job_id, at = excluded.at
WHERE forge_ticks.outcome = 'error'

-- name: count_ticks
SELECT count(*) FROM forge_ticks WHERE schedule = :name

-- name: list_ticks
SELECT schedule, fire_at, through, outcome, reason, job_id, at FROM forge_ticks
WHERE schedule = :name AND (:until IS NULL OR fire_at < :until) ORDER BY fire_at DESC LIMIT :limit
