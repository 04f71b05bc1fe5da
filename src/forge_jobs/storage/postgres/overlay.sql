-- Statements that read differently on PostgreSQL, each with the feature that forces it.

-- name: jobs_table
-- Not a statement: the name of the hot table, for VACUUM and ANALYZE.
forge_jobs

-- name: exchange
-- A function of the schema: see its migration.
SELECT now_us, unsettled, jobs, more, alone_waiting, next_due
FROM forge_exchange_1(CAST(:done AS text), CAST(:asked AS text), :grace, :at)

-- name: reserve_keys
-- Writers are not alone here: a lock for each key, taken in one order.
SELECT count(pg_advisory_xact_lock(slot))
FROM (SELECT DISTINCT forge_key_slot(value) AS slot FROM json_each(:keys) AS k ORDER BY slot) AS slots

-- name: try_reserve_keys
SELECT value FROM json_each(:keys) AS k WHERE NOT pg_try_advisory_xact_lock(forge_key_slot(value))

-- name: lock_job
-- FOR UPDATE: another transaction may be about to change the row.
SELECT id, queue, kind, status, attempts, max_attempts, crashes, throttles, fence, cancel_requested_at IS NOT NULL,
  alone, started_at, process_id, dedupe_key, enqueued_at
FROM forge_jobs WHERE id = :id FOR UPDATE

-- name: insert_job
-- A list of rows is one JSON parameter: one round trip however many, and one plan. The fields of `NewJob` by position,
-- then now. The settings rows of queues that have none are made on the way, which spares a round trip.
WITH given AS (SELECT r FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r),
made AS (INSERT INTO forge_queues (name, updated_at) SELECT DISTINCT r ->> 1, (r ->> 16)::bigint FROM given
         ON CONFLICT (name) DO NOTHING)
INSERT INTO forge_jobs (id, queue, kind, payload, status, ready, priority, max_attempts, enqueued_at, scheduled_at,
                        expires_at, dedupe_key, tags, trace, parent_id)
SELECT id, queue, kind, payload, 'pending', CASE WHEN scheduled_at <= now THEN 1 ELSE 0 END, priority, max_attempts,
  now, scheduled_at, expires_at, dedupe_key, tags, trace, parent_id
FROM (SELECT r ->> 0 AS id, r ->> 1 AS queue, r ->> 2 AS kind, r ->> 3 AS payload, (r ->> 4)::integer AS priority,
        (r ->> 5)::integer AS max_attempts, (r ->> 16)::bigint AS now,
        coalesce((r ->> 6)::bigint, (r ->> 16)::bigint + (r ->> 7)::bigint) AS scheduled_at,
        coalesce((r ->> 8)::bigint, (r ->> 16)::bigint + (r ->> 9)::bigint) AS expires_at,
        r ->> 10 AS dedupe_key, r ->> 12 AS tags, r ->> 13 AS trace, r ->> 14 AS parent_id
      FROM given) AS read
ON CONFLICT DO NOTHING

-- name: insert_plain_job
WITH given AS (SELECT r FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r),
made AS (INSERT INTO forge_queues (name, updated_at) SELECT DISTINCT r ->> 1, (r ->> 7)::bigint FROM given
         ON CONFLICT (name) DO NOTHING)
INSERT INTO forge_jobs (id, queue, kind, payload, status, ready, priority, max_attempts, enqueued_at, scheduled_at,
                        parent_id)
SELECT r ->> 0, r ->> 1, r ->> 2, r ->> 3, 'pending', 1, (r ->> 4)::integer, (r ->> 5)::integer, (r ->> 7)::bigint,
  (r ->> 7)::bigint, nullif(r ->> 6, '')
FROM given
ON CONFLICT DO NOTHING

-- name: hold_key
INSERT INTO forge_unique_holds (dedupe_key, job_id, held_until)
SELECT r ->> 0, r ->> 1, (r ->> 2)::bigint FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r
ON CONFLICT (dedupe_key) DO UPDATE SET job_id = excluded.job_id, held_until = excluded.held_until

