-- Statements that read differently on SQLite, each with the feature that forces it.

-- name: insert_job
-- Numbered parameters: a bulk binds the fields of `NewJob` by position (executemany of tuples is the fastest
-- way into SQLite), then now as ?17.
INSERT INTO forge_jobs (id, queue, kind, payload, status, ready, priority, max_attempts, enqueued_at, scheduled_at,
                        expires_at, dedupe_key, tags, trace, parent_id)
VALUES (?1, ?2, ?3, ?4, 'pending', coalesce(?7, ?17 + ?8) <= ?17, ?5, ?6, ?17, coalesce(?7, ?17 + ?8),
        coalesce(?9, ?17 + ?10), ?11, ?13, ?14, ?15)
ON CONFLICT (id) DO NOTHING

-- name: insert_plain_job
-- The same for a job without options: Python's sqlite3 takes 1.7 µs to bind a None, four times an int, so what is
-- not given is not bound.
INSERT INTO forge_jobs (id, queue, kind, payload, status, ready, priority, max_attempts, enqueued_at, scheduled_at,
                        parent_id)
VALUES (?1, ?2, ?3, ?4, 'pending', 1, ?5, ?6, ?8, ?8, nullif(?7, ''))
ON CONFLICT (id) DO NOTHING

-- name: hold_key
INSERT INTO forge_unique_holds (dedupe_key, job_id, held_until) VALUES (?1, ?2, ?3)
ON CONFLICT (dedupe_key) DO UPDATE SET job_id = excluded.job_id, held_until = excluded.held_until

-- name: promote_due
-- INDEXED BY: the hot statements name their index, so that no statistics can change the plan.
UPDATE forge_jobs SET ready = 1 WHERE id IN (
  SELECT id FROM forge_jobs INDEXED BY forge_jobs_future
  WHERE queue = :queue AND ready = 0 AND scheduled_at <= :now ORDER BY scheduled_at LIMIT :limit)

-- name: any_due
SELECT 1 FROM forge_jobs INDEXED BY forge_jobs_future
WHERE queue = :queue AND ready = 0 AND scheduled_at <= :now LIMIT 1

-- name: next_band
SELECT kind, priority FROM forge_jobs INDEXED BY forge_jobs_bands
WHERE queue = :queue AND ready = 0 AND (kind, priority) > (:kind, :priority) ORDER BY kind, priority LIMIT 1

-- name: promote_band
UPDATE forge_jobs SET ready = 1 WHERE id IN (
  SELECT id FROM forge_jobs INDEXED BY forge_jobs_bands
  WHERE queue = :queue AND kind = :kind AND priority = :priority AND ready = 0 AND scheduled_at <= :now
  ORDER BY scheduled_at, id LIMIT :limit)

-- name: ready_kinds
-- A skip scan: one probe per kind that has ready jobs.
WITH RECURSIVE present (kind) AS (
  SELECT min(kind) FROM forge_jobs INDEXED BY forge_jobs_ready WHERE queue = :queue AND ready = 1 AND alone = 0
  UNION ALL
  SELECT (SELECT min(kind) FROM forge_jobs INDEXED BY forge_jobs_ready
          WHERE queue = :queue AND ready = 1 AND alone = 0 AND kind > present.kind)
  FROM present WHERE present.kind IS NOT NULL)
SELECT kind FROM present WHERE kind IS NOT NULL

-- name: ready_heads
-- One row of JSON instead of many rows: for every row Python's sqlite3 gives up the interpreter lock and must get it
-- back, which beside a busy event loop takes far longer than the row.
SELECT json_group_array(json_array(priority, scheduled_at, id)) FROM (
  SELECT priority, scheduled_at, id FROM forge_jobs INDEXED BY forge_jobs_ready
  WHERE queue = :queue AND kind = :kind AND ready = 1 AND alone = 0 AND scheduled_at <= :now
    AND (expires_at IS NULL OR expires_at > :now)
  ORDER BY priority, scheduled_at, id LIMIT :limit)

-- name: alone_head
SELECT priority, scheduled_at, id FROM forge_jobs INDEXED BY forge_jobs_alone
WHERE queue = :queue AND kind = :kind AND ready = 1 AND alone = 1 AND scheduled_at <= :now
  AND (expires_at IS NULL OR expires_at > :now)
