"""The rate limit store over a driver, and what claims and settlements use of it in their own transactions."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from forge_jobs import limits
from forge_jobs.clock import from_us
from forge_jobs.names import check_name
from forge_jobs.storage import bucket as buckets
from forge_jobs.storage.bucket import Bucket
from forge_jobs.storage.error import InvalidInput, NotFound
from forge_jobs.storage.protocol import LIMITS, PYTHON
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Driver, Row, Tx, Wake
from forge_jobs.storage.sql.rows import audit_params, instant, to_json
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.rate_limit import (
    Acquired,
    Granted,
    RateLimit,
    RateLimitDeclaration,
    Refused,
    check_capacity,
    check_cost,
    check_refill,
)

INSERT_AUDIT = statement("insert_audit")
INSERT_RATE_LIMIT = statement("insert_rate_limit")
TUNE_RATE_LIMIT = statement("tune_rate_limit")
PATTERNS_OF_SCOPES = statement("patterns_of_scopes")
SCOPES_OF_PATTERN = statement("scopes_of_pattern")
DELETE_RATE_LIMIT = statement("delete_rate_limit")
LIST_RATE_LIMITS = statement("list_rate_limits")
LOCK_BUCKETS = statement("lock_buckets")
WRITE_BUCKET = statement("write_bucket")

log = logging.getLogger("forge_jobs.limits")

LABEL: Final = "limits"
BATCH: Final = 1_000
"""Most requests for tokens that share a transaction."""
WARN_EVERY_S: Final = 60.0
NEVER: Final = timedelta(seconds=limits.RATE_RETRY_S[1])


@dataclass(frozen=True, slots=True)
class Ask:
    """A wish for tokens. `park`: a refusal says when this one's turn comes, and keeps that turn for it."""

    scope: str
    cost: float
    park: bool = False


Asked: TypeAlias = "tuple[Ask, asyncio.Future[Acquired]]"


