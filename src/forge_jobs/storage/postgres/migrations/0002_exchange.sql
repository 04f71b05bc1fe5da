-- The hot path: settle what is done and claim what is ready, in one statement.
--
-- A function, because each of its statements sees what was committed before it began, so the lock below can stand
-- between a pause and a claim; because its plans are kept with the session, behind a pooler too; and because a claim
-- of several kinds is a loop. A later version gets a new name and this one stays, so that workers of both live side
-- by side.

-- The queue's gate. Claims share it, a pause takes it alone: once a pause is committed no claim is under way that did
-- not see it. Advisory locks queue fairly, so a steady stream of claims cannot keep a pause waiting.
CREATE FUNCTION {schema}.gate_key(queue text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT hashtextextended('{schema}.gate:' || queue, 0) $$;

-- Make jobs due that fell due: the first `room` of every kind and priority, so that the claim order is exact however
-- many fall due at once, and some more by time, so that the backlog goes down.
CREATE FUNCTION {schema}.promote_1(_queue text, _kinds text[], _room integer, _more integer, _now bigint)
RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  _kind text COLLATE "C" := '';
  _priority integer := 0;
BEGIN
  LOOP
    SELECT kind, priority INTO _kind, _priority FROM {schema}.jobs
    WHERE queue = _queue AND ready = 0 AND (kind, priority) > (_kind, _priority) ORDER BY kind, priority LIMIT 1;
    EXIT WHEN NOT FOUND;
    IF _kind = ANY (_kinds) THEN
      UPDATE {schema}.jobs SET ready = 1 WHERE id = ANY (ARRAY(
        SELECT id FROM {schema}.jobs
        WHERE queue = _queue AND kind = _kind AND priority = _priority AND ready = 0 AND scheduled_at <= _now
        ORDER BY scheduled_at, id LIMIT _room FOR UPDATE SKIP LOCKED));
    END IF;
  END LOOP;
  UPDATE {schema}.jobs SET ready = 1 WHERE id = ANY (ARRAY(
    SELECT id FROM {schema}.jobs WHERE queue = _queue AND ready = 0 AND scheduled_at <= _now
    ORDER BY scheduled_at LIMIT _more FOR UPDATE SKIP LOCKED));
END $$;

-- Take up to `_room` jobs of the queue in claim order; rows that another claim has locked are walked past.
-- Each kind has its own stretch of the index. With several, a look without locks tells how many of the first `_room`
-- belong to each, so that no more rows are locked than are taken.
-- `_gates`: kinds that are paid for, with their scope, cost and the tokens of the scope, or null.
CREATE FUNCTION {schema}.take_1(
  _queue text, _kinds text[], _slots text[], _host text, _gates jsonb, _now bigint)
RETURNS SETOF {schema}.jobs LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  _room integer := cardinality(_slots);
  _quota integer[] := ARRAY[_room];
BEGIN
  IF cardinality(_kinds) > 4 THEN
    WITH RECURSIVE present (kind) AS (
      SELECT min(kind) FROM {schema}.jobs WHERE queue = _queue AND ready = 1 AND alone = 0
      UNION ALL
      SELECT (SELECT min(kind) FROM {schema}.jobs
              WHERE queue = _queue AND ready = 1 AND alone = 0 AND kind > present.kind)
      FROM present WHERE present.kind IS NOT NULL)
    SELECT coalesce(array_agg(kind), '{}') INTO _kinds FROM present WHERE kind = ANY (_kinds);
  END IF;
  IF _gates IS NOT NULL THEN
    -- As below; of a scope no more than it has tokens for, whichever of its kinds stands first.
    WITH heads AS (
      SELECT k.kind, g.scope, g.cost, g.tokens, h.priority, h.scheduled_at, h.id
      FROM unnest(_kinds) AS k (kind)
      LEFT JOIN jsonb_to_recordset(_gates)
        AS g (paid_kind text, scope text, cost double precision, tokens double precision) ON g.paid_kind = k.kind
      CROSS JOIN LATERAL (
        SELECT j.priority, j.scheduled_at, j.id FROM {schema}.jobs j
        WHERE j.queue = _queue AND j.kind = k.kind AND j.ready = 1 AND j.alone = 0 AND j.scheduled_at <= _now
          AND (j.expires_at IS NULL OR j.expires_at > _now)
        ORDER BY j.priority, j.scheduled_at, j.id
        LIMIT CASE WHEN g.cost IS NULL THEN _room ELSE least(_room, floor(g.tokens / g.cost)) END::integer) h),
    paid AS (
      SELECT *, sum(cost) OVER (PARTITION BY scope ORDER BY priority, scheduled_at, id) AS spent FROM heads)
    SELECT coalesce(array_agg(kind), '{}'), coalesce(array_agg(jobs), '{}') INTO _kinds, _quota
    FROM (SELECT kind, count(*)::integer AS jobs
          FROM (SELECT kind FROM paid WHERE scope IS NULL OR spent <= tokens
                ORDER BY priority, scheduled_at, id LIMIT _room) AS first
          GROUP BY kind) AS counted;
  ELSIF cardinality(_kinds) > 1 THEN
    WITH heads AS (
      SELECT k.kind FROM unnest(_kinds) AS k (kind) CROSS JOIN LATERAL (
        SELECT j.priority, j.scheduled_at, j.id FROM {schema}.jobs j
        WHERE j.queue = _queue AND j.kind = k.kind AND j.ready = 1 AND j.alone = 0 AND j.scheduled_at <= _now
          AND (j.expires_at IS NULL OR j.expires_at > _now)
        ORDER BY j.priority, j.scheduled_at, j.id LIMIT _room) h
      ORDER BY h.priority, h.scheduled_at, h.id LIMIT _room)
    SELECT coalesce(array_agg(kind), '{}'), coalesce(array_agg(jobs), '{}') INTO _kinds, _quota
    FROM (SELECT kind, count(*)::integer AS jobs FROM heads GROUP BY kind) AS counted;
  END IF;
  RETURN QUERY
  WITH mine AS MATERIALIZED (
    SELECT h.id, h.priority, h.scheduled_at FROM unnest(_kinds, _quota) AS k (kind, jobs) CROSS JOIN LATERAL (
      SELECT j.id, j.priority, j.scheduled_at FROM {schema}.jobs j
      WHERE j.queue = _queue AND j.kind = k.kind AND j.ready = 1 AND j.alone = 0 AND j.scheduled_at <= _now
        AND (j.expires_at IS NULL OR j.expires_at > _now)
      ORDER BY j.priority, j.scheduled_at, j.id LIMIT k.jobs FOR UPDATE SKIP LOCKED) h),
  placed AS MATERIALIZED (
    SELECT id, row_number() OVER (ORDER BY priority, scheduled_at, id) AS place FROM mine)
  UPDATE {schema}.jobs j SET status = 'in_progress', ready = NULL, attempts = j.attempts + 1, fence = j.fence + 1,
    process_id = _slots[p.place], host_id = _host, started_at = _now, heartbeat_at = _now
  FROM placed p WHERE j.id = p.id
  RETURNING j.*;
END $$;

-- The job that must run alone and stands first: one that crashed too often, or of a kind that may not crash at all.
CREATE FUNCTION {schema}.take_alone_1(
  _queue text, _kinds text[], _alone_kinds text[], _slots text[], _host text, _now bigint)
RETURNS SETOF {schema}.jobs LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  _id text;
BEGIN
  SELECT found.id INTO _id FROM (
    SELECT h.* FROM unnest(_kinds) AS k (kind) CROSS JOIN LATERAL (
      SELECT j.priority, j.scheduled_at, j.id FROM {schema}.jobs j
      WHERE j.queue = _queue AND j.kind = k.kind AND j.ready = 1 AND j.alone = 1 AND j.scheduled_at <= _now
        AND (j.expires_at IS NULL OR j.expires_at > _now)
      ORDER BY j.priority, j.scheduled_at, j.id LIMIT 1) h
    UNION ALL
    SELECT h.* FROM unnest(_alone_kinds) AS k (kind) CROSS JOIN LATERAL (
      SELECT j.priority, j.scheduled_at, j.id FROM {schema}.jobs j
      WHERE j.queue = _queue AND j.kind = k.kind AND j.ready = 1 AND j.alone = 0 AND j.scheduled_at <= _now
        AND (j.expires_at IS NULL OR j.expires_at > _now)
      ORDER BY j.priority, j.scheduled_at, j.id LIMIT 1) h) AS found
  ORDER BY found.priority, found.scheduled_at, found.id LIMIT 1;
  RETURN QUERY
  UPDATE {schema}.jobs j SET status = 'in_progress', ready = NULL, attempts = j.attempts + 1, fence = j.fence + 1,
    process_id = _slots[1], host_id = _host, started_at = _now, heartbeat_at = _now
  WHERE j.id = (SELECT l.id FROM {schema}.jobs l WHERE l.id = _id AND l.ready = 1 FOR UPDATE SKIP LOCKED)
  RETURNING j.*;
END $$;

-- `_done`: {job id: fence} of jobs to settle as done, or null. `_asked`: a list of claims, or null.
-- `_grace`: how long after its window a cool-down is forgotten by a job that is done, in microseconds. `_at`: store time
-- if it is not the server's clock. A first row with the time and an object of the ids that could not be settled, true
-- where the fence still fits, so that the job was settled before (null: all were); then a row per claim, in order.
CREATE FUNCTION {schema}.exchange_1(_done text, _asked text, _grace bigint, _at bigint)
RETURNS TABLE (now_us bigint, unsettled text, jobs text, more boolean, alone_waiting boolean, next_due bigint)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  _now bigint := coalesce(_at, {schema}.now_us());
  _fences jsonb;
  _ids text[];
  _settled text[];
  _queues text[];
  _claim record;
  _gate bigint;
  _room integer;
BEGIN
  now_us := _now;
  IF _done IS NOT NULL THEN
    _fences := _done::jsonb;
    _ids := ARRAY(SELECT jsonb_object_keys(_fences));
    -- A job in progress is known by its process_id: `status` would tempt the planner to walk the index of running jobs.
    WITH settled AS (
      UPDATE {schema}.jobs j SET status = 'done', completed_at = _now, process_id = NULL, heartbeat_at = NULL,
        throttles = 0
      WHERE j.id = ANY (_ids) AND j.fence = (_fences ->> j.id)::bigint AND j.process_id IS NOT NULL
      RETURNING j.id, j.queue)
    SELECT coalesce(array_agg(id), '{}'), array_agg(DISTINCT queue) INTO _settled, _queues FROM settled;
    IF cardinality(_settled) < cardinality(_ids) THEN
      -- Read here, before the claims below can take such a job anew.
      SELECT json_object_agg(asked.id, j.id IS NOT NULL AND j.fence = (_fences ->> asked.id)::bigint) INTO unsettled
      FROM unnest(_ids) AS asked (id) LEFT JOIN {schema}.jobs j ON j.id = asked.id
      WHERE asked.id <> ALL (_settled);
    END IF;
    UPDATE {schema}.queues SET throttle_attempts = 0, throttled_until = NULL
    WHERE name = ANY (_queues) AND throttle_attempts > 0
      AND (throttled_until IS NULL OR throttled_until <= _now - _grace);
  END IF;
  RETURN NEXT;
  unsettled := NULL;
  FOR _claim IN
    SELECT * FROM jsonb_to_recordset(coalesce(_asked, '[]')::jsonb) AS asked (
      queue text, kinds text[], slots text[], host text, alone boolean, alone_kinds text[], gates jsonb)
  LOOP
    PERFORM pg_advisory_xact_lock_shared({schema}.gate_key(_claim.queue));
    _now := coalesce(_at, {schema}.now_us());
    now_us := _now;
    jobs := '[]';
    more := FALSE;
    alone_waiting := FALSE;
    next_due := NULL;
    SELECT throttled_until INTO _gate FROM {schema}.queues WHERE name = _claim.queue AND throttled_until > _now
    UNION ALL
    SELECT NULL FROM {schema}.queue_pauses WHERE queue = _claim.queue AND host_id IN ('', _claim.host)
    LIMIT 1;
    IF FOUND THEN
      next_due := _gate;
    ELSE
      _room := cardinality(_claim.slots);
      PERFORM FROM {schema}.jobs WHERE queue = _claim.queue AND ready = 0 AND scheduled_at <= _now LIMIT 1;
      IF FOUND THEN
        PERFORM {schema}.promote_1(_claim.queue, _claim.kinds, _room, 500, _now);
      END IF;
      IF _claim.alone THEN
        SELECT coalesce(json_agg(json_build_array(taken.id, taken.queue, taken.kind, taken.payload, taken.attempts,
          taken.max_attempts, taken.crashes, taken.throttles, taken.fence, taken.priority, taken.enqueued_at,
          taken.scheduled_at, taken.started_at, taken.dedupe_key, taken.parent_id, taken.trace)), '[]')::text, count(*) = _room
        INTO jobs, more
        FROM {schema}.take_alone_1(_claim.queue, _claim.kinds, _claim.alone_kinds, _claim.slots, _claim.host, _now)
          AS taken;
      ELSE
        SELECT coalesce(json_agg(json_build_array(taken.id, taken.queue, taken.kind, taken.payload, taken.attempts,
          taken.max_attempts, taken.crashes, taken.throttles, taken.fence, taken.priority, taken.enqueued_at,
          taken.scheduled_at, taken.started_at, taken.dedupe_key, taken.parent_id, taken.trace)), '[]')::text, count(*) = _room
        INTO jobs, more
        FROM {schema}.take_1(_claim.queue,
          ARRAY(SELECT kind FROM unnest(_claim.kinds) AS kind WHERE kind <> ALL (_claim.alone_kinds)),
          _claim.slots, _claim.host, _claim.gates, _now) AS taken;
        alone_waiting := EXISTS (
          SELECT FROM unnest(_claim.kinds) AS k (kind) CROSS JOIN LATERAL (
            SELECT FROM {schema}.jobs j WHERE j.queue = _claim.queue AND j.kind = k.kind AND j.ready = 1 AND j.alone = 1
              AND j.scheduled_at <= _now AND (j.expires_at IS NULL OR j.expires_at > _now)
            ORDER BY j.priority, j.scheduled_at, j.id LIMIT 1) h)
          OR EXISTS (
          SELECT FROM unnest(_claim.alone_kinds) AS k (kind) CROSS JOIN LATERAL (
            SELECT FROM {schema}.jobs j WHERE j.queue = _claim.queue AND j.kind = k.kind AND j.ready = 1 AND j.alone = 0
              AND j.scheduled_at <= _now AND (j.expires_at IS NULL OR j.expires_at > _now)
            ORDER BY j.priority, j.scheduled_at, j.id LIMIT 1) h);
      END IF;
      IF NOT more THEN
        SELECT min(scheduled_at) INTO next_due FROM {schema}.jobs
        WHERE queue = _claim.queue AND ready = 0 AND scheduled_at > _now;
      END IF;
    END IF;
    RETURN NEXT;
  END LOOP;
END $$;

-- The advisory lock of a dedupe key: one of 1024, as a list of ten thousand keys must fit into the server's lock table.
CREATE FUNCTION {schema}.key_slot(key text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT hashtextextended('{schema}.key', 0) + (hashtextextended(key, 0) & 1023) $$;