ORDER BY priority, scheduled_at, id LIMIT 1

-- name: alone_waiting
SELECT 1 FROM forge_jobs INDEXED BY forge_jobs_alone
WHERE queue = :queue AND ready = 1 AND alone = 1 AND kind IN (SELECT value FROM json_each(:kinds))
  AND scheduled_at <= :now AND (expires_at IS NULL OR expires_at > :now) LIMIT 1

-- name: take_jobs
-- `:slots` maps each job id to the slot that gets it. beat_us and beat_boot exist only here.
UPDATE forge_jobs SET status = 'in_progress', ready = NULL, attempts = attempts + 1, fence = fence + 1,
  process_id = slot.value, host_id = :host, started_at = :now, heartbeat_at = :now,
  beat_us = :tick, beat_boot = :boot
FROM json_each(:slots) AS slot WHERE forge_jobs.id = slot.key

-- name: taken_jobs
-- The fields of `JobRecord`, in its order; one row of JSON for the reason given above.
SELECT json_group_array(json_array(id, queue, kind, payload, attempts, max_attempts, crashes, throttles, fence, priority,
  enqueued_at, scheduled_at, started_at, dedupe_key, parent_id, trace))
FROM forge_jobs WHERE id IN (SELECT value FROM json_each(:ids))

-- name: settle_done
-- `:claims` maps job ids to fences: the whole batch is one statement.
UPDATE forge_jobs SET status = 'done', completed_at = :now, process_id = NULL, heartbeat_at = NULL, beat_us = NULL,
  beat_boot = NULL, throttles = 0
FROM json_each(:claims) AS claim
WHERE forge_jobs.id = claim.key AND forge_jobs.fence = claim.value AND forge_jobs.status = 'in_progress'

-- name: stale_jobs
SELECT j.id, j.queue, j.kind, j.status, j.attempts, j.max_attempts, j.crashes, j.throttles, j.fence,
  j.cancel_requested_at IS NOT NULL, j.alone, j.started_at, j.process_id, j.dedupe_key, j.enqueued_at,
  CASE WHEN j.beat_boot = :boot THEN (:tick - j.beat_us) / 1000000 END, p.label
FROM forge_jobs j INDEXED BY forge_jobs_running LEFT JOIN forge_processes p ON p.host_id = j.host_id
WHERE j.status = 'in_progress' AND (j.beat_boot <> :boot OR j.beat_us <= :tick - :stale OR j.beat_us > :tick)
ORDER BY j.heartbeat_at LIMIT :limit

-- name: beat_jobs
UPDATE forge_jobs SET heartbeat_at = :now, beat_us = :tick, beat_boot = :boot
FROM json_each(:claims) AS claim
WHERE forge_jobs.id = claim.key AND forge_jobs.fence = claim.value AND forge_jobs.status = 'in_progress'

-- name: beat_process
INSERT INTO forge_processes (host_id, info, label, started_at, heartbeat_at, beat_us, beat_boot)
VALUES (:host, :info, :label, :now, :now, :tick, :boot)
ON CONFLICT (host_id) DO UPDATE SET info = excluded.info, label = excluded.label,
  heartbeat_at = excluded.heartbeat_at, beat_us = excluded.beat_us, beat_boot = excluded.beat_boot

-- name: list_processes
SELECT info, started_at, heartbeat_at, beat_boot = :boot AND beat_us > :tick - :stale AND beat_us <= :tick
FROM forge_processes ORDER BY host_id

-- name: prune_processes
DELETE FROM forge_processes WHERE beat_boot <> :boot OR beat_us <= :tick - :silent

-- name: live_process_of_queue
SELECT p.host_id FROM forge_processes p, json_each(p.info, '$.queues') q
WHERE q.value = :queue AND p.beat_boot = :boot AND p.beat_us > :tick - :stale LIMIT 1

-- name: next_due_of_queue
SELECT min(scheduled_at) FROM forge_jobs INDEXED BY forge_jobs_future
WHERE queue = :queue AND ready = 0 AND scheduled_at > :now

-- name: next_due
SELECT min(at) FROM (
  SELECT (SELECT min(scheduled_at) FROM forge_jobs INDEXED BY forge_jobs_future
          WHERE queue = q.value AND ready = 0 AND scheduled_at > :now) AS at
  FROM json_each(:queues) q
  UNION ALL
  SELECT throttled_until FROM forge_queues
  WHERE throttled_until > :now AND name IN (SELECT value FROM json_each(:queues)))