class SqlRateLimits:
    """Implements `RateLimitStore`. Requests that come while one batch is under way travel together in the next."""

    def __init__(self, driver: Driver, wake: Wake) -> None:
        self._driver = driver
        self._wake = wake
        self._gathering: list[Asked] = []
        self._under_way = False
        self._warned: dict[str, float] = {}

    # Tokens

    async def acquire(self, scope: str, cost: float = 1, *, park: bool = False) -> Acquired:
        ask = Ask(check_name(scope, "scope"), check_cost(cost), park)
        self._driver.check()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Acquired] = loop.create_future()
        self._gathering.append((ask, answer))
        if not self._under_way:
            self._under_way = True
            loop.call_soon(self._send)
        acquired = await answer
        family = "rate_refused" if isinstance(acquired, Refused) else "rate_granted"
        self._driver.observer.count(family, scope.partition(":")[0])  # a key is no label
        if isinstance(acquired, Refused) and not acquired.known:
            self.warn_of_unknown([scope])
        return acquired

    async def drain(
        self, scope: str, retry_after: float | timedelta | None = None, *, actor: Actor | None = None
    ) -> bool:
        check_name(scope, "scope")
        hint_us = _hint_us(retry_after)

        def operation(tx: Tx) -> bool:
            found = drain_bucket(tx, scope, hint_us)
            if found and actor is not None:
                after = {"retry_after_s": None if hint_us is None else hint_us / 1e6}
                tx.change(INSERT_AUDIT, audit_params(actor, "limit.drain", scope, outcome="ok", after=after))
            return found

        found = await self._driver.write(operation, label=LABEL)
        if not found:
            self.warn_of_unknown([scope])
        return found

    def _send(self) -> None:
        asked, self._gathering = self._gathering[:BATCH], self._gathering[BATCH:]
        asks = [ask for ask, _ in asked]
        self._driver.submit(
            lambda tx: acquire_all(tx, asks), label=LABEL, done=lambda result, error: self._answer(asked, result, error)
        )

    def _answer(
        self, asked: list[Asked], result: Sequence[Acquired | Exception] | None, error: Exception | None
    ) -> None:
        for number, (_, future) in enumerate(asked):
            if future.done():  # its caller gave up waiting; the tokens are spent all the same
                continue
            answer = error if result is None else result[number]
            if isinstance(answer, Exception):
                future.set_exception(answer)
            elif answer is not None:
                future.set_result(answer)
        self._under_way = bool(self._gathering)
        if self._under_way:
            self._send()

    def warn_of_unknown(self, scopes: Iterable[str]) -> None:
        """Say that these scopes do not exist, once a minute each."""
        now = asyncio.get_running_loop().time()
        for scope in scopes:
            if now >= self._warned.get(scope, 0.0):
                self._warned[scope] = now + WARN_EVERY_S
                log.warning(
                    "rate_scope_unknown scope=%s: what it limits waits; declare it in code or "
                    "`forge-jobs limits add %s`",
                    scope,
                    scope,
                )

    # Settings

    async def ensure(self, declaration: RateLimitDeclaration) -> RateLimit:
        def operation(tx: Tx) -> RateLimit:
            _insert(tx, declaration)
            return _get(tx, declaration.scope)

        return await self._driver.write(operation, label=LABEL)

    async def add(self, declaration: RateLimitDeclaration, *, actor: Actor = PYTHON) -> bool:
        def operation(tx: Tx) -> bool:
            added = _insert(tx, declaration)
            _audit_added(tx, declaration, actor, "added" if added else "exists")
            return added

        added = await self._driver.write(operation, label=LABEL)
        self._wake.due([LIMITS])
        return added

    async def change(
        self,
        scope: str,
        *,
        capacity: float | None = None,
        refill_per_s: float | None = None,
        actor: Actor = PYTHON,
    ) -> RateLimit:
        check_name(scope, "scope")
        new_capacity = None if capacity is None else check_capacity(capacity)
        new_refill = None if refill_per_s is None else check_refill(refill_per_s)

        def operation(tx: Tx) -> RateLimit:
            lock_buckets(tx, [scope])
            before = _get(tx, scope)
            capacity = before.capacity if new_capacity is None else new_capacity
            _tune(tx, before, capacity, before.refill_per_s if new_refill is None else new_refill, actor)
            return _get(tx, scope)

        changed = await self._driver.write(operation, label=LABEL)
        self._wake.due([LIMITS])
        return changed

    async def put(
        self,
        declaration: RateLimitDeclaration,
        *,
        check: Callable[[RateLimit | None], None] = lambda found: None,
        actor: Actor = PYTHON,
    ) -> RateLimit:
        scope = declaration.scope

        def operation(tx: Tx) -> RateLimit:
            if _insert(tx, declaration):
                check(None)
                _audit_added(tx, declaration, actor, "added")
            else:
                lock_buckets(tx, [scope])
                before = _get(tx, scope)
                check(before)
                _tune(tx, before, float(declaration.capacity), float(declaration.refill_per_s), actor)
            return _get(tx, scope)

        stored = await self._driver.write(operation, label=LABEL)
        self._wake.due([LIMITS])
        return stored

    async def remove(self, scope: str, *, actor: Actor = PYTHON) -> bool:
        check_name(scope, "scope")

        def operation(tx: Tx) -> bool:
            removed = tx.change(DELETE_RATE_LIMIT, {"scope": scope})
            outcome = "removed" if removed else "absent"
            tx.change(INSERT_AUDIT, audit_params(actor, "limit.remove", scope, count=removed, outcome=outcome))
            return removed > 0

        return await self._driver.write(operation, label=LABEL)

    async def get(self, scope: str) -> RateLimit | None:
        check_name(scope, "scope")
        return await self._driver.read(lambda tx: next(iter(_list(tx, scope)), None))

    async def list(self) -> list[RateLimit]:
        return await self._driver.read(lambda tx: _list(tx, None))


# In a transaction


