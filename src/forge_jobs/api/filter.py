"""Which jobs a request is about, from its parameters or its body."""

from __future__ import annotations

from forge_jobs.api.call import Call
from forge_jobs.api.model.job import FilterBody, JobsQuery
from forge_jobs.api.problem import invalid
from forge_jobs.names import check_name
from forge_jobs.storage.types.job import DeadReason, JobFilter, JobStatus


def job_filter(call: Call, asked: JobsQuery | FilterBody) -> JobFilter:
    """What `asked` names, of what the caller may see.

    Raises:
        Problem, InvalidInput: a value is not legal.
    """
    return JobFilter(
        queues=_queues(call, _names(asked.queue, "queue")),
        kinds=_names(asked.kind, "kind"),
        statuses=_words(asked.status, "status", [word.value for word in JobStatus]),
        dead_reasons=_words(asked.dead_reason, "dead_reason", [word.value for word in DeadReason]),
        key=asked.key,
        tag=asked.tag,
        search=asked.search,
        error=asked.error,
        since=asked.from_,
        until=asked.to,
        process=asked.process,
        parent=asked.parent,
        schedule=asked.schedule,
        fingerprint=getattr(asked, "fingerprint", None),
    )


def _queues(call: Call, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
    own = call.identity.queues
    if own is None:
        return given
    return own if given is None else tuple(name for name in given if name in own)


def _names(values: list[str] | None, field: str) -> tuple[str, ...] | None:
    if values is None:
        return None
    return tuple(check_name(value, field) for value in values if value != "")


def _words(values: list[str] | None, field: str, legal: list[str]) -> tuple[str, ...] | None:
    if values is None:
        return None
    chosen = tuple(value for value in values if value != "")
    for value in chosen:
        if value not in legal:
            raise invalid(
                f"{field} {ascii(value)[:80]} must be one of {', '.join(legal)}", field=field, reason="invalid_value"
            )
    return chosen