-- name: waiting_kinds
-- Each part is answered from its covering index.
SELECT queue, kind, sum(jobs) FROM (
  SELECT queue, kind, count(*) AS jobs FROM forge_jobs INDEXED BY forge_jobs_ready
  WHERE ready = 1 AND alone = 0 GROUP BY queue, kind
  UNION ALL
  SELECT queue, kind, count(*) FROM forge_jobs INDEXED BY forge_jobs_alone
  WHERE ready = 1 AND alone = 1 GROUP BY queue, kind
  UNION ALL
  SELECT queue, kind, count(*) FROM forge_jobs INDEXED BY forge_jobs_bands WHERE ready = 0 GROUP BY queue, kind)
GROUP BY queue, kind

-- name: outstanding
-- Counted in the partial indexes of waiting and running jobs, so that finished ones cost nothing. `open` are
-- the queues that are not paused.
WITH open (queue, cooling) AS (
  SELECT q.value, EXISTS (SELECT 1 FROM forge_queues s WHERE s.name = q.value AND s.throttled_until > :now)
  FROM json_each(:queues) q
  WHERE NOT EXISTS (SELECT 1 FROM forge_queue_pauses p WHERE p.queue = q.value AND p.host_id = '')),
waiting (queue, scheduled_at, expires_at) AS (
  SELECT queue, scheduled_at, expires_at FROM forge_jobs INDEXED BY forge_jobs_ready
  WHERE ready = 1 AND alone = 0 AND queue IN (SELECT value FROM json_each(:queues))
    AND kind IN (SELECT value FROM json_each(:kinds))
  UNION ALL
  SELECT queue, scheduled_at, expires_at FROM forge_jobs INDEXED BY forge_jobs_alone
  WHERE ready = 1 AND alone = 1 AND queue IN (SELECT value FROM json_each(:queues))
    AND kind IN (SELECT value FROM json_each(:kinds))
  UNION ALL
  SELECT queue, scheduled_at, expires_at FROM forge_jobs INDEXED BY forge_jobs_bands
  WHERE ready = 0 AND queue IN (SELECT value FROM json_each(:queues))
    AND kind IN (SELECT value FROM json_each(:kinds)))
SELECT
  (SELECT count(*) FROM waiting JOIN open USING (queue)
   WHERE NOT cooling AND scheduled_at <= :now AND (expires_at IS NULL OR expires_at > :now)),
  (SELECT count(*) FROM forge_jobs INDEXED BY forge_jobs_running
   WHERE status = 'in_progress' AND queue IN (SELECT value FROM json_each(:queues))
     AND kind IN (SELECT value FROM json_each(:kinds))),
  (SELECT count(*) FROM waiting JOIN open USING (queue))

-- name: delete_finished
-- Victims are chosen once, oldest first, through the index of finished jobs.
DELETE FROM forge_jobs WHERE id IN (
  SELECT id FROM forge_jobs INDEXED BY forge_jobs_finished
  WHERE queue = :queue AND status = :status AND completed_at IS NOT NULL AND completed_at <= :before
  ORDER BY completed_at LIMIT :limit)
RETURNING id

-- name: insert_event
INSERT INTO forge_events (at, type, queue, kind, job_id, attempt, cause, duration_us, count, total_us)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)

-- name: fences_of_jobs
-- Nothing to lock: a write transaction is alone.
SELECT id, fence FROM forge_jobs WHERE id IN (SELECT value FROM json_each(:ids))

-- name: insert_log_line
INSERT INTO forge_job_log (job_id, seq, at, attempt, fence, level, logger, message, size, skipped)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
ON CONFLICT (job_id, seq) DO NOTHING

-- name: delete_old_events
DELETE FROM forge_events WHERE seq IN (SELECT seq FROM forge_events WHERE at < :before ORDER BY at LIMIT :limit)

-- name: delete_old_audit
DELETE FROM forge_audit WHERE seq IN (SELECT seq FROM forge_audit WHERE at < :before ORDER BY at LIMIT :limit)