-- name: insert_event
INSERT INTO forge_events (at, type, queue, kind, job_id, attempt, cause, duration_us, count, total_us)
SELECT (r ->> 0)::bigint, r ->> 1, r ->> 2, r ->> 3, r ->> 4, (r ->> 5)::integer, r ->> 6, (r ->> 7)::bigint,
  (r ->> 8)::bigint, (r ->> 9)::bigint
FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r

-- name: settle_done
-- jsonb_each_text gives the claims in the order of their ids, so two batches never lock in opposite orders.
UPDATE forge_jobs SET status = 'done', completed_at = :now, process_id = NULL, heartbeat_at = NULL, throttles = 0
FROM jsonb_each_text(CAST(:claims AS jsonb)) AS claim
WHERE forge_jobs.id = claim.key AND forge_jobs.fence = claim.value::bigint AND forge_jobs.process_id IS NOT NULL

-- name: stale_jobs
-- FOR UPDATE SKIP LOCKED: a row that another reaper or its owner holds at this moment is theirs. Times are compared
-- on the server's clock, which all hosts share. A beat skips rows that somebody has locked: one that falls free is still
-- its owner's, if that one has beaten meanwhile and named the job as running.
SELECT j.id, j.queue, j.kind, j.status, j.attempts, j.max_attempts, j.crashes, j.throttles, j.fence,
  j.cancel_requested_at IS NOT NULL, j.alone, j.started_at, j.process_id, j.dedupe_key, j.enqueued_at,
  (:now - j.heartbeat_at) / 1000000, (SELECT p.label FROM forge_processes p WHERE p.host_id = j.host_id)
FROM forge_jobs j WHERE j.status = 'in_progress' AND j.heartbeat_at <= :now - :stale
  AND NOT EXISTS (
    SELECT FROM forge_processes p WHERE p.host_id = j.host_id AND p.heartbeat_at > :now - :stale
      AND p.info::jsonb -> 'running' ->> j.process_id = j.id)
ORDER BY j.heartbeat_at, j.id LIMIT :limit FOR UPDATE OF j SKIP LOCKED

-- name: beat_jobs
-- FOR NO KEY UPDATE SKIP LOCKED: whoever holds one row must not keep the other jobs of the process from beating. What
-- is lost is read from the rows and not from what was updated, so a row that is skipped is not taken for lost.
UPDATE forge_jobs SET heartbeat_at = :now WHERE id = ANY (ARRAY(
  SELECT j.id FROM jsonb_each_text(CAST(:claims AS jsonb)) AS claim JOIN forge_jobs j ON j.id = claim.key
  WHERE j.fence = claim.value::bigint AND j.process_id IS NOT NULL FOR NO KEY UPDATE OF j SKIP LOCKED))

-- name: beat_process
INSERT INTO forge_processes (host_id, info, label, started_at, heartbeat_at) VALUES (:host, :info, :label, :now, :now)
ON CONFLICT (host_id) DO UPDATE SET info = excluded.info, label = excluded.label, heartbeat_at = excluded.heartbeat_at

-- name: list_processes
SELECT info, started_at, heartbeat_at, heartbeat_at > :now - :stale FROM forge_processes ORDER BY host_id

-- name: prune_processes
DELETE FROM forge_processes WHERE heartbeat_at <= :now - :silent

-- name: live_process_of_queue
SELECT host_id FROM forge_processes
WHERE info::jsonb -> 'queues' ? CAST(:queue AS text) AND heartbeat_at > :now - :stale LIMIT 1

-- name: next_due
SELECT min(at) FROM (
  SELECT (SELECT min(scheduled_at) FROM forge_jobs WHERE queue = q.value AND ready = 0 AND scheduled_at > :now) AS at
  FROM json_each(:queues) AS q
  UNION ALL
  SELECT throttled_until FROM forge_queues
  WHERE throttled_until > :now AND name IN (SELECT value FROM json_each(:queues))) AS soon

-- name: waiting_kinds
-- Each part is answered from its index.
SELECT queue, kind, sum(jobs)::bigint FROM (
  SELECT queue, kind, count(*) AS jobs FROM forge_jobs WHERE ready = 1 AND alone = 0 GROUP BY queue, kind
  UNION ALL
  SELECT queue, kind, count(*) FROM forge_jobs WHERE ready = 1 AND alone = 1 GROUP BY queue, kind
  UNION ALL
  SELECT queue, kind, count(*) FROM forge_jobs WHERE ready = 0 GROUP BY queue, kind) AS waiting
