"""What is answered when a request is refused: RFC 9457 problems with stable codes, never a driver's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.exceptions import HTTPException

from forge_jobs.storage.error import (
    Busy,
    ConfigError,
    DedupeConflict,
    ForgeError,
    IdReused,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    QueueFull,
    QueueInUse,
    ReadOnly,
    ScheduleExists,
    StoreFull,
)

STATUS_OF: Final[Mapping[str, int]] = {
    "validation": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "read_only": 403,
    "cross_origin": 403,
    "host_not_allowed": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "conflict": 409,
    "id_reused": 409,
    "dedupe_conflict": 409,
    "slot_held": 409,
    "count_changed": 409,
    "queue_in_use": 409,
    "precondition_failed": 412,
    "payload_too_large": 413,
    "uri_too_long": 414,
    "unsupported_media_type": 415,
    "rate_limited": 429,
    "queue_full": 429,
    "headers_too_large": 431,
    "internal": 500,
    "store_unavailable": 503,
    "store_busy": 503,
    "store_full": 507,
}
"""Every code that there is, with its status."""

TITLES: Final[Mapping[int, str]] = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 409: "Conflict", 412: "Precondition Failed", 413: "Content Too Large",
    414: "URI Too Long", 415: "Unsupported Media Type", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable",
    507: "Insufficient Storage",
}  # fmt: skip
CODE_OF_STATUS: Final[Mapping[int, str]] = {400: "validation", 404: "not_found", 405: "method_not_allowed"}
RETRY_AFTER_S: Final = {"store_busy": 1, "store_unavailable": 5, "queue_full": 5, "rate_limited": 60}
DETAIL_LENGTH: Final = 1_000


class Problem(HTTPException):
    """A request that is refused, with the code that programs branch on. `current`: what is stored instead of what the
    caller took for stored."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        reason: str | None = None,
        headers: Mapping[str, str] | None = None,
        current: Any = None,
    ) -> None:
        more = dict(headers or {})
        if code in RETRY_AFTER_S:
            more.setdefault("Retry-After", str(RETRY_AFTER_S[code]))
        super().__init__(STATUS_OF[code], detail, more)
        self.code = code
        self.field = field
        self.reason = reason
        self.current = current


def document(problem: Problem, request_id: str) -> dict[str, Any]:
    """The body of a problem."""
    shown: dict[str, Any] = {
        "type": f"urn:forge-jobs:problem:{problem.code}",
        "title": TITLES[problem.status_code],
        "status": problem.status_code,
        "code": problem.code,
        "detail": clean(problem.detail),
        "request_id": request_id,
    }
    if problem.field:
        shown["field"] = clean(problem.field)
    if problem.reason:
        shown["reason"] = problem.reason
    if problem.current is not None:
        shown["current"] = problem.current
    return shown


def invalid(detail: str, *, field: str, reason: str) -> Problem:
    """A request that breaks a rule."""
    return Problem("validation", detail, field=field, reason=reason)


def problem_of(error: ForgeError) -> Problem:
    """What a caller is told of an error of ours. A store's trouble is told without the driver's words."""
    match error:
        case InvalidInput(reason="payload_too_large"):
            return Problem("payload_too_large", str(error), field=error.field, reason=error.reason)
        case InvalidInput():
            return invalid(str(error), field=_outer(error.field), reason=error.reason)
        case ConfigError():
            return invalid(str(error), field="", reason="invalid")
        case NotFound():
            return Problem("not_found", str(error))
        case IdReused():
            return Problem("id_reused", str(error), field="id")
        case DedupeConflict():
            return Problem("dedupe_conflict", str(error), field="dedupe_key")
        case QueueFull():
            return Problem("queue_full", str(error), field="queue")
        case QueueInUse():
            return Problem("queue_in_use", str(error))
        case ScheduleExists():
            return Problem("conflict", str(error), field="name", reason="exists")
        case Busy():
            return Problem("store_busy", "the store is busy; nothing was changed, try again in a moment")
        case StoreFull():
            return Problem("store_full", "the store has no space left; nothing was changed")
        case ReadOnly():
            return Problem("read_only", str(error), reason="read_only")
        case OutcomeUnknown():
            return Problem(
                "store_unavailable",
                "the store's answer was lost, so the change may or may not have happened; look before you repeat it",
                reason="outcome_unknown",
            )
    return Problem("store_unavailable", "the store does not answer as it should; the server's log says why")


_REASONS: Final[Mapping[str, str]] = {
    "missing": "missing_field",
    "extra_forbidden": "unknown_field",
    "literal_error": "invalid_value",
    "enum": "invalid_value",
    "greater_than": "out_of_range",
    "greater_than_equal": "out_of_range",
    "less_than": "out_of_range",
    "less_than_equal": "out_of_range",
    "finite_number": "out_of_range",
    "too_long": "out_of_range",
    "too_short": "out_of_range",
    "string_too_long": "out_of_range",
    "string_too_short": "out_of_range",
    "string_pattern_mismatch": "invalid_value",
    "value_error": "invalid_value",
}


def problem_of_validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """The first thing that is wrong with a request, by where it stands."""
    error = min(errors, key=lambda one: one["type"] in ("missing", "extra_forbidden"))
    if len(errors) > 1:
        error = next((one for one in errors if one["type"] == "extra_forbidden"), error)
    place, *path = error["loc"]
    field = ".".join(str(part) for part in path if not isinstance(part, int)) or str(place)
    cause = (error.get("ctx") or {}).get("error")
    reason = getattr(cause, "reason", None) or _REASONS.get(error["type"], "invalid_type")
    if place == "query" and reason in ("unknown_field", "invalid_type"):
        reason = "unknown_parameter" if reason == "unknown_field" else reason
    if place == "body" and not path:
        if error["type"] == "missing":
            return invalid("a JSON object is needed as body", field="body", reason="invalid_json")
        return invalid("the body is not a JSON object", field="body", reason="body_not_object")
    said = str(cause) if cause is not None else f"{error['msg'][:1].lower()}{error['msg'][1:]}"
    if reason in ("unknown_field", "unknown_parameter"):
        said = "there is no such field" if place == "body" else "there is no such parameter"
    given = (
        "" if reason in ("missing_field", "unknown_field", "unknown_parameter") else f" {_short(error.get('input'))}"
    )
    return invalid(f"{field}{given}: {said}", field=field, reason=reason)


def clean(text: str) -> str:
    """Text that UTF-8 can carry, cut where it is long."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= DETAIL_LENGTH else text[: DETAIL_LENGTH - 1] + "…"


def _short(value: Any) -> str:
    shown = ascii(value) if not isinstance(value, int) or abs(value) < 10**30 else "that number"
    return shown if len(shown) <= 80 else shown[:77] + "…"


def _outer(field: str) -> str:
    """`payload.a[0]` is about the field `payload`; the message names the place in it."""
    return field.split(".")[0].split("[")[0]