-- name: delete_lapsed_holds
DELETE FROM forge_unique_holds WHERE dedupe_key IN (
  SELECT dedupe_key FROM forge_unique_holds WHERE held_until <= :now LIMIT :limit)

-- name: take_lease
-- from_us, until_us and boot exist only here. A lease of another boot has ended, and so has one that began in what
-- is the future now: without a boot identity that is how another boot looks.
INSERT INTO forge_leases (name, holder, token, taken_at, expires_at, from_us, until_us, boot)
VALUES (:name, :holder, 1, :now, :now + :ttl, :tick, :tick + :ttl, :boot)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = forge_leases.token + 1, taken_at = excluded.taken_at,
  expires_at = excluded.expires_at, from_us = excluded.from_us, until_us = excluded.until_us, boot = excluded.boot
WHERE forge_leases.holder IS NULL OR forge_leases.holder = excluded.holder OR forge_leases.boot <> :boot
  OR forge_leases.from_us > :tick OR forge_leases.until_us <= :tick

-- name: renew_lease
UPDATE forge_leases SET expires_at = :now + :ttl, from_us = :tick, until_us = :tick + :ttl, boot = :boot
WHERE name = :name AND holder = :holder AND token = :token

-- name: release_lease
UPDATE forge_leases SET holder = NULL, expires_at = :now, until_us = :tick, from_us = :tick
WHERE name = :name AND holder = :holder AND token = :token

-- name: release_leases_of_process
UPDATE forge_leases SET holder = NULL, expires_at = :now, until_us = :tick, from_us = :tick WHERE holder = :host

-- name: list_leases
SELECT name, holder, token, expires_at FROM forge_leases
WHERE holder IS NOT NULL AND boot = :boot AND from_us <= :tick AND until_us > :tick ORDER BY name

-- name: lock_total
-- Nothing to lock: a write transaction is alone.
SELECT max_workers FROM forge_queues WHERE name = :queue

-- name: standing
-- Heartbeats are compared on the boot-time clock. A process that fell silent counts with the jobs it still owns.
SELECT q.max_workers, mine.share, coalesce(mine.open, 0),
  (SELECT coalesce(sum(CASE WHEN p.beat_boot = :boot AND p.beat_us > :tick - :stale AND p.beat_us <= :tick THEN s.open
                            ELSE (SELECT count(*) FROM forge_jobs j INDEXED BY forge_jobs_running
                                  WHERE j.host_id = s.host_id AND j.status = 'in_progress' AND j.queue = s.queue) END), 0)
   FROM forge_shares s LEFT JOIN forge_processes p ON p.host_id = s.host_id
   WHERE s.queue = q.name AND s.host_id <> :host AND s.open > 0),
  me.beat_boot = :boot AND me.beat_us > :tick - :stale AND me.beat_us <= :tick
FROM forge_queues q LEFT JOIN forge_shares mine ON mine.queue = q.name AND mine.host_id = :host
LEFT JOIN forge_processes me ON me.host_id = :host
WHERE q.name = :queue

-- name: revoke_silent
-- As above; what is written is never more than before.
UPDATE forge_shares SET open = (
  SELECT count(*) FROM forge_jobs j INDEXED BY forge_jobs_running
  WHERE j.host_id = forge_shares.host_id AND j.status = 'in_progress' AND j.queue = forge_shares.queue)
WHERE queue = :queue AND host_id <> :host AND open > 0
  AND host_id NOT IN (SELECT host_id FROM forge_processes
                      WHERE beat_boot = :boot AND beat_us > :tick - :stale AND beat_us <= :tick)
  AND open > (
    SELECT count(*) FROM forge_jobs j INDEXED BY forge_jobs_running
    WHERE j.host_id = forge_shares.host_id AND j.status = 'in_progress' AND j.queue = forge_shares.queue)

-- name: lock_buckets
-- Nothing to lock: a write transaction is alone. How long ago is measured on the boot-time clock.
SELECT scope, capacity, refill_per_s, tokens, blocked_us, parked_us,
  CASE WHEN boot = :boot AND tick_us <= :tick THEN :tick - tick_us ELSE max(:now - updated_at, 0) END
FROM forge_rate_limits WHERE scope IN (SELECT value FROM json_each(:scopes))

