"""What code says of a kind of jobs, for those who look at its jobs from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from forge_jobs import limits
from forge_jobs.names import check_name
from forge_jobs.storage.error import InvalidInput

PayloadView: TypeAlias = Literal["redacted", "hidden"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KindDeclaration:
    """A kind as the code of a worker has it. Durations are seconds.

    `schema` is the JSON Schema of its payloads, `{}` takes everything; None if it has none or one that is too large.
    `rate_limit` is the scope that its runs are paid from, None too with `paid_by_payload`, where each payload decides.
    What is None of `max_attempts`, `timeout_s` and `max_crashes` is not given. `redact` are further keys whose values
    are hidden from people, `payload_view` is `hidden` if payloads and errors are hidden as a whole.
    """

    kind: str
    executor: str = "async"
    description: str = ""
    schema: dict[str, Any] | None = field(default_factory=dict)
    queue: str | None = None
    rate_limit: str | None = None
    cost: float | None = None
    paid_by_payload: bool = False
    max_attempts: int | None = None
    timeout_s: float | None = None
    max_crashes: int | None = None
    bad_payload: str = "failed"
    redact: tuple[str, ...] = ()
    payload_view: PayloadView = "redacted"

    def __post_init__(self) -> None:
        check_name(self.kind, "kind")
        check_redact(self.redact)
        check_payload_view(self.payload_view)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind as the store knows it.

    `declaration` is what the worker said that told something new last, at `declared_at`; `declared_by` is its host id.
    `redact` and `payload_view` are what applies: all that was ever declared, until an operator resets it to the code.
    """

    declaration: KindDeclaration
    redact: tuple[str, ...]
    payload_view: PayloadView
    declared_at: datetime
    declared_by: str

    @property
    def kind(self) -> str:
        return self.declaration.kind

    @property
    def hides_more_than_code(self) -> bool:
        """Whether rules apply that the newest declaration does not have."""
        own = self.declaration
        return not set(self.redact) <= set(own.redact) or self.payload_view != own.payload_view


def check_redact(keys: object) -> None:
    """Raises `InvalidInput` if these cannot be keys to hide."""
    if not isinstance(keys, tuple) or not all(isinstance(key, str) and key.isprintable() and key for key in keys):
        raise InvalidInput(
            f"redact {keys!r} must be a list of keys in printable characters", field="redact", reason="invalid_type"
        )
    longest = max(map(len, keys), default=0)
    if len(keys) > limits.REDACT_KEYS or longest > limits.NAME_LENGTH:
        raise InvalidInput(
            f"redact has {len(keys)} keys of up to {longest} characters; at most {limits.REDACT_KEYS} of "
            f"{limits.NAME_LENGTH} characters are taken. payload_view='hidden' hides all",
            field="redact",
            reason="out_of_range",
        )


def check_payload_view(view: object) -> None:
    """Raises `InvalidInput` if there is no such view."""
    if view not in ("redacted", "hidden"):
        raise InvalidInput(f"payload_view {view!r} must be 'redacted' or 'hidden'", field="payload_view")
