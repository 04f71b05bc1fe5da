"""Errors go from process to process as they are."""

from __future__ import annotations

import copy
import pickle

import pytest

from forge_jobs.storage import error as errors
from forge_jobs.storage.error import (
    DedupeConflict,
    ForgeError,
    ForkedConnection,
    IdReused,
    InvalidPayload,
    OutcomeUnknown,
    QueueFull,
    StoreUnavailable,
    WaitTimeout,
)

SPECIAL = [
    DedupeConflict("key", "id"),
    ForkedConnection(),
    IdReused("id"),
    InvalidPayload("is odd", field="a.b", reason="invalid_type"),
    OutcomeUnknown("lost", ("a", "b")),
    QueueFull("queue", 3),
    StoreUnavailable("gone", fatal=True),
    WaitTimeout("id", "pending", 1.5),
]
PLAIN = [
    kind("text")
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ForgeError) and kind not in map(type, SPECIAL)
]


@pytest.mark.parametrize("error", [*SPECIAL, *PLAIN], ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_pickling_and_copying(error: ForgeError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
