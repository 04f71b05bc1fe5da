"""The log of `forge_jobs` on stderr: JSON lines off a terminal, text on one, one event a line.

The library logs through the standard `logging` with messages of the form `event key=value …`. Here the template of
such a message gives the fields, so their values keep their types and may hold spaces. Control characters are escaped
and secrets hidden, whatever a handler logs.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from forge_jobs.cli.output import instant
from forge_jobs.redact import HIDDEN, Secrets, is_secret, redact_text
from forge_jobs.text import printable

if TYPE_CHECKING:
    from structlog.typing import Processor, WrappedLogger

ROOT: Final = "forge_jobs"

_SPEC: Final = re.compile(r"(?:(\w+)=)?%(?:%|[-#0 +]*\d*(?:\.\d+)?([diouxXeEfFgGcrsa]))")
_LITERAL: Final = re.compile(r"(\w+)=([^\s%]+)(?=\s|$)")
_EVENT: Final = re.compile(r"([a-z][a-z0-9]*(?:_[a-z0-9]+)+|[a-z]+(?= \w+=))(?::\s+|\s+|$)")
_ERRORS: Final = frozenset({"error", "exception"})
"""Fields with what errors say."""
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


_USUAL: Final = Secrets()


class _OfHandlers:
    """The rules of the handlers that run in this process."""

    secrets: Callable[[], Secrets] = staticmethod(lambda: _USUAL)


def hide_secrets_of(secrets: Callable[[], Secrets]) -> None:
    """Hide from now on also what handlers of this process name; `secrets` gives their rules as they are."""
    _OfHandlers.secrets = staticmethod(secrets)


def talk(level: int) -> None:
    """Let the library's warnings reach the user of a short command, as one plain line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain())
    _install(handler, level)


def log_to_stderr(level: str, format: str) -> None:
    """The log of a long-running command. `format`: `json`, `text`, or `auto` for whichever fits stderr."""
    import structlog

    as_text = format == "text" or (format == "auto" and sys.stderr.isatty())
    colours = as_text and sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    renderers: list[Processor] = (
        [_escape, structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0, sort_keys=False, timestamp_key="ts")]
        if as_text
        else [structlog.processors.JSONRenderer(serializer=_json)]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_read_record],
            pass_foreign_args=True,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    _install(handler, getattr(logging, level.upper()))


def log_the_rest() -> None:
    """Print what other loggers say too, in the same way: of handlers from INFO on, anything else from WARNING on.

    Not if the program set up logging of its own by now: then its lines go where it wants them.
    """
    root, ours = logging.getLogger(), logging.getLogger(ROOT)
    if root.handlers or root.level != logging.WARNING or not ours.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ours.handlers[-1].formatter)
    handler.setLevel(ours.level)
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or hasattr(record, "job_id"))
    root.addHandler(handler)
    root.setLevel(min(ours.level, logging.INFO) if ours.level else logging.INFO)


def fields_of(template: object, arguments: Any, text: str) -> dict[str, Any]:
    """Event, fields and message of a log message `event key=value …`, whose template and arguments made `text`."""
    found = _EVENT.match(text)
    fields: dict[str, Any] = {"event": found[1] if found else text}
    values = {**_literals(template), **_arguments(template, arguments)} if found else {}
    fields.update(values)
    is_sentence = not values or ":" in text[: found.end()] or ";" in str(template) if found else False
    if found is not None and is_sentence and text[found.end() :]:
        fields["message"] = text[found.end() :]
    return fields


def _read_record(logger: WrappedLogger, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A record as one flat mapping, secrets hidden."""
    record: logging.LogRecord = event["_record"]
    fields = fields_of(record.msg, event["positional_args"], event["event"])
    extra = {k: v for k, v in vars(record).items() if k not in _STANDARD and not k.startswith("_")}
    if isinstance(extra.get("fields"), dict):  # the library's own events bring them along
        fields = {"event": extra.pop("event", fields["event"]), **extra.pop("fields")}
    fields.update(extra)
    if record.exc_info and record.exc_info[0] is not None:
        fields["exception"] = logging.Formatter().formatException(record.exc_info)
    secrets, kind = _OfHandlers.secrets(), fields.get("kind")
    shown = {key: _hide_secrets(secrets, kind, key, value) for key, value in fields.items()}
    at = instant(datetime.fromtimestamp(record.created, UTC))
    return {
        "ts": at,
        "level": record.levelname.lower(),
        "event": shown.pop("event"),
        **shown,
        "_record": record,
        "_from_structlog": False,
    }


def _hide_secrets(secrets: Secrets, kind: str | None, key: str, value: Any) -> Any:
    kind = kind or ""  # a line about no kind, such as of the store, is not about what handlers hide
    of_a_lease = key == "token" and not kind  # it only tells one holder from the next
    if value is not None and not of_a_lease and is_secret(key, secrets.of(kind).keys):
        return HIDDEN
    if isinstance(value, (int, float)) or value is None:
        return value
    if key in _ERRORS:
        return (secrets.traceback if key == "exception" else secrets.error)(kind, str(value))
    return secrets.text(kind, str(value))


def _escape(logger: WrappedLogger, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For people: what does not show is escaped; a traceback keeps its lines."""
    return {k: printable(v, newline=k == "exception") if isinstance(v, str) else v for k, v in event.items()}


def _json(event: Any, **options: Any) -> str:
    return json.dumps(event, default=str).replace("\x7f", "\\u007f")  # the one control character that JSON leaves


def _arguments(template: object, arguments: Any) -> dict[str, Any]:
    """The arguments of a template by the key before their place: `worker_started queue=%s` names one `queue`."""
    if not isinstance(template, str) or not isinstance(arguments, tuple):
        return {}
    found: dict[str, Any] = {}
    left = list(arguments)
    for spec in _SPEC.finditer(template):
        if spec[2] is None:
            continue
        value = left.pop(0) if left else None
        if spec[1] is not None:
            found[spec[1]] = round(value, 6) if isinstance(value, float) else value
    return found


def _literals(template: object) -> dict[str, str]:
    """The fields that a template spells out."""
    return dict(_LITERAL.findall(template)) if isinstance(template, str) else {}


def _install(handler: logging.Handler, level: int) -> None:
    logger = logging.getLogger(ROOT)
    for old in list(logger.handlers):
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


class _Plain(logging.Formatter):
    """`warning: …`, without a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {printable(redact_text(record.getMessage()))}"