def acquire_all(tx: Tx, asks: Sequence[Ask]) -> list[Acquired | Exception]:
    """Grant what the buckets hold, first come first served; the rows of refused scopes stay as they are."""
    found = lock_buckets(tx, {ask.scope for ask in asks})
    now = dict(found)
    answers = [_acquire(tx, now, ask) for ask in asks]
    write_buckets(tx, {scope: bucket for scope, bucket in now.items() if bucket is not found[scope]})
    return answers


def drain_bucket(tx: Tx, scope: str, hint_us: int) -> bool:
    """Empty a bucket, and shut it for as long as the upstream said; False if there is no such scope."""
    found = lock_buckets(tx, [scope])
    write_buckets(tx, {name: buckets.drained(bucket, hint_us) for name, bucket in found.items()})
    return bool(found)


def lock_buckets(tx: Tx, scopes: Collection[str]) -> dict[str, Bucket]:
    """The buckets of these scopes now, for this transaction alone; those of a pattern are made when first asked for."""
    if not scopes:
        return {}
    found = _read(tx, scopes)
    missing = [scope for scope in scopes if scope not in found and ":" in scope]
    if missing and _make_keyed(tx, missing):
        found |= _read(tx, missing)
    return found


def look_at_buckets(tx: Tx, scopes: Iterable[str]) -> dict[str, Bucket]:
    """The buckets of these scopes now, without a lock; one that a pattern covers and that was never used is full."""
    found: dict[str, Bucket] = {}
    for scope in sorted(scopes):
        row = tx.row(LIST_RATE_LIMITS, {"scope": scope})
        if row is not None:
            found[scope] = _bucket(row)
            continue
        patterns = (tx.row(LIST_RATE_LIMITS, {"scope": prefix}) for prefix in _prefixes(scope))
        pattern = next((one for one in patterns if one is not None and one[7]), None)
        if pattern is not None:
            _, capacity, refill_per_s = pattern[:3]
            found[scope] = Bucket(capacity=capacity, refill_per_s=refill_per_s, tokens=capacity)
    return found


def _acquire(tx: Tx, now: dict[str, Bucket], ask: Ask) -> Acquired | Exception:
    bucket = now.get(ask.scope)
    if bucket is None:
        return Refused(retry_after=NEVER, known=False)
    try:
        check_cost(ask.cost, bucket.capacity)
    except InvalidInput as error:
        return error
    after = buckets.taken(bucket, ask.cost)
    if after is not None:
        now[ask.scope] = after
        return Granted(remaining=after.tokens, at=from_us(tx.now_us))
    if ask.park:
        now[ask.scope], wait = buckets.parked(bucket, ask.cost, random.random())  # noqa: S311
        return Refused(retry_after=timedelta(microseconds=wait))
    return Refused(retry_after=timedelta(seconds=_clamped_s(buckets.wait_us(bucket, ask.cost))))


def _clamped_s(wait_us: int) -> float:
    least, most = limits.RATE_RETRY_S
    return min(max(wait_us / 1e6, least), most)


def _read(tx: Tx, scopes: Collection[str]) -> dict[str, Bucket]:
    return {row[0]: _bucket(row) for row in tx.rows(LOCK_BUCKETS, {"scopes": to_json(sorted(scopes))})}


def _bucket(row: Row) -> Bucket:
    """A row's bucket at this moment."""
    _, capacity, refill_per_s, tokens, blocked_us, parked_us, elapsed_us = row[:7]
    then = Bucket(
        capacity=capacity, refill_per_s=refill_per_s, tokens=tokens, blocked_us=blocked_us, parked_us=parked_us
    )
    return buckets.aged(then, elapsed_us)


def _make_keyed(tx: Tx, scopes: Sequence[str]) -> int:
    """Full buckets for scopes that a pattern covers; the longest pattern wins."""
    prefixes = {scope: _prefixes(scope) for scope in scopes}
    wanted = sorted({prefix for some in prefixes.values() for prefix in some})
    patterns = {row[0]: row[1:] for row in tx.rows(PATTERNS_OF_SCOPES, {"scopes": to_json(wanted)})}
    made = 0
    for scope in sorted(scopes):
        pattern = next((prefix for prefix in prefixes[scope] if prefix in patterns), None)
        if pattern is not None:
            capacity, refill = patterns[pattern]
            params = {"scope": scope, "capacity": capacity, "refill_per_s": refill, "per_key": 0, "template": pattern}
            made += 1
            tx.change(INSERT_RATE_LIMIT, params)
    return made


