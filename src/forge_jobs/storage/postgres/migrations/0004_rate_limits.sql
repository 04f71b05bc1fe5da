-- Buckets of rate limits.

-- One row per scope. `tokens`, `blocked_us` and `parked_us` are as of `updated_at`: how many tokens are in the bucket, for
-- how long it gives none, and up to when its refill is promised to jobs that were put off. `template` is the scope that a
-- keyed one was made from: `slack` for `slack:team-42`. Room in each page keeps the updates of a hot bucket in place.
CREATE TABLE {schema}.rate_limits (
  scope text COLLATE "C" NOT NULL PRIMARY KEY,
  capacity double precision NOT NULL,
  refill_per_s double precision NOT NULL,
  per_key bigint NOT NULL DEFAULT 0,
  template text COLLATE "C",
  tokens double precision NOT NULL,
  blocked_us bigint NOT NULL DEFAULT 0,
  parked_us bigint NOT NULL DEFAULT 0,
  updated_at bigint NOT NULL,
  changed_at bigint,
  changed_by text
) WITH (fillfactor = 20);
CREATE INDEX rate_limits_template ON {schema}.rate_limits (template) WHERE template IS NOT NULL;
