-- Jobs, one at a time: what an operator, the owner of a run, or the reaper does to a row.

-- name: lock_job
SELECT id, queue, kind, status, attempts, max_attempts, crashes, throttles, fence, cancel_requested_at IS NOT NULL,
  alone, started_at, process_id, dedupe_key
FROM forge_jobs WHERE id = :id

-- name: last_error_seq
SELECT coalesce(max(seq), 0) FROM forge_job_errors WHERE job_id = :id

-- name: insert_error
INSERT INTO forge_job_errors (job_id, seq, at, attempt, fence, process, message, kind_of_error)
VALUES (:id, :seq, :now, :attempt, :fence, :process, :message, :kind_of_error)

-- name: trim_errors
DELETE FROM forge_job_errors WHERE job_id = :id AND seq <= :seq

-- name: request_cancel
UPDATE forge_jobs SET cancel_requested_at = coalesce(cancel_requested_at, :now)
WHERE id = :id AND status = 'in_progress'

-- name: make_due
UPDATE forge_jobs SET scheduled_at = :now, ready = 1 WHERE id = :id AND status = 'pending'

-- name: delete_job
DELETE FROM forge_jobs WHERE id = :id AND status <> 'in_progress'

-- name: delete_errors
DELETE FROM forge_job_errors WHERE job_id = :id

-- name: delete_progress
DELETE FROM forge_job_progress WHERE job_id = :id

-- name: delete_events
DELETE FROM forge_events WHERE job_id = :id

-- name: free_hold
DELETE FROM forge_unique_holds WHERE dedupe_key = :key AND job_id = :id

-- name: key_holder
SELECT id FROM forge_jobs
WHERE dedupe_key = :key AND dedupe_key IS NOT NULL AND status IN ('pending', 'in_progress', 'failed') AND id <> :id
UNION ALL
SELECT job_id FROM forge_unique_holds WHERE dedupe_key = :key AND job_id <> :id AND held_until > :now
LIMIT 1

-- name: expired_jobs
SELECT id FROM forge_jobs
WHERE ready IS NOT NULL AND expires_at IS NOT NULL AND expires_at <= :now ORDER BY expires_at LIMIT :limit

-- name: keep_progress
INSERT INTO forge_job_progress (job_id, fence, current, total, message, at)
SELECT id, fence, :current, :total, :message, :now FROM forge_jobs
WHERE id = :id AND fence = :fence AND status = 'in_progress'
ON CONFLICT (job_id) DO UPDATE SET fence = excluded.fence, current = excluded.current, total = excluded.total,
  message = excluded.message, at = excluded.at

-- name: get_job
SELECT j.id, j.queue, j.kind, j.status, j.priority, j.attempts, j.max_attempts, j.crashes, j.throttles, j.fence,
  j.enqueued_at, j.scheduled_at, j.expires_at, j.started_at, j.completed_at, j.heartbeat_at, j.process_id, j.host_id,
  j.dedupe_key, j.dead_reason, j.last_error, j.cancel_requested_at, j.tags, j.parent_id, j.payload,
  (SELECT label FROM forge_processes p WHERE p.host_id = j.host_id), j.last_traceback, j.trace
FROM forge_jobs j WHERE j.id = :id

-- name: errors_of_job
SELECT at, attempt, fence, process, message, kind_of_error FROM forge_job_errors WHERE job_id = :id ORDER BY seq

-- name: progress_of_job
SELECT current, total, message, at FROM forge_job_progress WHERE job_id = :id AND fence = :fence

-- name: count_waiting
SELECT count(*) FROM forge_jobs WHERE queue = :queue AND ready IS NOT NULL

-- name: running_of_host
SELECT id, fence, cancel_requested_at IS NOT NULL FROM forge_jobs
WHERE status = 'in_progress' AND host_id = :host