GROUP BY queue, kind

-- name: outstanding
-- Counted in the partial indexes of waiting and running jobs, so that finished ones cost nothing. `open` are
-- the queues that are not paused.
WITH open (queue, cooling) AS (
  SELECT q.value, EXISTS (SELECT 1 FROM forge_queues s WHERE s.name = q.value AND s.throttled_until > :now)
  FROM json_each(:queues) AS q
  WHERE NOT EXISTS (SELECT 1 FROM forge_queue_pauses p WHERE p.queue = q.value AND p.host_id = '')),
waiting (queue, scheduled_at, expires_at) AS (
  SELECT queue, scheduled_at, expires_at FROM forge_jobs
  WHERE ready = 1 AND alone = 0 AND queue IN (SELECT value FROM json_each(:queues))
    AND kind IN (SELECT value FROM json_each(:kinds))
  UNION ALL
  SELECT queue, scheduled_at, expires_at FROM forge_jobs
  WHERE ready = 1 AND alone = 1 AND queue IN (SELECT value FROM json_each(:queues))
    AND kind IN (SELECT value FROM json_each(:kinds))
  UNION ALL
  SELECT queue, scheduled_at, expires_at FROM forge_jobs
  WHERE ready = 0 AND queue IN (SELECT value FROM json_each(:queues))
    AND kind IN (SELECT value FROM json_each(:kinds)))
SELECT
  (SELECT count(*) FROM waiting JOIN open USING (queue)
   WHERE NOT cooling AND scheduled_at <= :now AND (expires_at IS NULL OR expires_at > :now)),
  (SELECT count(*) FROM forge_jobs
   WHERE status = 'in_progress' AND queue IN (SELECT value FROM json_each(:queues))
     AND kind IN (SELECT value FROM json_each(:kinds))),
  (SELECT count(*) FROM waiting JOIN open USING (queue))

-- name: pause_queue
-- The gate, taken alone: every claim that did not see the pause has been committed by then.
INSERT INTO forge_queue_pauses (queue, host_id, signal, paused_at, paused_by)
SELECT :name, :host, :signal, :now, :by FROM (SELECT pg_advisory_xact_lock(forge_gate_key(:name))) AS gate
ON CONFLICT (queue, host_id) DO NOTHING

-- name: delete_finished
-- Victims are chosen once, oldest first, through the index of finished jobs.
DELETE FROM forge_jobs WHERE id = ANY (ARRAY(
  SELECT id FROM forge_jobs
  WHERE queue = :queue AND status = :status AND completed_at IS NOT NULL AND completed_at <= CAST(:before AS bigint)
  ORDER BY completed_at LIMIT :limit FOR UPDATE SKIP LOCKED))
RETURNING id

-- name: fences_of_jobs
-- FOR KEY SHARE: a job that is being deleted takes its log along, so nobody may delete it before the lines are in. It
-- lets every other change go on. SKIP LOCKED: lines can wait, and never keep a settlement waiting.
SELECT id, fence FROM forge_jobs WHERE id IN (SELECT value FROM json_each(:ids)) FOR KEY SHARE SKIP LOCKED

-- name: insert_log_line
INSERT INTO forge_job_log (job_id, seq, at, attempt, fence, level, logger, message, size, skipped)
SELECT r ->> 0, (r ->> 1)::bigint, (r ->> 2)::bigint, (r ->> 3)::integer, (r ->> 4)::bigint, r ->> 5, r ->> 6, r ->> 7,
  (r ->> 8)::integer, (r ->> 9)::bigint
FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r
ON CONFLICT (job_id, seq) DO NOTHING

-- name: delete_old_events
DELETE FROM forge_events WHERE seq = ANY (ARRAY(
  SELECT seq FROM forge_events WHERE at < CAST(:before AS bigint) ORDER BY at LIMIT :limit))

