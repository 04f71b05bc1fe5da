-- Jobs: what an operator, the owner of a run, or the reaper does to a row; and what is read of them.

-- name: lock_job
SELECT id, queue, kind, status, attempts, max_attempts, crashes, throttles, fence, cancel_requested_at IS NOT NULL,
  alone, started_at, process_id, dedupe_key, enqueued_at
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
  (SELECT label FROM forge_processes p WHERE p.host_id = j.host_id), j.trace, j.last_traceback
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

-- name: jobs_by_ids
-- A list is one JSON parameter, which reads the same everywhere; PostgreSQL's book has a `json_each` of ours.
SELECT id, queue, kind, payload, dedupe_key FROM forge_jobs WHERE id IN (SELECT value FROM json_each(:ids))

-- name: holders_of_keys
SELECT dedupe_key, id, status FROM forge_jobs
WHERE dedupe_key IN (SELECT value FROM json_each(:keys)) AND dedupe_key IS NOT NULL
  AND status IN ('pending', 'in_progress', 'failed')

-- name: holds_of_keys
SELECT h.dedupe_key, h.job_id, j.status FROM forge_unique_holds h LEFT JOIN forge_jobs j ON j.id = h.job_id
WHERE h.dedupe_key IN (SELECT value FROM json_each(:keys)) AND h.held_until > :now

-- name: write_job
UPDATE forge_jobs SET status = :status, attempts = :attempts, crashes = :crashes, throttles = :throttles,
  fence = :fence, alone = :alone, dead_reason = :dead_reason,
  scheduled_at = CASE WHEN :due_in IS NULL THEN scheduled_at ELSE :now + :due_in END,
  ready = CASE WHEN :waiting = 0 THEN NULL
               WHEN CASE WHEN :due_in IS NULL THEN scheduled_at ELSE :now + :due_in END <= :now THEN 1 ELSE 0 END,
  completed_at = CASE WHEN :finished = 1 THEN :now END,
  process_id = NULL, heartbeat_at = NULL,
  cancel_requested_at = CASE WHEN :cancel_requested = 1 THEN cancel_requested_at END,
  last_error = coalesce(:error, last_error), last_traceback = CASE WHEN :error IS NULL THEN last_traceback
                                                                  ELSE :traceback END
WHERE id = :id AND fence = :was_fence AND status = :was_status

-- name: errors_of_jobs
SELECT id, last_error, dead_reason FROM forge_jobs WHERE id IN (SELECT value FROM json_each(:ids))

-- fragment: job_rows
SELECT j.id, j.queue, j.kind, j.status, j.priority, j.attempts, j.max_attempts, j.crashes, j.throttles, j.fence,
  j.enqueued_at, j.scheduled_at, j.expires_at, j.started_at, j.completed_at, j.heartbeat_at, j.process_id, j.host_id,
  j.dedupe_key, j.dead_reason, j.last_error, j.cancel_requested_at, j.tags, j.parent_id, j.payload,
  (SELECT label FROM forge_processes p WHERE p.host_id = j.host_id), j.trace
FROM forge_jobs j

-- fragment: rest_of_filter
-- Of a filter of jobs, all but what the statement's index is about. Text of hidden kinds is not found.
  AND (:dead_reasons IS NULL OR dead_reason IN (SELECT value FROM json_each(:dead_reasons)))
  AND (:key IS NULL OR dedupe_key = :key)
  AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(j.tags) WHERE value = :tag))
  AND (:search IS NULL OR (lower(payload) LIKE :search ESCAPE '\'
    AND kind NOT IN (SELECT kind FROM forge_kinds WHERE hidden = 1)))
  AND (:error IS NULL OR (lower(last_error) LIKE :error ESCAPE '\'
    AND kind NOT IN (SELECT kind FROM forge_kinds WHERE hidden = 1)))
  AND (:since IS NULL OR enqueued_at >= :since)
  AND (:until IS NULL OR enqueued_at <= :until)
  AND (:process IS NULL OR host_id = :process OR process_id = :process)
  AND (:parent IS NULL OR parent_id = :parent)
  AND (:schedule IS NULL OR replace(trace, :schedule, '') <> trace)

