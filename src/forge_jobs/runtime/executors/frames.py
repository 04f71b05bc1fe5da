"""What a worker and the child that runs its handlers say to each other: JSON in frames, each with its length before it.

    worker → child    Hello, once; then RunJob, Cancel, Sample, Reply
    child → worker    Ready or Unready, once; then Began and Ended for each RunJob, between them Progress, LogLine,
                      Call, and Stack for each Sample

Everything is plain values. Nothing that arrives is imported, evaluated or unpickled; names of errors are looked up in
the list of this project's own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import msgspec

from forge_jobs.storage.error import ForgeError, InvalidInput, StorageError
from forge_jobs.storage.types.job import JobRecord

FRAME_BYTES: Final = 2 * 1024 * 1024
"""The longest frame."""
LENGTH: Final = struct.Struct("!I")
CHILD_READS: Final = 3
CHILD_WRITES: Final = 4


class Hello(msgspec.Struct, tag=True):
    """Which registry to import, as `MODULE:REGISTRY`, and from which level on log lines are wanted."""

    registry: str
    log_level: int


class RunJob(msgspec.Struct, tag=True):
    """Run this job. `number` is of this run, and comes back in its `Ended`."""

    number: int
    job: JobRecord
    process_id: str
    host_id: str
    timeout_s: float | None


class Cancel(msgspec.Struct, tag=True):
    """Ask the handler of run `number` to stop."""

    number: int
    reason: str


class Sample(msgspec.Struct, tag=True):
    """Say where the handler of run `number` is."""

    number: int


class WireError(msgspec.Struct):
    """An error of this project by its name, its message, and what it holds."""

    name: str
    message: str
    fields: dict[str, Any] = {}


class Reply(msgspec.Struct, tag=True):
    """The answer to `Call` `number`."""

    number: int
    value: Any = None
    error: WireError | None = None


class Ready(msgspec.Struct, tag=True):
    """The registry is imported; the kinds in it."""

    kinds: list[str]


class Unready(msgspec.Struct, tag=True):
    """The registry cannot be imported."""

    message: str


class Began(msgspec.Struct, tag=True):
    """The handler of run `number` is about to be called: from here on a death is a crash of its job."""

    number: int


class Progress(msgspec.Struct, tag=True):
    current: float
    total: float | None
    message: str | None


class LogLine(msgspec.Struct, tag=True):
    """A record of a logger of the child's."""

    logger: str
    level: int
    message: str


class Stack(msgspec.Struct, tag=True):
    """The frames of the handler of run `number`."""

    number: int
    lines: list[str]


class Call(msgspec.Struct, tag=True):
    """Do this with the job's context, and reply."""

    number: int
    verb: str
    arguments: list[Any]


class Ended(msgspec.Struct, tag=True):
    """What became of run `number`.

    `answer` is done, throttled, failed, dead, cancelled (CancelledError was raised), odd (no outcome), or raised.
    `final`: what was raised ends the job. `delay_s`: what the kind's own backoff makes of it.
    """

    number: int
    answer: str
    message: str = ""
    traceback: str | None = None
    retry_after_s: float | None = None
    cool_down: bool = True
    final: bool = False
    delay_s: float | None = None


ToChild: TypeAlias = Hello | RunJob | Cancel | Sample | Reply
FromChild: TypeAlias = Ready | Unready | Began | Progress | LogLine | Stack | Call | Ended
to_child: Final = msgspec.json.Decoder(ToChild)
from_child: Final = msgspec.json.Decoder(FromChild)
_encode: Final = msgspec.json.Encoder(enc_hook=repr).encode


class FrameTooLong(InvalidInput):
    """A message is longer than a frame may be."""


class BrokenStream(Exception):
    """What arrives is no frame of ours; what follows cannot be trusted."""


def pack(message: ToChild | FromChild) -> bytes:
    """The message as a frame.

    Raises:
        FrameTooLong: it does not fit.
    """
    body = _encode(message)
    if len(body) > FRAME_BYTES:
        raise FrameTooLong(
            f"{len(body)} bytes are more than the {FRAME_BYTES} that a worker and its child send at once",
            reason="too_large",
        )
    return LENGTH.pack(len(body)) + body


class Frames:
    """Puts frames together from chunks. Holds one unfinished frame and a chunk."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that `data` finishes.

        Raises:
            BrokenStream: one says that it is longer than a frame may be.
        """
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if length > FRAME_BYTES:
                raise BrokenStream(f"a frame of {length} bytes; the limit is {FRAME_BYTES}")
            end = LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[LENGTH.size : end])
            del self._buffer[:end]
            yield body


def wire_error(error: BaseException) -> WireError:
    """The error as values. One that is none of this project's becomes a `StorageError` with its text."""
    if isinstance(error, ForgeError) and type(error).__name__ in _ERRORS:
        return WireError(type(error).__name__, str(error), dict(vars(error)))
    return WireError("StorageError", f"{type(error).__name__}: {error}")


def error_of(wire: WireError) -> ForgeError:
    """The error that was sent."""
    kind = _ERRORS.get(wire.name, StorageError)
    error = kind.__new__(kind)
    error.args = (wire.message,)
    vars(error).update(wire.fields)
    return error


def _all_errors(kind: type[ForgeError]) -> Iterator[tuple[str, type[ForgeError]]]:
    yield kind.__name__, kind
    for below in kind.__subclasses__():
        if below.__module__ == ForgeError.__module__:
            yield from _all_errors(below)


_ERRORS: Final = dict(_all_errors(ForgeError))
