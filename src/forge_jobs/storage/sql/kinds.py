"""The store of kinds over a driver."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from forge_jobs import limits
from forge_jobs.clock import from_us
from forge_jobs.redact import KindSecrets, Secrets
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.protocol import PYTHON
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Driver, Row, Tx
from forge_jobs.storage.sql.rows import audit_params, to_json
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.kind import Kind, KindDeclaration
from forge_jobs.text import clean

LIST_KINDS = statement("list_kinds")
SECRETIVE_KINDS = statement("secretive_kinds")
LOCK_KIND = statement("lock_kind")
INSERT_KIND = statement("insert_kind")
UPDATE_KIND = statement("update_kind")
RESET_KIND = statement("reset_kind")
INSERT_AUDIT = statement("insert_audit")

LABEL = "kinds"


class SqlKinds:
    """Implements `KindStore`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def declare(self, declarations: Sequence[KindDeclaration], *, host_id: str) -> list[str]:
        wanted = {one.kind: one for one in sorted(map(_bounded, declarations), key=lambda one: one.kind)}
        stored = {one.kind: one.declaration for one in await self.list()}
        news = [one for kind, one in wanted.items() if stored.get(kind) != one]
        if news:  # a start that tells nothing new writes nothing
            await self._driver.write(lambda tx: _declare(tx, news, host_id), label=LABEL)
        return [one.kind for one in news]

    async def get(self, kind: str) -> Kind | None:
        rows = await self._driver.read(lambda tx: tx.rows(LIST_KINDS, {"kind": kind}))
        return _kind(rows[0]) if rows else None

    async def list(self) -> list[Kind]:
        return [_kind(row) for row in await self._driver.read(lambda tx: tx.rows(LIST_KINDS, {"kind": None}))]

    async def secrets(self) -> Secrets:
        rows = await self._driver.read(lambda tx: tx.rows(SECRETIVE_KINDS))
        return Secrets({kind: KindSecrets(frozenset(json.loads(keys)), bool(hidden)) for kind, keys, hidden in rows})

    async def reset_to_code(self, kind: str, *, actor: Actor = PYTHON) -> Kind:
        def operation(tx: Tx) -> Kind:
            row = tx.row(LOCK_KIND, {"kind": kind})
            if row is None:
                raise NotFound(f"no worker ever declared the kind {kind[:128]!r}")
            before = _kind(row)
            own = before.declaration
            after = replace(before, redact=own.redact, payload_view=own.payload_view)
            tx.change(RESET_KIND, {"kind": kind, **_rules(after)})
            shown = [{"redact": one.redact, "payload_view": one.payload_view} for one in (before, after)]
            tx.change(
                INSERT_AUDIT, audit_params(actor, "kind.reset", kind, outcome="ok", before=shown[0], after=shown[1])
            )
            return after

        return await self._driver.write(operation, label=LABEL)


def _declare(tx: Tx, declarations: Sequence[KindDeclaration], host_id: str) -> None:
    """Write them down. Rules are only added: of two versions of the code side by side the stricter one holds."""
    for one in declarations:
        params = {"kind": one.kind, "declaration": to_json(one), "host": host_id}
        if tx.change(INSERT_KIND, {**params, **_rules(one)}) == 1:
            continue
        was = _kind(tx.rows(LOCK_KIND, {"kind": one.kind})[0])
        kept = replace(
            was,
            redact=tuple({*was.redact, *one.redact}),
            payload_view="hidden" if "hidden" in (was.payload_view, one.payload_view) else "redacted",
        )
        tx.change(UPDATE_KIND, {**params, **_rules(kept)})


def _rules(of: Kind | KindDeclaration) -> dict[str, object]:
    return {"redact": to_json(sorted(set(of.redact))), "hidden": int(of.payload_view == "hidden")}


def _bounded(one: KindDeclaration) -> KindDeclaration:
    """The declaration in the form that is read back, its schema left out if it is too large or no JSON."""
    description = clean(one.description, limits.DESCRIPTION_BYTES)
    one = replace(one, redact=tuple(sorted(set(one.redact))), description=description)
    try:
        text = json.dumps(one.schema, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (ValueError, TypeError, RecursionError):
        return replace(one, schema=None)
    if len(to_json(replace(one, schema=json.loads(text)))) > limits.DECLARATION_BYTES:
        return replace(one, schema=None)
    return replace(one, schema=json.loads(text))


def _kind(row: Row) -> Kind:
    kind, declaration, redact, hidden, declared_at, declared_by = row
    try:
        found = msgspec.json.decode(declaration, type=KindDeclaration)
    except msgspec.MsgspecError:  # of a newer program
        found = KindDeclaration(kind=kind, executor="unknown", schema=None)
    return Kind(
        declaration=found,
        redact=tuple(json.loads(redact)),
        payload_view="hidden" if hidden else "redacted",
        declared_at=from_us(declared_at),
        declared_by=declared_by,
    )
