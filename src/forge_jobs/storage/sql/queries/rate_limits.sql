-- Rate limits. What a bucket grants is decided in `storage/bucket.py`; how long ago a row was changed is the backend's
-- to measure.

-- name: insert_rate_limit
INSERT INTO forge_rate_limits (scope, capacity, refill_per_s, per_key, template, tokens, updated_at)
VALUES (:scope, :capacity, :refill_per_s, :per_key, :template, :capacity, :now)
ON CONFLICT (scope) DO NOTHING

-- name: tune_rate_limit
UPDATE forge_rate_limits SET capacity = :capacity, refill_per_s = :refill_per_s, changed_at = :now, changed_by = :by
WHERE scope = :scope

-- name: patterns_of_scopes
SELECT scope, capacity, refill_per_s FROM forge_rate_limits
WHERE scope IN (SELECT value FROM json_each(:scopes)) AND per_key = 1

-- name: scopes_of_pattern
SELECT scope FROM forge_rate_limits WHERE template = :scope AND template IS NOT NULL ORDER BY scope

-- name: delete_rate_limit
DELETE FROM forge_rate_limits WHERE scope = :scope OR (template = :scope AND template IS NOT NULL)