-- name: choose_ids
SELECT id FROM forge_jobs j
WHERE id > :after
  AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
  AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))
  AND (:kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
  AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
-- use: rest_of_filter
ORDER BY id LIMIT :limit

-- name: end_of_stretch
-- The last of at most so many ids below `:before`.
SELECT id FROM (SELECT id FROM forge_jobs WHERE id < :before ORDER BY id DESC LIMIT :limit) AS stretch
ORDER BY id LIMIT 1

-- name: list_jobs
-- use: job_rows
WHERE id < :before AND id >= :after
  AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
  AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))
  AND (:kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
  AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
-- use: rest_of_filter
ORDER BY id DESC LIMIT :limit

-- name: list_children
-- Newest first, from the index of jobs with a parent.
-- use: job_rows
WHERE parent_id = :parent ORDER BY id DESC LIMIT :limit

-- name: count_children
SELECT count(*) FROM forge_jobs WHERE parent_id = :parent

-- name: list_finished
-- Of one queue and status, whose index has this order; pages of several are merged.
-- use: job_rows
WHERE queue = :queue AND status = :status AND completed_at IS NOT NULL
  AND (:at IS NULL OR completed_at < :at OR (completed_at = :at AND id < :before))
  AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
  AND (:kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
-- use: rest_of_filter
ORDER BY completed_at DESC, id DESC LIMIT :limit

-- name: list_future
-- Waiting jobs of one queue that are not due yet, soonest first.
-- use: job_rows
WHERE queue = :queue AND ready = 0
  AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
  AND (:at IS NULL OR scheduled_at > :at OR (scheduled_at = :at AND id > :before))
  AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
  AND (:kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
-- use: rest_of_filter
ORDER BY scheduled_at, id LIMIT :limit

-- name: list_failed
-- Jobs of one queue that wait for a retry, due or not, soonest first.
-- use: job_rows
WHERE queue = :queue AND status = 'failed'
  AND (:at IS NULL OR scheduled_at > :at OR (scheduled_at = :at AND id > :before))
  AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
  AND (:kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
-- use: rest_of_filter
ORDER BY scheduled_at, id LIMIT :limit

-- name: list_due
-- Due jobs of one queue, kind and priority, which stand in this order in the claim index; pages of several are merged.
-- use: job_rows
WHERE queue = :queue AND kind = :kind AND priority = :priority AND ready = 1 AND alone = 0
  AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
  AND (:at IS NULL OR scheduled_at > :at OR (scheduled_at = :at AND id > :before))
  AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
-- use: rest_of_filter
ORDER BY scheduled_at, id LIMIT :limit

-- name: list_due_alone
-- Due jobs of one queue that run alone, which have an index of their own and are few.
-- use: job_rows
WHERE queue = :queue AND ready = 1 AND alone = 1
  AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
  AND (:at IS NULL OR scheduled_at > :at OR (scheduled_at = :at AND id > :before))
  AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
  AND (:kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
-- use: rest_of_filter
ORDER BY scheduled_at, id LIMIT :limit

-- name: count_jobs
SELECT status, count(*) FROM forge_jobs j
WHERE id < :before AND id >= :after
  AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
  AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))
  AND (:kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))
  AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
-- use: rest_of_filter
GROUP BY status

-- name: delete_children_of_jobs
DELETE FROM forge_job_errors WHERE job_id IN (SELECT value FROM json_each(:ids))

-- name: delete_progress_of_jobs
DELETE FROM forge_job_progress WHERE job_id IN (SELECT value FROM json_each(:ids))

-- name: delete_events_of_jobs
DELETE FROM forge_events WHERE job_id IN (SELECT value FROM json_each(:ids)) AND job_id IS NOT NULL

-- name: change_job
UPDATE forge_jobs SET priority = :priority, scheduled_at = :scheduled_at, max_attempts = :max_attempts, queue = :queue,
  expires_at = :expires_at, ready = CASE WHEN :scheduled_at <= :now THEN 1 ELSE 0 END
WHERE id = :id AND status IN ('pending', 'failed')

-- name: waiting_settings
SELECT priority, scheduled_at, max_attempts, queue, expires_at FROM forge_jobs WHERE id = :id

-- name: running_kinds
SELECT queue, kind, count(*) FROM forge_jobs WHERE status = 'in_progress' GROUP BY queue, kind

-- name: dead_kinds
SELECT kind, count(*) FROM forge_jobs
WHERE queue = :queue AND status = 'dead' AND completed_at IS NOT NULL GROUP BY kind

-- name: deaths
SELECT id, queue, kind, last_error, dead_reason, completed_at FROM forge_jobs
WHERE queue = :queue AND status = 'dead' AND completed_at IS NOT NULL ORDER BY completed_at DESC LIMIT :limit
