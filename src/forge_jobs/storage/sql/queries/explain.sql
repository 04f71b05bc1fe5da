-- Why a job waits: what claims look at, read only. Those that name an index or a clock are in the overlays.

-- name: canceller_of_job
-- The act is written in the transaction that set the job's cancel, so at the same instant.
SELECT actor FROM forge_audit
WHERE at = :at AND action IN ('job.cancel', 'job.delete', 'jobs.cancel', 'jobs.delete')
ORDER BY CASE WHEN target = :id THEN 0 ELSE 1 END LIMIT 1

-- name: last_event_of_job
SELECT type, cause FROM forge_events WHERE job_id = :id AND job_id IS NOT NULL ORDER BY seq DESC LIMIT 1