-- name: delete_old_audit
DELETE FROM forge_audit WHERE seq = ANY (ARRAY(
  SELECT seq FROM forge_audit WHERE at < CAST(:before AS bigint) ORDER BY at LIMIT :limit))

-- name: delete_lapsed_holds
DELETE FROM forge_unique_holds WHERE dedupe_key = ANY (ARRAY(
  SELECT dedupe_key FROM forge_unique_holds WHERE held_until <= :now LIMIT :limit))

-- name: take_lease
-- Times are compared on the server's clock.
INSERT INTO forge_leases (name, holder, token, taken_at, expires_at) VALUES (:name, :holder, 1, :now, :now + :ttl)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = forge_leases.token + 1,
  taken_at = excluded.taken_at, expires_at = excluded.expires_at
WHERE forge_leases.holder IS NULL OR forge_leases.holder = excluded.holder OR forge_leases.expires_at <= :now

-- name: renew_lease
UPDATE forge_leases SET expires_at = :now + :ttl WHERE name = :name AND holder = :holder AND token = :token

-- name: release_lease
UPDATE forge_leases SET holder = NULL, expires_at = :now WHERE name = :name AND holder = :holder AND token = :token

-- name: release_leases_of_process
UPDATE forge_leases SET holder = NULL, expires_at = :now WHERE holder = :host

-- name: list_leases
SELECT name, holder, token, expires_at FROM forge_leases WHERE holder IS NOT NULL AND expires_at > :now ORDER BY name

-- name: lock_total
-- FOR UPDATE: one process at a time opens slots of a queue.
SELECT max_workers FROM forge_queues WHERE name = :queue FOR UPDATE

-- name: standing
-- A process that fell silent counts with the jobs it still owns.
SELECT q.max_workers, mine.share, coalesce(mine.open, 0),
  (SELECT coalesce(sum(CASE WHEN p.heartbeat_at > :now - :stale THEN s.open
                            ELSE (SELECT count(*) FROM forge_jobs j WHERE j.host_id = s.host_id
                                  AND j.status = 'in_progress' AND j.queue = s.queue) END), 0)::bigint
   FROM forge_shares s LEFT JOIN forge_processes p ON p.host_id = s.host_id
   WHERE s.queue = q.name AND s.host_id <> :host AND s.open > 0),
  me.heartbeat_at > :now - :stale
FROM forge_queues q LEFT JOIN forge_shares mine ON mine.queue = q.name AND mine.host_id = :host
LEFT JOIN forge_processes me ON me.host_id = :host
WHERE q.name = :queue

-- name: revoke_silent
-- As above; what is written is never more than before.
UPDATE forge_shares SET open = (
  SELECT count(*) FROM forge_jobs j
  WHERE j.host_id = forge_shares.host_id AND j.status = 'in_progress' AND j.queue = forge_shares.queue)
WHERE queue = :queue AND host_id <> :host AND open > (
  SELECT count(*) FROM forge_jobs j
  WHERE j.host_id = forge_shares.host_id AND j.status = 'in_progress' AND j.queue = forge_shares.queue)
  AND host_id NOT IN (SELECT host_id FROM forge_processes WHERE heartbeat_at > :now - :stale)

-- name: lock_buckets
-- FOR UPDATE in one order: whoever pays from a bucket has it alone, and two who pay from several never cross.
SELECT scope, capacity, refill_per_s, tokens, blocked_us, parked_us, greatest(:now - updated_at, 0)
FROM forge_rate_limits WHERE scope IN (SELECT value FROM json_each(:scopes)) ORDER BY scope FOR UPDATE

-- name: write_bucket
UPDATE forge_rate_limits SET tokens = r.tokens, blocked_us = r.blocked_us, parked_us = r.parked_us,
  updated_at = greatest(updated_at, :now)
FROM jsonb_to_recordset(CAST(:rows AS jsonb))
  AS r (bucket text, tokens double precision, blocked_us bigint, parked_us bigint)
WHERE forge_rate_limits.scope = r.bucket

-- name: list_rate_limits
SELECT scope, capacity, refill_per_s, tokens, blocked_us, parked_us, greatest(:now - updated_at, 0),
  per_key, template, changed_at, changed_by
