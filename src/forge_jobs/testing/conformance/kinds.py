"""What code says of its kinds: kept for those who look at jobs from elsewhere, and never laxer by accident."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from forge_jobs import limits
from forge_jobs.clock import ManualClock
from forge_jobs.redact import HIDDEN, HIDDEN_PAYLOAD, KindSecrets
from forge_jobs.storage.error import InvalidInput, InvalidName, NotFound
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.blocker import BlockerCode
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.finalize import ErrorText, Failed
from forge_jobs.storage.types.job import JobFilter, JobOrder
from forge_jobs.storage.types.kind import KindDeclaration
from forge_jobs.testing.conformance.arrange import add, add_many, run
from forge_jobs.testing.factories import HOST, KIND

SCHEMA = {"type": "object", "properties": {"iban": {"type": "string", "title": 'ü \U0001f600 "\x00'}}}
PAY = KindDeclaration(kind="pay", description="Pays.", schema=SCHEMA, rate_limit="bank", cost=2.0, redact=("iban",))
OPEN = KindDeclaration(kind="pay", schema={})


async def declare(storage: Storage, *declarations: KindDeclaration, host: str = HOST) -> list[str]:
    return await storage.kinds.declare(declarations, host_id=host)


class TestKinds:
    async def test_what_is_declared_is_read_back(
        self, storage: Storage, neighbour: Storage, clock: ManualClock
    ) -> None:
        thread = KindDeclaration(kind="thumb", executor="thread", timeout_s=0.5, max_attempts=3, paid_by_payload=True)
        assert await declare(storage, thread, PAY) == ["pay", "thumb"]
        assert [one.declaration for one in await neighbour.kinds.list()] == [PAY, thread]
        found = await neighbour.kinds.get("pay")
        assert found is not None
        assert (found.declared_at, found.declared_by, found.redact) == (clock.now(), HOST, ("iban",))
        assert (found.payload_view, found.hides_more_than_code) == ("redacted", False)
        assert await neighbour.kinds.get("unknown") is None

    async def test_the_newest_declaration_is_kept(self, storage: Storage, clock: ManualClock) -> None:
        await declare(storage, PAY)
        clock.advance(60)
        assert await declare(storage, OPEN, host="other") == ["pay"]
        (found,) = await storage.kinds.list()
        assert (found.declaration, found.declared_by, found.declared_at) == (OPEN, "other", clock.now())

    async def test_what_is_stored_already_is_not_written(self, storage: Storage, clock: ManualClock) -> None:
        await declare(storage, PAY)
        then = clock.now()
        clock.advance(60)
        assert await declare(storage, PAY, host="other") == []
        (found,) = await storage.kinds.list()
        assert (found.declared_at, found.declared_by) == (then, HOST)

    async def test_rules_outlive_the_code_that_declared_them(self, storage: Storage) -> None:
        await declare(storage, PAY, KindDeclaration(kind="card", payload_view="hidden"))
        await declare(storage, OPEN, KindDeclaration(kind="card"), KindDeclaration(kind="plain"), host="older")
        secrets = await storage.kinds.secrets()
        assert secrets.of("pay") == KindSecrets(frozenset({"iban"}))
        assert secrets.of("card") == KindSecrets(hidden=True)
        assert secrets.of("plain") == secrets.of("unknown") == KindSecrets()
        assert secrets.payload("pay", '{"iban":"DE1","to":"me"}') == f'{{"iban": "{HIDDEN}", "to": "me"}}'
        assert HIDDEN_PAYLOAD in secrets.payload("card", '{"to":"me"}')
        kinds = {one.kind: one.hides_more_than_code for one in await storage.kinds.list()}
        assert kinds == {"card": True, "pay": True, "plain": False}

    async def test_processes_that_start_together_keep_the_rules_of_all(
        self, storage: Storage, neighbour: Storage
    ) -> None:
        sets = [
            [KindDeclaration(kind=kind, redact=(f"key{n}",)) for kind in ("a", "b", "c")[:: 1 if n % 2 else -1]]
            for n in range(10)
        ]
        await asyncio.gather(
            *(declare((storage, neighbour)[n % 2], *some, host=f"h{n}") for n, some in enumerate(sets))
        )
        secrets = await storage.kinds.secrets()
        assert secrets.of("a").keys == secrets.of("b").keys == secrets.of("c").keys == {f"key{n}" for n in range(10)}

    async def test_a_reset_goes_back_to_what_code_says_and_is_audited(self, storage: Storage) -> None:
        await declare(storage, PAY, KindDeclaration(kind="card", payload_view="hidden"))
        await declare(storage, KindDeclaration(kind="pay", redact=("bic",)), KindDeclaration(kind="card"))
        after = await storage.kinds.reset_to_code("pay", actor=Actor(name="ann"))
        assert (after.redact, after.payload_view, after.hides_more_than_code) == (("bic",), "redacted", False)
        assert await storage.kinds.get("pay") == after
        assert (await storage.kinds.secrets()).of("card").hidden
        act = (await storage.audit.list())[0]
        assert (act.action, act.target, act.actor.name) == ("kind.reset", "pay", "ann")
        assert act.before == {"redact": ["bic", "iban"], "payload_view": "redacted"}
        assert act.after == {"redact": ["bic"], "payload_view": "redacted"}
        with pytest.raises(NotFound, match="no worker ever declared the kind 'unknown'"):
            await storage.kinds.reset_to_code("unknown")

    async def test_a_schema_that_is_too_large_is_left_out(self, storage: Storage) -> None:
        large = {"enum": ["x" * 1_000] * (limits.DECLARATION_BYTES // 1_000 + 1)}
        await declare(storage, KindDeclaration(kind="large", schema=large, redact=("iban",)))
        (found,) = await storage.kinds.list()
        assert (found.declaration.schema, found.redact) == (None, ("iban",))
        assert await declare(storage, KindDeclaration(kind="large", schema=large, redact=("iban",))) == []

    async def test_what_is_no_json_is_left_out_and_bad_names_are_refused(self, storage: Storage) -> None:
        for schema in ({"default": float("nan")}, {"default": object()}, {"title": "\ud800"}):
            await declare(storage, KindDeclaration(kind="odd", schema=schema))
            (found,) = await storage.kinds.list()
            assert found.declaration.schema is None
        with pytest.raises(InvalidName):
            KindDeclaration(kind="a,b")
        with pytest.raises(InvalidInput, match="at most 64"):
            KindDeclaration(kind="a", redact=tuple(map(str, range(65))))

    async def test_hidden_jobs_are_not_found_by_what_is_hidden(self, storage: Storage) -> None:
        """A search that finds a job says what is in it."""
        await add_many(storage, 2, payload={"iban": "DE1"})
        await add(storage, payload={"iban": "DE1"}, kind="other")
        await run(storage, Failed(error=ErrorText("no account DE1"), delay=timedelta(minutes=1)))
        by_payload, by_error = JobFilter(search="de1"), JobFilter(error="de1")
        assert sum((await storage.jobs.count(by_payload)).values()) == 3
        assert sum((await storage.jobs.count(by_error)).values()) == 1
        await declare(storage, KindDeclaration(kind=KIND, payload_view="hidden"))
        page = await storage.jobs.list_jobs(by_payload)
        assert ([job.kind for job in page.items], page.total) == (["other"], 1)
        assert (await storage.jobs.list_jobs(by_error)).items == ()
        assert (await storage.jobs.act_on("cancel", by_payload)).changed == 1
        assert sum((await storage.jobs.count(JobFilter(kinds=(KIND,)))).values()) == 2

    @pytest.mark.parametrize("order", list(JobOrder))
    async def test_hidden_jobs_are_not_found_in_any_order_of_a_list(self, storage: Storage, order: JobOrder) -> None:
        """Wherever a job stands: later, due, waiting for a retry, dead."""
        secret, error = {"iban": "DE1"}, Failed(error=ErrorText("no DE1"), delay=timedelta(minutes=1))
        for kind in (KIND, "other"):
            await add(storage, payload=secret, kind=kind)
            await run(storage, error, kinds=(kind,))
            await storage.jobs.cancel(await add(storage, payload=secret, kind=kind))
            await add(storage, payload=secret, kind=kind, delay=60)
            await add(storage, payload=secret, kind=kind)
        await declare(storage, KindDeclaration(kind=KIND, payload_view="hidden"))
        for chosen in (JobFilter(search="de1"), JobFilter(search="de1", statuses=("failed",)), JobFilter(error="de1")):
            page = await storage.jobs.list_jobs(chosen, order=order)
            assert {job.kind for job in page.items} <= {"other"}, chosen
        found = await storage.jobs.list_jobs(JobFilter(search="de1"), order=order)
        assert found.items, "the others are found"

    async def test_blockers_do_not_quote_hidden_errors(self, storage: Storage) -> None:
        job_id = await add(storage)
        await run(storage, Failed(error=ErrorText("no account DE1"), delay=timedelta(minutes=1)))
        shown = [one.text for one in await storage.jobs.explain(job_id) if one.code is BlockerCode.RETRY_WAIT]
        assert "DE1" in "".join(shown)
        await declare(storage, KindDeclaration(kind=KIND, payload_view="hidden"))
        hidden = [one.text for one in await storage.jobs.explain(job_id) if one.code is BlockerCode.RETRY_WAIT]
        assert len(hidden) == 1
        assert "DE1" not in hidden[0]
