"""Small builders: a legal value of everything a store is asked with, so that a test names only what it is about."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from forge_jobs.storage.protocol import ClaimRequest
from forge_jobs.storage.types.finalize import Crashed, Dead, ErrorText, Failed, Throttled
from forge_jobs.storage.types.job import EnqueueRequest, ErrorKind
from forge_jobs.storage.types.process import ProcessInfo, ProcessState
from forge_jobs.storage.types.rate_limit import Gate

QUEUE: Final = "mail"
KIND: Final = "send"
HOST: Final = "01J0000000000000000000000A"
OTHER_HOST: Final = "01J0000000000000000000000B"


def make_request(kind: str = KIND, payload: Any = None, *, queue: str | None = QUEUE, **fields: Any) -> EnqueueRequest:
    """A request for one job; `fields` are those of `EnqueueRequest`."""
    return EnqueueRequest(kind, payload, queue=queue, **fields)


def make_claim(
    limit: int = 1,
    *,
    queue: str = QUEUE,
    kinds: tuple[str, ...] = (KIND,),
    host_id: str = HOST,
    alone: bool = False,
    alone_kinds: tuple[str, ...] = (),
    gates: tuple[Gate, ...] = (),
) -> ClaimRequest:
    """A wish for `limit` jobs, with as many slots of `host_id`."""
    slots = tuple(f"{queue}-{slot}-{host_id}" for slot in range(limit))
    return ClaimRequest(
        queue=queue, kinds=kinds, host_id=host_id, slots=slots, alone=alone, alone_kinds=alone_kinds, gates=gates
    )


def make_process(host_id: str = HOST, **fields: Any) -> ProcessInfo:
    """A worker process that serves one queue; `fields` are those of `ProcessInfo`."""
    given: dict[str, Any] = {
        "label": None,
        "host_name": "host.example",
        "pid": 4711,
        "version": "0.1.0",
        "queues": (QUEUE,),
        "kinds": (KIND,),
        "slots": {QUEUE: 1},
        "running": {},
        "state": ProcessState.RUNNING,
    }
    return ProcessInfo(host_id=host_id, **(given | fields))


def make_failed(message: str = "boom", *, delay: float = 5, traceback: str | None = None) -> Failed:
    """An attempt that failed, due again after `delay` seconds."""
    return Failed(error=ErrorText(message, traceback, ErrorKind.FAILED), delay=timedelta(seconds=delay))


def make_dead(message: str = "hopeless") -> Dead:
    """A handler's verdict that retrying cannot help."""
    return Dead(ErrorText(message, kind=ErrorKind.DEAD))


def make_throttled(delay: float = 30, *, hinted: bool = True, cool_down: bool = True) -> Throttled:
    """A refusal by the upstream, due again after `delay` seconds."""
    return Throttled(delay=timedelta(seconds=delay), hinted=hinted, cool_down=cool_down)


def make_crashed(*, delay: float = 0, max_crashes: int = 3) -> Crashed:
    """The death of the child that ran the job, as its owner saw it."""
    return Crashed(
        error=ErrorText("the child died", kind=ErrorKind.CRASH),
        delay=timedelta(seconds=delay),
        max_crashes=max_crashes,
    )