FROM forge_rate_limits WHERE :scope IS NULL OR scope = :scope ORDER BY scope

-- name: delete_idle_limits
DELETE FROM forge_rate_limits WHERE scope = ANY (ARRAY(
  SELECT scope FROM forge_rate_limits
  WHERE template IS NOT NULL AND updated_at < CAST(:before AS bigint) AND blocked_us < :now - updated_at
    AND tokens + (:now - updated_at) / 1000000.0 * refill_per_s >= capacity LIMIT :limit FOR UPDATE SKIP LOCKED))
-- name: lock_schedule
-- FOR UPDATE: another transaction may be about to change the row.
SELECT name, settings, state, revision, next_fire_at, last_fired_at, last_outcome, last_error, consecutive_errors,
  declaration, version, edited, created_at, updated_at, updated_by
FROM forge_schedules WHERE name = :name FOR UPDATE

-- name: delete_old_ticks
-- `:before` is a number here; victims are chosen once.
DELETE FROM forge_ticks WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM forge_ticks WHERE at < CAST(:before AS bigint) ORDER BY at LIMIT :limit))

-- name: write_metric
-- A smaller count is of an older look, or of events that were deleted since.
INSERT INTO forge_metrics (metric, minute, host_id, queue, kind, count, sum, min, p50, p95, p99, max)
SELECT r ->> 0, (r ->> 1)::bigint, r ->> 2, r ->> 3, r ->> 4, (r ->> 5)::bigint, (r ->> 6)::double precision,
  (r ->> 7)::double precision, (r ->> 8)::double precision, (r ->> 9)::double precision, (r ->> 10)::double precision,
  (r ->> 11)::double precision
FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r
ON CONFLICT (metric, minute, host_id, queue, kind) DO UPDATE SET count = excluded.count, sum = excluded.sum,
  min = excluded.min, p50 = excluded.p50, p95 = excluded.p95, p99 = excluded.p99, max = excluded.max
WHERE excluded.count >= forge_metrics.count

-- name: delete_old_metrics
-- `ctid`: a row's place, so that a batch needs no join over five columns.
DELETE FROM forge_metrics WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM forge_metrics WHERE host_id = '' AND minute < CAST(:before AS bigint)
  LIMIT :limit FOR UPDATE SKIP LOCKED))

-- name: delete_old_process_metrics
DELETE FROM forge_metrics WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM forge_metrics WHERE host_id <> '' AND minute < CAST(:before AS bigint)
  LIMIT :limit FOR UPDATE SKIP LOCKED))

-- name: due_bands
-- A skip scan: the kinds and priorities of one queue's due jobs, each with its first job behind a place in the list.
WITH RECURSIVE band (kind, priority) AS (
  SELECT kind, priority FROM (
    SELECT kind, priority FROM forge_jobs WHERE queue = :queue AND ready = 1 AND alone = 0
    ORDER BY kind, priority LIMIT 1) AS first
  UNION ALL
  SELECT j.kind, j.priority FROM band JOIN forge_jobs j ON j.id = (
    SELECT id FROM forge_jobs WHERE queue = :queue AND ready = 1 AND alone = 0
      AND (kind, priority) > (band.kind, band.priority)
    ORDER BY kind, priority LIMIT 1))
SELECT j.scheduled_at, j.id, j.kind, j.priority FROM band JOIN forge_jobs j ON j.id = (
  SELECT id FROM forge_jobs WHERE queue = :queue AND ready = 1 AND alone = 0
    AND kind = band.kind AND priority = band.priority AND (scheduled_at, id) > (:at, :before)
  ORDER BY scheduled_at, id LIMIT 1)
WHERE (:kinds IS NULL OR band.kind IN (SELECT value FROM json_each(:kinds)))

