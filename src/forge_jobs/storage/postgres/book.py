"""The book of statements as PostgreSQL reads it.

The shared statements are written once for all backends; three things are put into PostgreSQL's words when they are
read, before anything runs: tables named `forge_jobs` are `jobs` in our schema, `json_each` is our function of a list,
and a parameter `:limit` is `%(limit)s` with its type, which a server that plans before it sees values must know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from forge_jobs.storage.sql.book import load_book

PACKAGE: Final = "forge_jobs.storage.postgres"
_TEXT: Final = [
    "id",
    "ids",
    "queue",
    "queues",
    "name",
    "kind",
    "kinds",
    "key",
    "keys",
    "host",
    "label",
    "info",
    "status",
    "statuses",
    "dead_reason",
    "dead_reasons",
    "tag",
    "search",
    "error",
    "traceback",
    "message",
    "kind_of_error",
    "process",
    "was_status",
    "before",
    "after",
    "actor",
    "role",
    "address",
    "surface",
    "action",
    "target",
    "outcome",
    "request_id",
    "by",
    "claims",
    "slots",
    "rows",
    "holder",
    "scope",
    "scopes",
    "template",
    "settings",
    "state",
    "declaration",
    "edited",
    "reason",
    "job_id",
    "parent",
    "schedule",
    "wish",
    "metric",
    "metrics",
    "redact",
]
_BIGINT: Final = [
    "now",
    "limit",
    "seq",
    "attempt",
    "attempts",
    "crashes",
    "throttles",
    "fence",
    "was_fence",
    "alone",
    "waiting",
    "finished",
    "cancel_requested",
    "due_in",
    "at",
    "stale",
    "silent",
    "since",
    "until",
    "grace",
    "priority",
    "count",
    "signal",
    "max_workers",
    "backoff_enabled",
    "cool_down",
    "max_pending",
    "throttle_attempts",
    "throttled_until",
    "token",
    "ttl",
    "share",
    "open",
    "per_key",
    "version",
    "revision",
    "next_fire_at",
    "fired_at",
    "fire_at",
    "scheduled_at",
    "expires_at",
    "max_attempts",
    "through",
    "was",
    "anew",
    "forgive",
    "bucket",
    "hidden",
]
_DOUBLE: Final = [
    "current",
    "total",
    "retain_done_days",
    "retain_dead_days",
    "backoff_base_s",
    "backoff_cap_s",
    "backoff_jitter",
    "capacity",
    "refill_per_s",
]
TYPES: Final = {
    **dict.fromkeys(_TEXT, "text"),
    **dict.fromkeys(_BIGINT, "bigint"),
    **dict.fromkeys(_DOUBLE, "double precision"),
}
"""What each parameter of the book is, by its name."""

_TOKENS = re.compile(
    r"(?P<comment>--[^\n]*)"
    r"|CAST\(:(?P<typed>[a-z_]+) AS (?P<type>[a-z ]+)\)"
    r"|(?<!:):(?P<parameter>[a-z_]+)"
    r"|\bforge_(?P<table>[a-z_]+)"
    r"|\b(?P<each>json_each)\("
    r"|(?P<percent>%)"
)


def load(schema: str) -> Mapping[str, str]:
    """All statements, for psycopg."""
    overlay = files(PACKAGE).joinpath("overlay.sql")
    return {name: translate(sql, schema) for name, sql in load_book(overlay, "exchange").items()}


def translate(sql: str, schema: str) -> str:
    """One statement in PostgreSQL's words and psycopg's placeholders.

    Raises:
        RuntimeError: a parameter has no known type.
    """

    def word(found: re.Match[str]) -> str:
        match found.lastgroup:
            case "type":
                return f"CAST(%({found['typed']})s AS {found['type']})"
            case "parameter":
                name = found["parameter"]
                if name not in TYPES:
                    raise RuntimeError(f"the type of the parameter :{name} is not known; add it to TYPES")
                return f"CAST(%({name})s AS {TYPES[name]})"
            case "table":
                return f"{schema}.{found['table']}"
            case "each":
                return f"{schema}.each("
            case "percent":
                return "%%"
            case _:
                return ""  # a comment: whoever reads the server's log has the file

    return _TOKENS.sub(word, sql).strip()