-- name: write_bucket
UPDATE forge_rate_limits SET tokens = :tokens, blocked_us = :blocked_us, parked_us = :parked_us, updated_at = :now,
  tick_us = :tick, boot = :boot
WHERE scope = :bucket

-- name: list_rate_limits
SELECT scope, capacity, refill_per_s, tokens, blocked_us, parked_us,
  CASE WHEN boot = :boot AND tick_us <= :tick THEN :tick - tick_us ELSE max(:now - updated_at, 0) END,
  per_key, template, changed_at, changed_by
FROM forge_rate_limits WHERE :scope IS NULL OR scope = :scope ORDER BY scope

-- name: delete_idle_limits
DELETE FROM forge_rate_limits WHERE scope IN (
  SELECT scope FROM forge_rate_limits
  WHERE template IS NOT NULL AND updated_at < :before AND blocked_us < :now - updated_at
    AND tokens + (:now - updated_at) / 1000000.0 * refill_per_s >= capacity LIMIT :limit)
-- name: lock_schedule
-- Nothing to lock: a write transaction is alone.
SELECT name, settings, state, revision, next_fire_at, last_fired_at, last_outcome, last_error, consecutive_errors,
  declaration, version, edited, created_at, updated_at, updated_by
FROM forge_schedules WHERE name = :name

-- name: delete_old_ticks
DELETE FROM forge_ticks WHERE (schedule, fire_at) IN (
  SELECT schedule, fire_at FROM forge_ticks WHERE at < :before ORDER BY at LIMIT :limit)

-- name: write_metric
-- A smaller count is of an older look, or of events that were deleted since.
INSERT INTO forge_metrics (metric, minute, host_id, queue, kind, count, sum, min, p50, p95, p99, max)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
ON CONFLICT (metric, minute, host_id, queue, kind) DO UPDATE SET count = excluded.count, sum = excluded.sum,
  min = excluded.min, p50 = excluded.p50, p95 = excluded.p95, p99 = excluded.p99, max = excluded.max
WHERE excluded.count >= forge_metrics.count

-- name: delete_old_metrics
DELETE FROM forge_metrics WHERE (metric, minute, host_id, queue, kind) IN (
  SELECT metric, minute, host_id, queue, kind FROM forge_metrics INDEXED BY forge_metrics_age
  WHERE host_id = '' AND minute < :before LIMIT :limit)

-- name: delete_old_process_metrics
DELETE FROM forge_metrics WHERE (metric, minute, host_id, queue, kind) IN (
  SELECT metric, minute, host_id, queue, kind FROM forge_metrics INDEXED BY forge_metrics_process_age
  WHERE host_id <> '' AND minute < :before LIMIT :limit)

-- name: due_bands
-- A skip scan: the kinds and priorities of one queue's due jobs, each with its first job behind a place in the list.
WITH RECURSIVE band (kind, priority) AS (
  SELECT kind, priority FROM (
    SELECT kind, priority FROM forge_jobs INDEXED BY forge_jobs_ready WHERE queue = :queue AND ready = 1 AND alone = 0
    ORDER BY kind, priority LIMIT 1) AS first
  UNION ALL
  SELECT j.kind, j.priority FROM band JOIN forge_jobs j ON j.id = (
    SELECT id FROM forge_jobs INDEXED BY forge_jobs_ready WHERE queue = :queue AND ready = 1 AND alone = 0
      AND (kind, priority) > (band.kind, band.priority)
    ORDER BY kind, priority LIMIT 1))
SELECT j.scheduled_at, j.id, j.kind, j.priority FROM band JOIN forge_jobs j ON j.id = (
  SELECT id FROM forge_jobs INDEXED BY forge_jobs_ready WHERE queue = :queue AND ready = 1 AND alone = 0
    AND kind = band.kind AND priority = band.priority AND (scheduled_at, id) > (:at, :before)
  ORDER BY scheduled_at, id LIMIT 1)
WHERE (:kinds IS NULL OR band.kind IN (SELECT value FROM json_each(:kinds)))