-- name: count_by_queue
-- In the partial indexes of waiting and running jobs; what waits for a retry is in the first three parts too. Of
-- finished ones what was counted before, and what ended since.
SELECT queue, 'waiting' AS place, sum(CASE WHEN scheduled_at <= :now THEN 1 ELSE 0 END), count(*), min(scheduled_at)
FROM forge_jobs WHERE ready = 1 AND alone = 0 GROUP BY queue
UNION ALL
SELECT queue, 'waiting', sum(CASE WHEN scheduled_at <= :now THEN 1 ELSE 0 END), count(*), min(scheduled_at)
FROM forge_jobs WHERE ready = 1 AND alone = 1 GROUP BY queue
UNION ALL
SELECT queue, 'waiting', sum(CASE WHEN scheduled_at <= :now THEN 1 ELSE 0 END), count(*), min(scheduled_at)
FROM forge_jobs WHERE ready = 0 GROUP BY queue
UNION ALL
SELECT queue, 'failed', sum(CASE WHEN scheduled_at <= :now THEN 1 ELSE 0 END), count(*), min(scheduled_at)
FROM forge_jobs WHERE status = 'failed' GROUP BY queue
UNION ALL
SELECT queue, 'in_progress', 0, count(*), NULL
FROM forge_jobs WHERE status = 'in_progress' GROUP BY queue
UNION ALL
SELECT q.name, s.value, 0, coalesce(f.count, 0) + (
  SELECT count(*) FROM forge_jobs j WHERE j.queue = q.name AND j.status = s.value
  AND j.completed_at IS NOT NULL AND j.completed_at >= coalesce(f.counted_until, 0)), NULL
FROM forge_queues q CROSS JOIN json_each(:statuses) AS s
LEFT JOIN forge_finished f ON f.queue = q.name AND f.status = s.value

-- name: lock_finished
-- FOR UPDATE: jobs that are deleted meanwhile wait; what is counted next sees what went before.
SELECT queue, status FROM forge_finished ORDER BY queue, status FOR UPDATE

-- name: fold_finished
-- Where it was counted further than that, the clock was set back since: from the beginning then.
UPDATE forge_finished SET
  count = CASE WHEN counted_until <= :until THEN count ELSE 0 END + (
    SELECT count(*) FROM forge_jobs j
    WHERE j.queue = forge_finished.queue AND j.status = forge_finished.status AND j.completed_at IS NOT NULL
      AND j.completed_at >= CASE WHEN forge_finished.counted_until <= :until THEN forge_finished.counted_until ELSE 0 END
      AND j.completed_at < :until),
  counted_until = :until

-- name: explain_job
-- How long its owner has been silent, on the server's clock.
SELECT id, queue, kind, status, priority, attempts, max_attempts, crashes, throttles, alone, enqueued_at, scheduled_at,
  expires_at, started_at, completed_at, heartbeat_at, greatest(:now - heartbeat_at, 0), process_id, host_id, dedupe_key,
  dead_reason, last_error, cancel_requested_at, payload
FROM forge_jobs WHERE id = :id

-- name: running_by_host
SELECT host_id, queue, count(*) FROM forge_jobs WHERE status = 'in_progress' GROUP BY host_id, queue

-- name: oldest_running
SELECT id, started_at FROM forge_jobs WHERE status = 'in_progress' AND queue = :queue ORDER BY started_at LIMIT 1

-- name: count_ahead
-- Per kind, as claims read them; no more than `:limit` of each. In all, and of the kind with the most. The order keeps the
-- planner from reading all of a kind into a bitmap first, and MATERIALIZED from counting twice.
WITH counted AS MATERIALIZED (
  SELECT (SELECT count(*) FROM (
    SELECT 1 FROM forge_jobs
    WHERE queue = :queue AND kind = k.value AND ready = 1 AND alone = 0
      AND (priority, scheduled_at, id) < (:priority, :scheduled_at, :id)
      AND (expires_at IS NULL OR expires_at > :now)
    ORDER BY priority, scheduled_at, id LIMIT :limit) AS h) AS ahead
  FROM json_each(:kinds) AS k)
SELECT coalesce(sum(ahead), 0)::bigint, coalesce(max(ahead), 0)::bigint FROM counted

-- name: promote_queue
-- What a claim does first. A claim whose kinds pay differently from one scope looks at their jobs before it.
SELECT count(forge_promote_1(:queue, ARRAY(SELECT value FROM json_each(:kinds)), CAST(:limit AS integer), 500, :now))
WHERE EXISTS (SELECT FROM forge_jobs WHERE queue = :queue AND ready = 0 AND scheduled_at <= :now)

