-- The least that adds, takes and finishes a job of ours: the limit that our own statements are held against. The schema
-- is on the search path; `$1` is understood by the server itself, so every driver sends these texts as they are.

-- name: insert
INSERT INTO jobs (id, queue, kind, payload, status, ready, priority, max_attempts, enqueued_at, scheduled_at)
VALUES ($1, $2, $3, $4, 'pending', 1, 0, 5, $5::bigint, $5::bigint)

-- name: insert_arrays
INSERT INTO jobs (id, queue, kind, payload, status, ready, priority, max_attempts, enqueued_at, scheduled_at)
SELECT id, queue, kind, payload, 'pending', 1, 0, 5, at, at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS given (id, queue, kind, payload, at)

-- name: insert_json
INSERT INTO jobs (id, queue, kind, payload, status, ready, priority, max_attempts, enqueued_at, scheduled_at)
SELECT r ->> 0, r ->> 1, r ->> 2, r ->> 3, 'pending', 1, 0, 5, (r ->> 4)::bigint, (r ->> 4)::bigint
FROM jsonb_array_elements($1::text::jsonb) AS r

-- name: copy
COPY jobs (id, queue, kind, payload, status, ready, priority, max_attempts, enqueued_at, scheduled_at) FROM STDIN

-- name: claim
UPDATE jobs SET status = 'in_progress', ready = NULL, attempts = attempts + 1, fence = fence + 1,
  process_id = 'raw', host_id = 'raw', started_at = $1::bigint, heartbeat_at = $1::bigint
WHERE id = ANY (ARRAY(
  SELECT id FROM jobs WHERE queue = $2 AND kind = $3 AND ready = 1 AND alone = 0 AND scheduled_at <= $1::bigint
  ORDER BY priority, scheduled_at, id LIMIT $4::bigint FOR UPDATE SKIP LOCKED))
RETURNING id, kind, payload, attempts, max_attempts, fence

-- name: finalize
UPDATE jobs SET status = 'done', completed_at = $1::bigint, process_id = NULL, heartbeat_at = NULL
WHERE id = ANY ($2::text[])

-- name: done_span
SELECT count(*), coalesce(min(started_at), 0), coalesce(max(completed_at), 0) FROM jobs WHERE status = 'done'

-- name: registered
SELECT count(*) FROM processes
