"""The one rule for names of queues, kinds, schedules and scopes."""

from __future__ import annotations

import re

from forge_jobs.limits import NAME_LENGTH
from forge_jobs.storage.error import InvalidName

_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.:-]{{0,{NAME_LENGTH - 1}}}")


def check_name(value: object, field: str) -> str:
    """`value` if it is a legal name: 1 to 128 of `A-Z a-z 0-9 _ . : -`, not starting with `.`, `:` or `-`.

    Raises:
        InvalidName: it is not; the message names the field, the value and the rule.
    """
    if type(value) is str and _NAME.fullmatch(value):
        return value
    shown = repr(value) if len(repr(value)) <= 200 else f"{repr(value)[:150]}… ({len(repr(value))} characters)"
    raise InvalidName(
        f"{field} name {shown} is not legal: 1 to {NAME_LENGTH} of A-Z a-z 0-9 _ . : -, the first a letter, digit or _",
        field=field,
        reason="invalid_type" if not isinstance(value, str) else "invalid_name",
    )