-- name: heads_ahead
-- Up to `:limit` of each kind, in claim order.
SELECT k.value, (SELECT json_agg(json_build_array(priority, scheduled_at, id))::text FROM (
  SELECT priority, scheduled_at, id FROM forge_jobs
  WHERE queue = :queue AND kind = k.value AND ready = 1 AND alone = 0
    AND (priority, scheduled_at, id) < (:priority, :scheduled_at, :id)
    AND (expires_at IS NULL OR expires_at > :now)
  ORDER BY priority, scheduled_at, id LIMIT :limit) AS h)
FROM json_each(:kinds) AS k

-- name: alone_ahead
SELECT kind, priority, scheduled_at, id FROM forge_jobs
WHERE queue = :queue AND ready = 1 AND alone = 1 AND kind IN (SELECT value FROM json_each(:kinds))
  AND (priority, scheduled_at, id) < (:priority, :scheduled_at, :id)
  AND (expires_at IS NULL OR expires_at > :now) LIMIT :limit

-- name: due_ahead
-- Due, and not made ready by a claim yet: the first by time.
SELECT kind, alone, priority, scheduled_at, id FROM (
  SELECT kind, alone, priority, scheduled_at, id, expires_at FROM forge_jobs
  WHERE queue = :queue AND ready = 0 AND scheduled_at <= :now ORDER BY scheduled_at LIMIT :limit) AS due
WHERE (priority, scheduled_at, id) < (:priority, :scheduled_at, :id) AND (expires_at IS NULL OR expires_at > :now)
  AND kind IN (SELECT value FROM json_each(:kinds))

-- name: kinds_due
-- A skip scan, as claims do it, over jobs that are ready, that run alone, and that fell due.
WITH RECURSIVE present (kind) AS (
  SELECT min(kind) FROM forge_jobs WHERE queue = :queue AND ready = 1 AND alone = 0
  UNION ALL
  SELECT (SELECT min(kind) FROM forge_jobs WHERE queue = :queue AND ready = 1 AND alone = 0 AND kind > present.kind)
  FROM present WHERE present.kind IS NOT NULL)
SELECT kind FROM present WHERE kind IS NOT NULL
UNION
SELECT kind FROM (SELECT kind FROM forge_jobs WHERE queue = :queue AND ready = 1 AND alone = 1
                  ORDER BY kind, priority, scheduled_at, id LIMIT :limit) AS alone
UNION
SELECT kind FROM (SELECT kind FROM forge_jobs WHERE queue = :queue AND ready = 0 AND scheduled_at <= :now
                  ORDER BY scheduled_at LIMIT :limit) AS due
ORDER BY 1

-- name: kinds_that_wait
-- Skip scans: one probe for each kind, in each index of jobs that wait.
WITH RECURSIVE
ready (kind) AS (
  SELECT min(kind) FROM forge_jobs WHERE queue = :queue AND ready = 1 AND alone = 0
  UNION ALL
  SELECT (SELECT min(kind) FROM forge_jobs
          WHERE queue = :queue AND ready = 1 AND alone = 0 AND kind > ready.kind)
  FROM ready WHERE ready.kind IS NOT NULL),
lonely (kind) AS (
  SELECT min(kind) FROM forge_jobs WHERE queue = :queue AND ready = 1 AND alone = 1
  UNION ALL
  SELECT (SELECT min(kind) FROM forge_jobs
          WHERE queue = :queue AND ready = 1 AND alone = 1 AND kind > lonely.kind)
  FROM lonely WHERE lonely.kind IS NOT NULL),
future (kind) AS (
  SELECT min(kind) FROM forge_jobs WHERE queue = :queue AND ready = 0
  UNION ALL
  SELECT (SELECT min(kind) FROM forge_jobs WHERE queue = :queue AND ready = 0 AND kind > future.kind)
  FROM future WHERE future.kind IS NOT NULL)
SELECT kind FROM ready WHERE kind IS NOT NULL UNION SELECT kind FROM lonely WHERE kind IS NOT NULL
UNION SELECT kind FROM future WHERE kind IS NOT NULL ORDER BY 1
