-- What jobs logged.

-- name: log_of_job
SELECT l.at, l.job_id, j.queue, j.kind, l.attempt, l.fence, l.seq, l.level, l.logger, l.message, l.skipped
FROM forge_job_log l JOIN forge_jobs j ON j.id = l.job_id
WHERE l.job_id = :id AND l.seq > :seq ORDER BY l.seq LIMIT :limit

-- name: log_between
SELECT l.at, l.job_id, j.queue, j.kind, l.attempt, l.fence, l.seq, l.level, l.logger, l.message, l.skipped
FROM forge_job_log l JOIN forge_jobs j ON j.id = l.job_id
WHERE l.at >= :since AND l.at < :until ORDER BY l.at, l.job_id, l.seq LIMIT :limit

-- name: log_sizes
SELECT seq, size, skipped FROM forge_job_log WHERE job_id = :id ORDER BY seq DESC

-- name: trim_log
DELETE FROM forge_job_log WHERE job_id = :id AND seq < :seq

-- name: count_skipped_lines
UPDATE forge_job_log SET skipped = skipped + :count WHERE job_id = :id AND seq = :seq

-- name: delete_log
DELETE FROM forge_job_log WHERE job_id = :id

-- name: delete_log_of_jobs
DELETE FROM forge_job_log WHERE job_id IN (SELECT value FROM json_each(:ids))
