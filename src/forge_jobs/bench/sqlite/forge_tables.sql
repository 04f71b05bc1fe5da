-- The least that adds, takes and finishes a job of ours: the limit that our own statements are held against.

-- name: insert
INSERT INTO forge_jobs (id, queue, kind, payload, status, ready, priority, max_attempts, enqueued_at, scheduled_at)
VALUES (?, ?, ?, ?, 'pending', 1, 0, 5, ?, ?)

-- name: insert_future
INSERT INTO forge_jobs (id, queue, kind, payload, status, ready, priority, max_attempts, enqueued_at, scheduled_at)
VALUES (?, ?, ?, ?, 'pending', 0, -10, 5, ?, ? + 86400000000)

-- name: claim
UPDATE forge_jobs SET status = 'in_progress', ready = NULL, attempts = attempts + 1, fence = fence + 1,
  process_id = 'raw', host_id = 'raw', started_at = ?, heartbeat_at = ?
WHERE id IN (
  SELECT id FROM forge_jobs WHERE queue = ? AND kind = ? AND ready = 1 AND alone = 0 AND scheduled_at <= ?
  ORDER BY priority, scheduled_at, id LIMIT ?)
RETURNING id, kind, payload, attempts, max_attempts, fence

-- name: finalize
UPDATE forge_jobs SET status = 'done', completed_at = ?, process_id = NULL, heartbeat_at = NULL WHERE id = ?

-- name: finalize_batch
UPDATE forge_jobs SET status = 'done', completed_at = ?, process_id = NULL, heartbeat_at = NULL
WHERE id IN (SELECT value FROM json_each(?))

-- name: done_span
SELECT count(*), min(started_at), max(completed_at) FROM forge_jobs WHERE status = 'done'

-- name: registered
SELECT count(*) FROM forge_processes
