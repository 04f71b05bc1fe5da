"""Kinds for programs: what code says of them, their jobs, and who serves them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from forge_jobs.storage.types.job import KindCounts
from forge_jobs.storage.types.kind import Kind
from forge_jobs.storage.types.process import ProcessInfo, ProcessRow
from forge_jobs.storage.types.rate_limit import RateLimit

WORKERS_SHOWN: Final = 100


def kind_views(
    counts: Sequence[KindCounts],
    declared: Sequence[Kind],
    processes: Sequence[ProcessRow],
    queues: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Every kind that code declared, a live worker serves or a job is of, by kind. With `queues` those that have to do
    with one of them, and of the rest nothing."""
    live = [row.info for row in processes if row.live and _has_to_do(row.info.queues, queues)]
    known = {one.kind: one for one in declared}
    by_kind: dict[str, list[KindCounts]] = {}
    for one in counts:
        if _has_to_do([one.queue], queues):
            by_kind.setdefault(one.kind, []).append(one)
    names = {*by_kind, *(kind for info in live for kind in info.kinds)}
    names |= {one.kind for one in declared if queues is None or one.declaration.queue in queues}
    return [_view(name, by_kind.get(name, []), known.get(name), live) for name in sorted(names)]


def kind_detail(shown: dict[str, Any], kind: Kind | None, processes: Sequence[ProcessRow]) -> dict[str, Any]:
    """The same of one kind, one of `kind_views`, with all that code says of it."""
    by = {row.info.host_id: row.info for row in processes}
    teller = None if kind is None else by.get(kind.declared_by)
    return {
        **shown,
        "declaration": None if kind is None else dataclasses.asdict(kind.declaration),
        "redact": [] if kind is None else list(kind.redact),
        "payload_view": "redacted" if kind is None else kind.payload_view,
        "hides_more_than_code": kind is not None and kind.hides_more_than_code,
        "declared_at": None if kind is None else kind.declared_at,
        "declared_by": None if kind is None else kind.declared_by,
        "declared_by_label": None if teller is None else teller.label,
    }


def users_of(
    limit: RateLimit,
    declared: Sequence[Kind],
    processes: Sequence[ProcessRow],
    waiting: Mapping[str, int],
    seen: Collection[str] | None = None,
) -> dict[str, Any]:
    """The kinds that take from a limit whatever their payload, and how many of their jobs wait; of the `seen` kinds, if
    these are given."""
    scopes = {one.kind: one.declaration.rate_limit for one in declared}
    scopes |= {gate.kind: gate.scope for row in processes if row.live for gate in row.info.gates}
    kinds = sorted(kind for kind, scope in scopes.items() if scope is not None and _covers(limit, scope))
    kinds = [kind for kind in kinds if seen is None or kind in seen]
    return {"kinds": kinds, "waiting": sum(waiting.get(kind, 0) for kind in kinds)}


def _view(name: str, counts: Sequence[KindCounts], kind: Kind | None, live: Sequence[ProcessInfo]) -> dict[str, Any]:
    serving = [info for info in live if name in info.kinds]
    own = None if kind is None else kind.declaration
    rows = [
        {
            "queue": one.queue,
            "waiting": one.waiting,
            "in_progress": one.in_progress,
            "dead": one.dead,
            "served": any(one.queue in info.queues for info in serving),
        }
        for one in counts
    ]
    return {
        "kind": name,
        "description": "" if own is None else own.description,
        "declared": own is not None,
        "executor": None if own is None else own.executor,
        "rate_limit": None if own is None else own.rate_limit,
        "paid_by_payload": own is not None and own.paid_by_payload,
        "payload_hidden": kind is not None and kind.payload_view == "hidden",
        "served": bool(serving) and all(row["served"] for row in rows),
        "queues": rows,
        "waiting": sum(one.waiting for one in counts),
        "in_progress": sum(one.in_progress for one in counts),
        "dead": sum(one.dead for one in counts),
        "workers": [
            {"host_id": info.host_id, "worker": info.label or info.host_id, "queues": list(info.queues)}
            for info in serving[:WORKERS_SHOWN]
        ],
        "workers_total": len(serving),
    }


def _has_to_do(queues: Collection[str], with_these: Collection[str] | None) -> bool:
    return with_these is None or any(queue in with_these for queue in queues)


def _covers(limit: RateLimit, scope: str) -> bool:
    return scope == limit.scope or (limit.per_key and scope.startswith(f"{limit.scope}:"))
