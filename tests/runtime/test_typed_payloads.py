"""A typed payload is read before the handler runs, and one that cannot be read never reaches it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic

from forge_jobs import EnqueueRequest, JobCtx
from forge_jobs.runtime.hooks import CallNext
from forge_jobs.runtime.outcome import JobOutcome, RunOutcome

from .world import World


@dataclass
class Letter:
    to: str
    copies: int = 1


class Note(msgspec.Struct):
    text: str


class Person(pydantic.BaseModel):
    age: int


async def test_the_handler_gets_an_object(world: World) -> None:
    got: list[Any] = []

    @world.handlers.handler("letter")
    async def letter(ctx: JobCtx, letter: Letter) -> None:
        got.append(letter)
        await note.enqueue(ctx, Note(f"sent to {letter.to}"))

    @world.handlers.handler("note")
    async def note(note: Note) -> None:
        got.append(note)

    @world.handlers.handler("person")
    async def person(person: Person, ctx: JobCtx) -> None:
        got.append(person)

    await world.work(slots=1)
    await world.when((await letter.enqueue(world.storage, Letter("a"))).id, "done")
    await world.when(await world.put("letter", {"to": "b", "copies": 2, "unknown": True}), "done")
    await world.when((await person.enqueue(world.storage, Person(age=3))).id, "done")
    await world.when(await world.put("note", {"text": "last"}, priority=100), "done")
    assert got == [Letter("a"), Note("sent to a"), Letter("b", 2), Note("sent to b"), Person(age=3), Note("last")]


async def test_a_payload_of_the_wrong_type_is_a_failed_attempt_that_a_deploy_may_mend(world: World) -> None:
    got: list[Any] = []

    @world.handlers.handler("letter", retry_on=OSError, backoff=[0.2])
    async def letter(letter: Letter) -> None:
        got.append(letter)

    await world.work(slots=1)
    job_id = await world.put("letter", {"to": "a", "copies": "5"})
    detail = await world.when(job_id, "failed")
    assert detail.row.last_error == "payload: copies: expected `int`, got `str`"
    assert detail.traceback is None
    assert got == []

    @world.handlers.handler("letter")
    async def mended(letter: dict[str, Any]) -> None:
        got.append(letter)

    await world.when(job_id, "done")
    assert got == [{"to": "a", "copies": "5"}]


async def test_a_kind_may_say_that_a_bad_payload_is_the_end(world: World) -> None:
    @world.handlers.handler("letter", bad_payload="dead")
    async def letter(letter: Letter) -> None:
        raise AssertionError("it must not run")

    damaged = await world.put("letter", {"to": "a"})
    world.damage(damaged, "payload", "")
    await world.work(slots=1)
    for job_id in (damaged, await world.put("letter", "text")):
        detail = await world.when(job_id, "dead")
        assert (detail.row.dead_reason, detail.row.attempts) == ("rejected", 1)


async def test_hooks_see_the_object_and_hear_of_what_could_not_be_read(world: World) -> None:
    seen: list[Any] = []

    @world.handlers.before_run
    async def before(ctx: JobCtx, payload: Any) -> None:
        seen.append(payload)

    @world.handlers.middleware
    async def copy_twice(ctx: JobCtx, payload: Any, call_next: CallNext) -> JobOutcome:
        return await call_next(ctx, Letter(payload.to, 2))

    @world.handlers.after_run
    async def after(ctx: JobCtx, outcome: RunOutcome) -> None:
        seen.append(outcome)

    @world.handlers.handler("letter")
    async def letter(letter: Letter) -> None:
        seen.append(letter)

    await world.work(slots=1)
    await world.when(await world.put("letter", {"to": "a"}), "done")
    await world.when(await world.put("letter", {"to": 5}), "failed")
    assert [str(one) for one in seen] == [
        "Letter(to='a', copies=1)",
        "Letter(to='a', copies=2)",
        "Done()",
        "Failed(message='payload: to: expected `str`, got `int`')",
    ]


async def test_prices_are_functions_of_the_object(world: World) -> None:
    world.handlers.limit("pages", capacity=5, refill_per_s=0.001)
    ran: list[int] = []

    @world.handlers.handler("print", rate_limit="pages", cost=lambda letter: letter.copies)
    async def print_it(letter: Letter) -> None:
        ran.append(letter.copies)

    await world.work(slots=2)
    await world.when(await world.put("print", {"to": "a", "copies": 3}), "done")
    bad = await world.put("print", {"to": "a", "copies": "3"})
    await world.when(bad, "failed")
    assert (await world.row(bad)).last_error == "payload: copies: expected `int`, got `str`"
    waits = await world.put("print", {"to": "a", "copies": 3})
    await world.when(await world.put("print", {"to": "a", "copies": 2}), "done")
    assert (await world.row(waits)).status == "pending"
    assert ran == [3, 2]


async def test_bulks_are_made_of_requests(world: World) -> None:
    total = 0

    @world.handlers.handler("note", queue="default")
    async def note(note: Note) -> None:
        nonlocal total
        total += len(note.text)

    runtime = await world.work(slots=4)
    made = await runtime.enqueue_bulk([note.request(Note("x" * n)) for n in range(5)])
    await asyncio.gather(*(world.when(one.id, "done") for one in made))
    assert total == 10
    assert note.request(Note("x")) == EnqueueRequest("note", {"text": "x"}, queue="default")
