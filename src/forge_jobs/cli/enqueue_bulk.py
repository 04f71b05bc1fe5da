"""`forge-jobs enqueue --bulk`: a file of jobs, a thousand lines a transaction."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, BinaryIO, Final

import click

from forge_jobs import limits
from forge_jobs.cli import output
from forge_jobs.cli.errors import INTERRUPTED, Failure, Usage, describe
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import run, settings_of
from forge_jobs.clock import parse_duration, parse_instant
from forge_jobs.payload import parse_json
from forge_jobs.runtime.routing import DefaultRouter
from forge_jobs.storage.error import (
    DedupeConflict,
    ForgeError,
    IdReused,
    InvalidInput,
    InvalidPayload,
    OutcomeUnknown,
)
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.request import check_request
from forge_jobs.storage.types.job import Deduped, EnqueueOutcome, EnqueueRequest

CHUNK_BYTES: Final = limits.BULK_PAYLOAD_BYTES // 2
"""A transaction holds the store's only lock: very large lines share it with fewer neighbours."""
LINE_OVERHEAD: Final = 64 * 1024
FIELDS: Final = tuple(f.name for f in fields(EnqueueRequest))
DURATIONS: Final = frozenset({"delay", "ttl", "unique_for"})
INSTANTS: Final = frozenset({"run_at", "expires_at"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOrder:
    """A file to enqueue. `queue` is that of lines which name none."""

    file: str
    skip: int
    atomic: bool
    queue: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the file as a request."""

    number: int
    size: int
    request: EnqueueRequest


@dataclass(slots=True)
class Tally:
    """How far a file has come: its lines up to `done` are in the store."""

    done: int
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, chunk: list[Line], outcomes: list[EnqueueOutcome]) -> None:
        self.counts.update(_word(outcome) for outcome in outcomes)
        self.done = chunk[-1].number


def enqueue_file(ctx: click.Context, order: BulkOrder, *, as_json: bool) -> None:
    """Add the jobs of a file, and tell how many."""
    tally = Tally(done=order.skip)
    settings = settings_of(ctx)
    with _open(order.file) as file:
        chunks = _chunks(_lines(file, order, settings), order)
        try:
            first = next(chunks, [])
            _check(first, settings)  # a fault in the first lines makes no store

            async def work(storage: Storage, settings: Settings) -> None:
                with _progress(file) as advance:
                    for chunk in itertools.chain([first] if first else [], chunks):
                        tally.add(chunk, await _send(storage, chunk, settings))
                        advance()

            run(ctx, work, create=True)
        except (ForgeError, Failure, OSError) as error:
            message, _, code = describe(error)
            raise _stopped(message, code, order, tally, unknown=isinstance(error, OutcomeUnknown)) from error
        except KeyboardInterrupt as error:
            raise _stopped("interrupted", INTERRUPTED, order, tally, unknown=True) from error
    counts = tally.counts
    summary = {"lines": counts.total(), **{word: counts[word] for word in ("enqueued", "repeated", "deduped")}}
    if as_json:
        output.document(summary)
    else:
        parts = [
            f"{word} {count}" for word, count in summary.items() if word != "lines" and (count or word == "enqueued")
        ]
        output.line(", ".join(parts))


def _stopped(message: str, code: int, order: BulkOrder, tally: Tally, *, unknown: bool) -> Failure:
    """What to tell when the file was not finished: which lines are in the store, and how to go on."""
    if order.atomic:
        hint = "whether the lines are in the store is not known" if unknown else "nothing was added"
    else:
        added = (
            f"lines {order.skip + 1} to {tally.done} are in the store"
            if tally.done > order.skip
            else "no line was added"
        )
        hint = f"{added}; go on with --skip {tally.done}" if tally.done else added
        if unknown:
            hint += (
                f"; up to {limits.BULK_CHUNK} lines more may be in the store: a repeat is safe for lines with an `id`"
            )
    return Failure(message, hint, code=code)


async def _send(storage: Storage, chunk: list[Line], settings: Settings) -> list[EnqueueOutcome]:
    try:
        return await storage.jobs.enqueue_bulk([line.request for line in chunk])
    except (DedupeConflict, IdReused) as error:
        guilty = [line.number for line in chunk if _is_about(error, line.request)]
        where = f"line {guilty[-1]}" if guilty else f"lines {chunk[0].number} to {chunk[-1].number}"
        raise Failure(f"{where}: {error}") from error
    except InvalidInput as error:
        _check(chunk, settings)  # names the line
        raise Usage(f"lines {chunk[0].number} to {chunk[-1].number}: {error}") from error


def _check(chunk: list[Line], settings: Settings) -> None:
    """Refuse the first line that the store would refuse, by its number."""
    for line in chunk:
        try:
            check_request(line.request, payload_max=settings.store.payload_max)
        except InvalidInput as error:
            raise Usage(f"line {line.number}: {error}") from error


def _is_about(error: DedupeConflict | IdReused, request: EnqueueRequest) -> bool:
    if isinstance(error, IdReused):
        return request.id is not None and request.id.upper() == error.job_id
    return request.dedupe_key == error.key and request.on_conflict == "error"


def _word(outcome: EnqueueOutcome) -> str:
    if isinstance(outcome, Deduped):
        return "deduped"
    return "repeated" if outcome.repeated else "enqueued"


# Reading


def _chunks(lines: Iterator[Line], order: BulkOrder) -> Iterator[list[Line]]:
    """The lines in portions of one transaction each."""
    most = limits.BULK_REQUESTS if order.atomic else limits.BULK_CHUNK
    chunk: list[Line] = []
    size = 0
    for line in lines:
        if order.atomic and len(chunk) == most:
            raise Usage(f"{order.file} has more than {most} lines, the limit of --atomic", "leave --atomic out")
        if len(chunk) == most or (chunk and not order.atomic and size + line.size > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += line.size
    if chunk:
        yield chunk


def _lines(file: BinaryIO, order: BulkOrder, settings: Settings) -> Iterator[Line]:
    longest = 6 * settings.store.payload_max + LINE_OVERHEAD  # a character may be written as \u0000
    for number in itertools.count(1):
        text = file.readline(longest + 1)
        if not text:
            return
        if number <= order.skip or not text.strip():
            continue
        try:
            if len(text) > longest:
                raise InvalidPayload(
                    f"the line is longer than {longest} bytes", field="body", reason="payload_too_large"
                )
            request = _request(text, order, settings)
        except (InvalidInput, ValueError) as error:
            raise Usage(f"line {number}: {str(error).replace('at line 1 column', 'at column')}") from error
        yield Line(number=number, size=len(text), request=request)


def _request(text: bytes, order: BulkOrder, settings: Settings) -> EnqueueRequest:
    value = parse_json(text)
    if type(value) is not dict:
        raise ValueError(f"is a {_json_name(value)}, not an object with `kind`")
    for key in value:
        if key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, n=1, cutoff=0.5)
            raise ValueError(f"unknown field {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    if "kind" not in value:
        raise ValueError("the field `kind` is missing")
    if value.get("queue") is None:
        value["queue"] = order.queue if order.queue is not None else DefaultRouter().route(value["kind"])
    if value.get("max_attempts") is None:
        value["max_attempts"] = settings.runtime.max_attempts
    for name, given in value.items():
        if isinstance(given, str) and name in DURATIONS:
            value[name] = parse_duration(given)
        elif isinstance(given, str) and name in INSTANTS:
            value[name] = parse_instant(given)
    return EnqueueRequest(value.pop("kind"), **value)


def _json_name(value: Any) -> str:
    names = {list: "list", str: "text", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


@contextlib.contextmanager
def _open(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(name, "rb")  # noqa: SIM115
    except OSError as error:
        raise Usage(f"{name} cannot be read: {error.strerror}") from error
    with file:
        yield file


@contextlib.contextmanager
def _progress(file: BinaryIO) -> Iterator[Callable[[], None]]:
    """A bar on a terminal; its measure is the bytes read."""
    status = os.fstat(file.fileno())
    if not sys.stderr.isatty() or not stat.S_ISREG(status.st_mode):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("enqueue", total=status.st_size)
        yield lambda: bar.update(shown, completed=file.tell())
