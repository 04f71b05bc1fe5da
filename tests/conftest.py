"""What every test begins with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forge_jobs.repeats import REPEATS


@pytest.fixture(autouse=True)
def _warnings_pass() -> Iterator[None]:
    """What another test warned of is no repetition."""
    REPEATS.forget()
    yield
