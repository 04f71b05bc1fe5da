-- Metrics by minute.

-- name: newest_rolled
SELECT max((SELECT max(m.minute) FROM forge_metrics m WHERE m.metric = names.value AND m.host_id = ''))
FROM json_each(:metrics) AS names

-- name: next_event
SELECT min(at) FROM forge_events WHERE at >= :since AND at < :until

-- name: count_events
SELECT queue, kind, type, cause, CAST(sum(count) AS bigint) FROM forge_events
WHERE at >= :since AND at < :until GROUP BY queue, kind, type, cause

-- name: event_latencies
-- Percentiles by nearest rank, ceil(p * n / 100), exact over the runs that have an event of their own.
WITH runs (queue, kind, metric, us) AS (
  SELECT queue, kind, CASE type WHEN 'started' THEN 'wait_ms' ELSE 'proc_ms' END, duration_us FROM forge_events
  WHERE at >= :since AND at < :until AND type IN ('started', 'completed') AND duration_us IS NOT NULL
  UNION ALL
  SELECT queue, kind, 'total_ms', total_us FROM forge_events
  WHERE at >= :since AND at < :until AND total_us IS NOT NULL),
placed AS (
  SELECT queue, kind, metric, us, row_number() OVER (PARTITION BY queue, kind, metric ORDER BY us) AS place,
    count(*) OVER (PARTITION BY queue, kind, metric) AS runs
  FROM runs)
SELECT queue, kind, metric, count(*), CAST(sum(us) AS bigint), min(us),
  min(CASE WHEN place = (50 * runs + 99) / 100 THEN us END), min(CASE WHEN place = (95 * runs + 99) / 100 THEN us END),
  min(CASE WHEN place = (99 * runs + 99) / 100 THEN us END), max(us)
FROM placed GROUP BY queue, kind, metric

-- name: metric_series
SELECT minute / :bucket * :bucket AS bucket_at, CAST(sum(count) AS bigint), sum(sum), min(min),
  sum(p50 * count) / sum(count), max(p95), max(p99), max(max)
FROM forge_metrics
WHERE metric = :metric AND minute >= :since AND minute < :until AND (:queue IS NULL OR queue = :queue)
  AND (:kind IS NULL OR kind = :kind) AND (:host IS NULL OR host_id = :host)
GROUP BY bucket_at ORDER BY bucket_at
