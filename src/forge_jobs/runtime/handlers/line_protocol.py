"""The words between a worker pool and its children: one JSON object per line. Pure: bytes in, values out.

to the child     {"id":"<job id>","payload":<json>,"kind":"<kind>","attempt":1,"fence":1,"deadline_ms":600000}
                 {"id":"<job id>","event":"cancel","reason":"user|shutdown|pause|timeout|lost_ownership"}
from the child   {"id":"…","status":"ok"}
                 {"id":"…","status":"error","message":"…"}
                 {"id":"…","status":"throttled","retry_after_secs":60}
                 {"id":"…","status":"dead","message":"…"}
                 {"id":"…","event":"progress","current":3,"total":10,"message":"…"}
                 {"id":"…","event":"log","level":"info","message":"…"}
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from forge_jobs.limits import CHILD_LINE_BYTES, PAYLOAD_CEILING_BYTES
from forge_jobs.payload import encode_payload
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.outcome import Dead, Done, Failed, JobOutcome, Throttled

RETRY_AFTER_S: Final = 60
SHOWN: Final = 100
MISSING: Final = object()
_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_decode = msgspec.json.Decoder().decode


class ProtocolError(Exception):
    """A line that no child may write. The message quotes it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of the job."""

    outcome: JobOutcome


@dataclass(frozen=True, slots=True)
class Progress:
    current: Any
    total: Any = None
    message: Any = None


@dataclass(frozen=True, slots=True)
class LogEntry:
    level: int
    message: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event of a newer protocol, to be passed over."""

    event: str


Message: TypeAlias = Answer | Progress | LogEntry | Unknown

_DONE: Final = Answer(Done())


def request_line(
    job_id: str, payload: Any, *, kind: str, attempt: int, fence: int, deadline_s: float | None
) -> bytes | None:
    """The line that asks a child to run a job; None if it were too long. Ids and kinds need no escaping."""
    deadline = "null" if deadline_s is None else int(deadline_s * 1000)
    line = (
        f'{{"id":"{job_id}","payload":{encode_payload(payload, PAYLOAD_CEILING_BYTES)},"kind":"{kind}",'
        f'"attempt":{attempt},"fence":{fence},"deadline_ms":{deadline}}}\n'
    ).encode("ascii")
    return line if len(line) <= CHILD_LINE_BYTES else None


def cancel_line(job_id: str, reason: CancelReason) -> bytes:
    return f'{{"id":"{job_id}","event":"cancel","reason":"{reason.value}"}}\n'.encode("ascii")


def read_line(line: bytes, job_id: str, *, require_id: bool) -> Message:
    """What a child says about the job that it has.

    Raises:
        ProtocolError: it is no JSON object, speaks of another job, or says nothing known.
    """
    try:
        said = _decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise ProtocolError(f"worker wrote a line that is not JSON: {_shown(line)}") from None
    if not isinstance(said, dict):
        raise ProtocolError(f"worker wrote a line that is not a JSON object: {_shown(line)}")
    found = said.get("id", MISSING)
    if found != job_id and (found is not MISSING or require_id):
        what = "no id" if found is MISSING else f"id {repr(found)[:SHOWN]}"
        raise ProtocolError(f"worker out of step: it answered with {what}, its job is {job_id!r}")
    if "status" in said:
        return _answer(said, line)
    if "event" in said:
        return _event(said)
    raise ProtocolError(f"worker wrote neither a status nor an event: {_shown(line)}")


def _answer(said: dict[str, Any], line: bytes) -> Answer:
    match said["status"]:
        case "ok":
            return _DONE
        case "error":
            return Answer(Failed(_text(said.get("message")) or "worker reported error"))
        case "dead":
            return Answer(Dead(_text(said.get("message")) or "worker rejected the job"))
        case "throttled":
            hint = said.get("retry_after_secs")
            return Answer(Throttled(RETRY_AFTER_S if hint is None else hint))
    raise ProtocolError(f"worker answered with an unknown status: {_shown(line)}")


def _event(said: dict[str, Any]) -> Message:
    match said["event"]:
        case "progress":
            return Progress(said.get("current"), said.get("total"), said.get("message"))
        case "log":
            return LogEntry(_LEVELS.get(str(said.get("level")).lower(), logging.INFO), _text(said.get("message")))
    return Unknown(repr(said["event"])[:SHOWN])


def _text(value: Any) -> str:
    """A message, whatever JSON it is."""
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()


def _shown(line: bytes) -> str:
    text = line[: 4 * SHOWN].decode(errors="replace")
    return repr(text[:SHOWN]) + ("…" if len(line) > SHOWN else "")