-- name: count_by_queue
-- In the partial indexes of waiting and running jobs; what waits for a retry is in the first three parts too. Of
-- finished ones what was counted before, and what ended since.
SELECT queue, 'waiting' AS place, sum(CASE WHEN scheduled_at <= :now THEN 1 ELSE 0 END), count(*), min(scheduled_at)
FROM forge_jobs INDEXED BY forge_jobs_ready WHERE ready = 1 AND alone = 0 GROUP BY queue
UNION ALL
SELECT queue, 'waiting', sum(CASE WHEN scheduled_at <= :now THEN 1 ELSE 0 END), count(*), min(scheduled_at)
FROM forge_jobs INDEXED BY forge_jobs_alone WHERE ready = 1 AND alone = 1 GROUP BY queue
UNION ALL
SELECT queue, 'waiting', sum(CASE WHEN scheduled_at <= :now THEN 1 ELSE 0 END), count(*), min(scheduled_at)
FROM forge_jobs INDEXED BY forge_jobs_future WHERE ready = 0 GROUP BY queue
UNION ALL
SELECT queue, 'failed', sum(CASE WHEN scheduled_at <= :now THEN 1 ELSE 0 END), count(*), min(scheduled_at)
FROM forge_jobs INDEXED BY forge_jobs_failed WHERE status = 'failed' GROUP BY queue
UNION ALL
SELECT queue, 'in_progress', 0, count(*), NULL
FROM forge_jobs INDEXED BY forge_jobs_running WHERE status = 'in_progress' GROUP BY queue
UNION ALL
SELECT q.name, s.value, 0, coalesce(f.count, 0) + (
  SELECT count(*) FROM forge_jobs j INDEXED BY forge_jobs_finished WHERE j.queue = q.name AND j.status = s.value
  AND j.completed_at IS NOT NULL AND j.completed_at >= coalesce(f.counted_until, 0)), NULL
FROM forge_queues q CROSS JOIN json_each(:statuses) AS s
LEFT JOIN forge_finished f ON f.queue = q.name AND f.status = s.value

-- name: lock_finished
-- Nothing to lock: a write transaction is alone.
SELECT queue, status FROM forge_finished ORDER BY queue, status

-- name: fold_finished
-- Where it was counted further than that, the clock was set back since: from the beginning then.
UPDATE forge_finished SET
  count = CASE WHEN counted_until <= :until THEN count ELSE 0 END + (
    SELECT count(*) FROM forge_jobs j INDEXED BY forge_jobs_finished
    WHERE j.queue = forge_finished.queue AND j.status = forge_finished.status AND j.completed_at IS NOT NULL
      AND j.completed_at >= CASE WHEN forge_finished.counted_until <= :until THEN forge_finished.counted_until ELSE 0 END
      AND j.completed_at < :until),
  counted_until = :until

-- name: explain_job
-- How long its owner has been silent, on the boot-time clock; null after another boot.
SELECT id, queue, kind, status, priority, attempts, max_attempts, crashes, throttles, alone, enqueued_at, scheduled_at,
  expires_at, started_at, completed_at, heartbeat_at, CASE WHEN beat_boot = :boot AND beat_us <= :tick THEN :tick - beat_us END,
  process_id, host_id, dedupe_key, dead_reason, last_error, cancel_requested_at, payload
FROM forge_jobs WHERE id = :id

-- name: running_by_host
SELECT host_id, queue, count(*) FROM forge_jobs INDEXED BY forge_jobs_running
WHERE status = 'in_progress' GROUP BY host_id, queue

-- name: oldest_running
SELECT id, started_at FROM forge_jobs INDEXED BY forge_jobs_running
WHERE status = 'in_progress' AND queue = :queue ORDER BY started_at LIMIT 1

-- name: count_ahead
-- Per kind, as claims read them; no more than `:limit` of each. In all, and of the kind with the most.
SELECT coalesce(sum(ahead), 0), coalesce(max(ahead), 0) FROM (
  SELECT (SELECT count(*) FROM (
    SELECT 1 FROM forge_jobs INDEXED BY forge_jobs_ready
    WHERE queue = :queue AND kind = k.value AND ready = 1 AND alone = 0
      AND (priority, scheduled_at, id) < (:priority, :scheduled_at, :id)
      AND (expires_at IS NULL OR expires_at > :now) LIMIT :limit)) AS ahead
  FROM json_each(:kinds) AS k)