def _prefixes(scope: str) -> list[str]:
    """What stands before each colon, longest first."""
    parts = scope.split(":")
    return [":".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def write_buckets(tx: Tx, changed: Mapping[str, Bucket]) -> None:
    """Store buckets that `lock_buckets` gave."""
    if changed:
        tx.change_many(
            WRITE_BUCKET,
            [
                {"bucket": scope, "tokens": one.tokens, "blocked_us": one.blocked_us, "parked_us": one.parked_us}
                for scope, one in sorted(changed.items())
            ],
        )


def _insert(tx: Tx, declaration: RateLimitDeclaration) -> bool:
    params = {
        "scope": declaration.scope,
        "capacity": float(declaration.capacity),
        "refill_per_s": float(declaration.refill_per_s),
        "per_key": int(declaration.per_key),
        "template": None,
    }
    return tx.change(INSERT_RATE_LIMIT, params) == 1


def _audit_added(tx: Tx, declaration: RateLimitDeclaration, actor: Actor, outcome: str) -> None:
    after = {"capacity": declaration.capacity, "refill_per_s": declaration.refill_per_s}
    tx.change(INSERT_AUDIT, audit_params(actor, "limit.add", declaration.scope, outcome=outcome, after=after))


def _tune(tx: Tx, before: RateLimit, capacity: float, refill_per_s: float, actor: Actor) -> None:
    """Give a limit, and every scope made from it, this capacity and refill."""
    scopes = [before.scope, *(row[0] for row in tx.rows(SCOPES_OF_PATTERN, {"scope": before.scope}))]
    found = lock_buckets(tx, scopes)
    write_buckets(tx, {name: buckets.retuned(bucket, capacity, refill_per_s) for name, bucket in found.items()})
    after = {"capacity": capacity, "refill_per_s": refill_per_s}
    for name in scopes:
        tx.change(TUNE_RATE_LIMIT, {"scope": name, **after, "by": actor.name})
    was = {"capacity": before.capacity, "refill_per_s": before.refill_per_s}
    params = audit_params(actor, "limit.set", before.scope, count=len(scopes), outcome="ok", before=was, after=after)
    tx.change(INSERT_AUDIT, params)


def _get(tx: Tx, scope: str) -> RateLimit:
    found = _list(tx, scope)
    if not found:
        raise NotFound(f"there is no rate limit {scope!r}; `forge-jobs limits add` makes one")
    return found[0]


def _list(tx: Tx, scope: str | None) -> list[RateLimit]:
    return [_rate_limit(tx, row) for row in tx.rows(LIST_RATE_LIMITS, {"scope": scope})]


def _rate_limit(tx: Tx, row: Row) -> RateLimit:
    bucket = _bucket(row)
    per_key, template, changed_at, changed_by = row[7:]
    return RateLimit(
        scope=row[0],
        capacity=bucket.capacity,
        refill_per_s=bucket.refill_per_s,
        per_key=bool(per_key),
        template=template,
        tokens=bucket.tokens,
        blocked_until=from_us(tx.now_us + bucket.blocked_us) if bucket.blocked_us else None,
        changed_at=instant(changed_at),
        changed_by=changed_by,
    )


def _hint_us(retry_after: float | timedelta | None) -> int:
    """What an upstream asked for, in microseconds."""
    if retry_after is None:
        return 0
    seconds = retry_after.total_seconds() if isinstance(retry_after, timedelta) else retry_after
    least, most = limits.RETRY_AFTER_S
    if type(seconds) not in (int, float) or not least <= seconds:
        raise InvalidInput(
            f"retry_after {retry_after!r} must be seconds, {least} or more, or a timedelta",
            field="retry_after",
            reason="out_of_range",
        )
    return round(min(seconds, most) * 1e6)
