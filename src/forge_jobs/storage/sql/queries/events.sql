-- Events and audit.

-- name: timeline
SELECT at, type, queue, kind, job_id, attempt, cause, duration_us, count, total_us FROM forge_events
WHERE at >= :since AND at < :until ORDER BY at, seq LIMIT :limit

-- name: events_of_job
SELECT at, type, queue, kind, job_id, attempt, cause, duration_us, count, total_us FROM forge_events
WHERE job_id = :id ORDER BY at, seq

-- name: insert_audit
INSERT INTO forge_audit (at, actor, role, address, surface, action, target, count, outcome, request_id, before, after)
VALUES (:now, :actor, :role, :address, :surface, :action, :target, :count, :outcome, :request_id, :before, :after)

-- name: list_audit
SELECT at, actor, role, address, surface, action, target, count, outcome, request_id, before, after
FROM forge_audit ORDER BY at DESC, seq DESC LIMIT :limit

-- name: audit_page
SELECT at, actor, role, address, surface, action, target, count, outcome, request_id, before, after, seq
FROM forge_audit
WHERE (:at IS NULL OR at < :at OR (at = :at AND seq < :seq))
  AND (:actor IS NULL OR actor = :actor) AND (:action IS NULL OR action = :action)
ORDER BY at DESC, seq DESC LIMIT :limit

-- name: count_audit
SELECT count(*) FROM forge_audit
WHERE (:actor IS NULL OR actor = :actor) AND (:action IS NULL OR action = :action)
