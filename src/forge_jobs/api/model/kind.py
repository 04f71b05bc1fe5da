"""Kinds in answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from forge_jobs.api.model.common import Shown


class KindOfQueue(Shown):
    """The jobs of a kind in one queue that are not done. `served`: a live worker of the queue has a handler for it."""

    queue: str
    waiting: int
    in_progress: int
    dead: int
    served: bool


class KindWorker(Shown):
    """A live worker that has a handler for the kind."""

    host_id: str
    worker: str
    queues: list[str]


class KindRow(Shown):
    """A kind of jobs. `declared`: a worker told what its code says of it. `served`: a live worker has a handler for
    it, in every queue that has jobs of it. `rate_limit` is the scope that its runs are paid from; with
    `paid_by_payload` each payload decides. `payload_hidden`: payloads and errors are hidden. `workers` are at most
    100."""

    kind: str
    description: str
    declared: bool
    executor: str | None
    rate_limit: str | None
    paid_by_payload: bool
    payload_hidden: bool
    served: bool
    queues: list[KindOfQueue]
    waiting: int
    in_progress: int
    dead: int
    workers: list[KindWorker]
    workers_total: int


class Declaration(Shown):
    """What code says of a kind. `schema` is the JSON Schema of its payloads, `{}` takes everything; null if there is
    none, or one that is too large. What is null of the options is not given."""

    kind: str
    executor: str
    description: str
    # The name `schema` is taken by pydantic itself.
    schema_: dict[str, Any] | None = Field(alias="schema")
    queue: str | None
    rate_limit: str | None
    cost: float | None
    paid_by_payload: bool
    max_attempts: int | None
    timeout_s: float | None
    max_crashes: int | None
    bad_payload: str
    redact: list[str]
    payload_view: str


class KindDetail(KindRow):
    """A kind with its declaration, the newest that a worker told. `redact` are the keys whose values are hidden besides
    the usual ones. `hides_more_than_code`: code declared more once, which applies until it is reset."""

    declaration: Declaration | None
    redact: list[str]
    payload_view: Literal["redacted", "hidden"]
    hides_more_than_code: bool
    declared_at: datetime | None
    declared_by: str | None
    declared_by_label: str | None