-- name: heads_ahead
-- Up to `:limit` of each kind, in claim order.
SELECT k.value, (SELECT json_group_array(json_array(priority, scheduled_at, id)) FROM (
  SELECT priority, scheduled_at, id FROM forge_jobs INDEXED BY forge_jobs_ready
  WHERE queue = :queue AND kind = k.value AND ready = 1 AND alone = 0
    AND (priority, scheduled_at, id) < (:priority, :scheduled_at, :id)
    AND (expires_at IS NULL OR expires_at > :now)
  ORDER BY priority, scheduled_at, id LIMIT :limit))
FROM json_each(:kinds) AS k

-- name: alone_ahead
SELECT kind, priority, scheduled_at, id FROM forge_jobs INDEXED BY forge_jobs_alone
WHERE queue = :queue AND ready = 1 AND alone = 1 AND kind IN (SELECT value FROM json_each(:kinds))
  AND (priority, scheduled_at, id) < (:priority, :scheduled_at, :id)
  AND (expires_at IS NULL OR expires_at > :now) LIMIT :limit

-- name: due_ahead
-- Due, and not made ready by a claim yet: the first by time.
SELECT kind, alone, priority, scheduled_at, id FROM (
  SELECT kind, alone, priority, scheduled_at, id, expires_at FROM forge_jobs INDEXED BY forge_jobs_future
  WHERE queue = :queue AND ready = 0 AND scheduled_at <= :now ORDER BY scheduled_at LIMIT :limit)
WHERE (priority, scheduled_at, id) < (:priority, :scheduled_at, :id) AND (expires_at IS NULL OR expires_at > :now)
  AND kind IN (SELECT value FROM json_each(:kinds))

-- name: kinds_due
-- A skip scan, as claims do it, over jobs that are ready, that run alone, and that fell due.
WITH RECURSIVE present (kind) AS (
  SELECT min(kind) FROM forge_jobs INDEXED BY forge_jobs_ready WHERE queue = :queue AND ready = 1 AND alone = 0
  UNION ALL
  SELECT (SELECT min(kind) FROM forge_jobs INDEXED BY forge_jobs_ready
          WHERE queue = :queue AND ready = 1 AND alone = 0 AND kind > present.kind)
  FROM present WHERE present.kind IS NOT NULL)
SELECT kind FROM present WHERE kind IS NOT NULL
UNION
SELECT kind FROM (SELECT kind FROM forge_jobs INDEXED BY forge_jobs_alone
                  WHERE queue = :queue AND ready = 1 AND alone = 1 LIMIT :limit)
UNION
SELECT kind FROM (SELECT kind FROM forge_jobs INDEXED BY forge_jobs_future
                  WHERE queue = :queue AND ready = 0 AND scheduled_at <= :now LIMIT :limit)
ORDER BY 1

-- name: kinds_that_wait
-- Skip scans: one probe for each kind, in each index of jobs that wait.
WITH RECURSIVE
ready (kind) AS (
  SELECT min(kind) FROM forge_jobs INDEXED BY forge_jobs_ready WHERE queue = :queue AND ready = 1 AND alone = 0
  UNION ALL
  SELECT (SELECT min(kind) FROM forge_jobs INDEXED BY forge_jobs_ready
          WHERE queue = :queue AND ready = 1 AND alone = 0 AND kind > ready.kind)
  FROM ready WHERE ready.kind IS NOT NULL),
lonely (kind) AS (
  SELECT min(kind) FROM forge_jobs INDEXED BY forge_jobs_alone WHERE queue = :queue AND ready = 1 AND alone = 1
  UNION ALL
  SELECT (SELECT min(kind) FROM forge_jobs INDEXED BY forge_jobs_alone
          WHERE queue = :queue AND ready = 1 AND alone = 1 AND kind > lonely.kind)
  FROM lonely WHERE lonely.kind IS NOT NULL),
future (kind) AS (
  SELECT min(kind) FROM forge_jobs INDEXED BY forge_jobs_bands WHERE queue = :queue AND ready = 0
  UNION ALL
  SELECT (SELECT min(kind) FROM forge_jobs INDEXED BY forge_jobs_bands WHERE queue = :queue AND ready = 0 AND kind > future.kind)
  FROM future WHERE future.kind IS NOT NULL)
SELECT kind FROM ready WHERE kind IS NOT NULL UNION SELECT kind FROM lonely WHERE kind IS NOT NULL
UNION SELECT kind FROM future WHERE kind IS NOT NULL ORDER BY 1
