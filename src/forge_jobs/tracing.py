"""Traces through the queue, for programs that use OpenTelemetry.

Nothing needs to be switched on: once the program has set a tracer provider, each enqueue is a span `enqueue <kind>` and
each run a span `run <kind>`, its child across processes. Children of a run are `claim` and `settle`: how its job came
from the store, and how its outcome went there. Without a provider nothing is imported and nothing is recorded.

    from forge_jobs import tracing

    tracing.configure(runs="link", baggage=("tenant",))   # if the defaults do not fit, beside the setup of the provider

It is set for the process, as the provider itself is: jobs are enqueued in many ways, and all of them are to agree.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from forge_jobs import limits
from forge_jobs.ids import new_ids
from forge_jobs.storage.error import ConfigError
from forge_jobs.version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from forge_jobs.storage.types.finalize import FinalizeOutcome
    from forge_jobs.storage.types.job import EnqueueRequest, JobRecord

log = logging.getLogger("forge_jobs.tracing")

SYSTEM: Final = "forge_jobs"
CARRIED: Final = ("traceparent", "tracestate", "baggage")
"""Fields of a job's `trace` that are OpenTelemetry's."""
_MODES: Final = ("child", "link", "off")


@dataclass(slots=True)
class _Settings:
    runs: str = "child"
    baggage: frozenset[str] = frozenset()
    tracer: Tracer | None = None


_settings = _Settings()


def configure(*, runs: Literal["child", "link", "off"] = "child", baggage: Collection[str] = ()) -> None:
    """How this process traces jobs.

    runs: `child` puts a run into the trace of its enqueue, `link` begins a trace of its own that points there, `off`
    makes no spans. baggage: the entries that travel with a job; none by default, since a store keeps them.

    Raises:
        ConfigError: there is no such way.
    """
    if runs not in _MODES:
        raise ConfigError(f"runs {runs!r} must be one of {', '.join(_MODES)}")
    if isinstance(baggage, str):
        raise ConfigError(f"baggage {baggage!r} must be a list of names, e.g. [{baggage!r}]")
    _settings.runs, _settings.baggage = runs, frozenset(baggage)


def tracer() -> Tracer | None:
    """The tracer of the program, if it has set a provider. OpenTelemetry is never imported here: a program that has
    not done so has set none."""
    if _settings.runs == "off":
        return None
    if _settings.tracer is not None:
        return _settings.tracer
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    found: Tracer = trace.get_tracer(SYSTEM, __version__)
    _settings.tracer = found
    return found


def current_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the span at hand, for log lines; nothing if there is none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": format(context.trace_id, "032x"), "span_id": format(context.span_id, "016x")}


# Enqueues


@contextmanager
def enqueuing(requests: Sequence[EnqueueRequest]) -> Iterator[list[EnqueueRequest]]:
    """One span around an enqueue; gives the requests with their ids and with the span in their `trace`.

    A request that brings a `traceparent` keeps it. An error passes on, and is recorded.
    """
    found = tracer()
    if found is None or not requests:
        yield list(requests)
        return
    kinds = sorted({str(request.kind)[: limits.NAME_LENGTH] for request in requests})  # not checked yet
    named = _named(requests)
    span = found.start_span(
        f"enqueue {kinds[0]}" if len(kinds) == 1 else "enqueue",
        kind=_trace().SpanKind.PRODUCER,
        attributes=_enqueue_attributes(named, kinds),
    )
    with _trace().use_span(span, end_on_exit=True):
        carrier = _inject()
        yield [_with_trace(request, carrier) for request in named]


def inherit(request: EnqueueRequest, trace: str | None) -> EnqueueRequest:
    """A follow-up of a job with this `trace`, in a process that makes no spans itself: the trace goes on behind it."""
    if trace is None or tracer() is not None:
        return request
    return _with_trace(request, {name: value for name, value in _read(trace).items() if name in CARRIED})


def _named(requests: Sequence[EnqueueRequest]) -> list[EnqueueRequest]:
    """The requests with ids, which the span names."""
    fresh = new_ids(len(requests))
    return [
        request if request.id is not None else replace(request, id=job_id)
        for request, job_id in zip(requests, fresh, strict=True)
    ]


def _enqueue_attributes(requests: Sequence[EnqueueRequest], kinds: Sequence[str]) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
    }
    queues = {str(request.queue)[: limits.NAME_LENGTH] for request in requests}
    if len(queues) == 1:
        attributes["messaging.destination.name"] = queues.pop()
    if len(kinds) == 1:
        attributes["forge_jobs.kind"] = kinds[0]
    if len(requests) == 1:
        attributes["messaging.message.id"] = str(requests[0].id)
    else:
        attributes["messaging.batch.message_count"] = len(requests)
    return attributes


def _inject() -> dict[str, str]:
    """The current span, and such baggage as may travel."""
    from opentelemetry import baggage
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    context = Context()
    for name, value in baggage.get_all().items():
        if name in _settings.baggage:
            context = baggage.set_baggage(name, value, context)
    W3CBaggagePropagator().inject(carrier, context)
    return carrier


def _with_trace(request: EnqueueRequest, carrier: Mapping[str, str]) -> EnqueueRequest:
    """The request with these fields in its `trace`, as far as there is room; what its caller put there stays."""
    own = request.trace
    if not carrier or not (own is None or (isinstance(own, Mapping) and "traceparent" not in own)):
        return request
    merged = dict(own or {})
    for name in CARRIED:  # the most important first
        if name in carrier:
            larger = {**merged, name: carrier[name]}
            if len(json.dumps(larger, default=str)) <= limits.TRACE_BYTES:
                merged = larger
    return replace(request, trace=merged)


# Runs


class RunSpan:
    """The span of one run, current while its handler is called. Begun and ended in one task."""

    __slots__ = ("_ended_ns", "_span", "_token", "_tracer")

    def __init__(self, found: Tracer, job: JobRecord) -> None:
        self._tracer = found
        self._ended_ns: int | None = None
        context, links = _context_of(job)
        self._span: Span = found.start_span(
            f"run {job.kind}",
            context=context,
            kind=_trace().SpanKind.CONSUMER,
            links=links,
            attributes={
                "messaging.system": SYSTEM,
                "messaging.operation.name": "run",
                "messaging.operation.type": "process",
                "messaging.destination.name": job.queue,
                "messaging.message.id": job.id,
                "forge_jobs.kind": job.kind,
                "forge_jobs.attempt": job.attempts,
                "forge_jobs.fence": job.fence,
                "forge_jobs.wait_s": max(job.started_us - job.scheduled_us, 0) / 1e6,
            },
        )
        from opentelemetry.context import attach

        self._token = attach(_trace().set_span_in_context(self._span, context))

    def end(self, outcome: FinalizeOutcome, error: BaseException | None) -> None:
        """The handler is over."""
        from opentelemetry.context import detach

        trace, name = _trace(), type(outcome).__name__.lower()
        self._span.set_attribute("forge_jobs.outcome", name)
        if name in ("failed", "dead", "crashed"):
            text = getattr(getattr(outcome, "error", None), "message", None)
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, text))
            if error is not None:
                self._span.set_attribute("error.type", type(error).__qualname__)
                self._span.record_exception(error)
        self._ended_ns = time.time_ns()
        self._span.end(self._ended_ns)
        detach(self._token)

    def claimed(self, claim: Exchanged) -> None:
        """A child for the exchange with the store that brought the job."""
        self._add("claim", claim.began_ns, claim.ended_ns, claim.claimed)

    def settled(self, settle: Exchanged, result: str) -> None:
        """A child for the time from the end of the handler until the store had its outcome."""
        began_ns = self._ended_ns if self._ended_ns is not None else settle.began_ns  # an abandoned one is not over
        self._add("settle", began_ns, settle.ended_ns, settle.settled, {"forge_jobs.result": result})

    def _add(self, name: str, began_ns: int, ended_ns: int, jobs: int, more: Mapping[str, Any] | None = None) -> None:
        span = self._tracer.start_span(
            name,
            context=_trace().set_span_in_context(self._span),
            kind=_trace().SpanKind.CLIENT,
            start_time=began_ns,
            attributes={
                "messaging.system": SYSTEM,
                "messaging.operation.name": name,
                "messaging.operation.type": "receive" if name == "claim" else "settle",
                "messaging.batch.message_count": jobs,
                **(more or {}),
            },
        )
        span.end(ended_ns)


@dataclass(frozen=True, slots=True)
class Exchanged:
    """One exchange with the store, which many jobs may share: when it was sent and answered, in ns since 1970, how many
    outcomes it took there and how many jobs it brought."""

    began_ns: int
    ended_ns: int
    settled: int
    claimed: int


def begin_exchange() -> int | None:
    """When an exchange is sent, if this process traces."""
    return None if tracer() is None else time.time_ns()


def end_exchange(began_ns: int, *, settled: int, claimed: int) -> Exchanged:
    """The exchange that was just answered."""
    return Exchanged(began_ns, time.time_ns(), settled, claimed)


def begin_run(job: JobRecord, claim: Exchanged | None = None) -> RunSpan | None:
    """The span of a run, if this process traces. A fault in a tracer never costs the run."""
    found = tracer()
    if found is None:
        return None
    try:
        span = RunSpan(found, job)
    except Exception as error:
        log.warning("trace_fault kind=%s error=%s", job.kind, error)
        return None
    if claim is not None:
        _unharmed(job, lambda: span.claimed(claim))
    return span


def end_run(span: RunSpan, job: JobRecord, outcome: FinalizeOutcome, error: BaseException | None) -> None:
    """The same at its end."""
    _unharmed(job, lambda: span.end(outcome, error))


def end_settle(span: RunSpan, job: JobRecord, settle: Exchanged, result: str) -> None:
    """The same when the store has the outcome; `result` is what it made of it."""
    _unharmed(job, lambda: span.settled(settle, result))


def _unharmed(job: JobRecord, trace: Callable[[], None]) -> None:
    try:
        trace()
    except Exception as fault:
        log.warning("trace_fault kind=%s error=%s", job.kind, fault)


def _context_of(job: JobRecord) -> tuple[Context, list[Any]]:
    """The context that a run goes on in, and what it is linked to."""
    from opentelemetry import baggage
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carried = _read(job.trace)
    came_from = TraceContextTextMapPropagator().extract(carried, Context())
    links = []
    context = came_from
    if _settings.runs == "link":
        context = Context()
        sender = _trace().get_current_span(came_from).get_span_context()
        if sender.is_valid:
            links.append(_trace().Link(sender))
    for name, value in baggage.get_all(W3CBaggagePropagator().extract(carried, Context())).items():
        if name in _settings.baggage:
            context = baggage.set_baggage(name, value, context)
    return context, links


def _read(trace: str | None) -> dict[str, str]:
    """The `trace` of a job as it is stored; whatever was damaged is none."""
    try:
        found = json.loads(trace) if trace else {}
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _trace() -> Any:
    """`opentelemetry.trace`, which is there: a tracer was found."""
    return sys.modules["opentelemetry.trace"]
