-- Queues: settings, pause, cool-down.

-- name: ensure_queue
INSERT INTO forge_queues (name, updated_at) VALUES (:name, :now) ON CONFLICT (name) DO NOTHING

-- name: get_queue
SELECT name, max_workers, retain_done_days, retain_dead_days, backoff_enabled, backoff_base_s, backoff_cap_s,
  backoff_jitter, cool_down, max_pending, throttle_attempts, throttled_until, updated_at, updated_by
FROM forge_queues WHERE name = :name

-- name: list_queues
SELECT name, max_workers, retain_done_days, retain_dead_days, backoff_enabled, backoff_base_s, backoff_cap_s,
  backoff_jitter, cool_down, max_pending, throttle_attempts, throttled_until, updated_at, updated_by
FROM forge_queues ORDER BY name

-- name: list_pauses
SELECT queue, host_id, signal, paused_at, paused_by FROM forge_queue_pauses ORDER BY queue, host_id

-- name: write_queue
UPDATE forge_queues SET max_workers = :max_workers, retain_done_days = :retain_done_days,
  retain_dead_days = :retain_dead_days, backoff_enabled = :backoff_enabled, backoff_base_s = :backoff_base_s,
  backoff_cap_s = :backoff_cap_s, backoff_jitter = :backoff_jitter, cool_down = :cool_down, max_pending = :max_pending,
  updated_at = :now, updated_by = :by
WHERE name = :name

-- name: write_cool_down
UPDATE forge_queues SET throttle_attempts = :throttle_attempts, throttled_until = :throttled_until WHERE name = :name

-- name: decay_cool_down
UPDATE forge_queues SET throttle_attempts = 0, throttled_until = NULL
WHERE name = :name AND throttle_attempts > 0 AND (throttled_until IS NULL OR throttled_until <= :now - :grace)

-- name: queue_gate
SELECT throttled_until FROM forge_queues WHERE name = :name AND throttled_until > :now
UNION ALL
SELECT NULL FROM forge_queue_pauses WHERE queue = :name AND host_id IN ('', :host)

-- name: pause_queue
INSERT INTO forge_queue_pauses (queue, host_id, signal, paused_at, paused_by)
VALUES (:name, :host, :signal, :now, :by) ON CONFLICT (queue, host_id) DO NOTHING

-- name: signal_pause
UPDATE forge_queue_pauses SET signal = 1 WHERE queue = :name AND host_id = :host AND signal = 0

-- name: resume_queue
DELETE FROM forge_queue_pauses WHERE queue = :name AND host_id = :host

-- name: queue_has_jobs
SELECT 1 FROM forge_jobs WHERE queue = :name LIMIT 1

-- name: delete_queue
DELETE FROM forge_queues WHERE name = :name

-- name: delete_pauses
DELETE FROM forge_queue_pauses WHERE queue = :name

-- name: new_finished
INSERT INTO forge_finished (queue, status, count, counted_until)
SELECT q.name, s.value, 0, 0 FROM forge_queues q CROSS JOIN json_each(:statuses) AS s WHERE q.name <> ''
ON CONFLICT (queue, status) DO NOTHING

-- name: queue_bounds
SELECT name, max_pending FROM forge_queues
WHERE name IN (SELECT value FROM json_each(:queues)) AND max_pending IS NOT NULL
