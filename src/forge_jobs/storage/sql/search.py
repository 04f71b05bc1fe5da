"""Looking for text in payloads and errors, for which there is no index: stretch after stretch, until the time is up.

Each stretch is a read of its own of about a tenth of a second, so that nobody waits behind a search.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from forge_jobs import limits
from forge_jobs.ids import JobId
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Operation, Row, Tx
from forge_jobs.storage.sql.rows import filter_params
from forge_jobs.storage.types.job import JobFilter

LIST_JOBS = statement("list_jobs")
COUNT_JOBS = statement("count_jobs")
END_OF_STRETCH = statement("end_of_stretch")

ABOVE_ALL: Final = JobId("~")
"""Greater than every id."""
BELOW_ALL: Final = JobId("")
FIRST_ROWS: Final = 500
MOST_ROWS: Final = 100_000
STRETCH_S: Final = 0.1


class Read(Protocol):
    """A driver's way to read."""

    def __call__(self, operation: Operation[Any]) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class Found:
    """Rows that match, newest id first. `stopped_at`: the search came as far as this id; there may be more below it."""

    rows: list[Row]
    stopped_at: JobId | None


@dataclass(frozen=True, slots=True)
class Counted:
    """How many match. `whole`: the count was not cut."""

    total: int
    whole: bool


def is_text_search(chosen: JobFilter) -> bool:
    return chosen.search is not None or chosen.error is not None


class Search:
    """One search, from its beginning for as long as searches may take."""

    def __init__(self, read: Read, chosen: JobFilter) -> None:
        self._read = read
        self._params = filter_params(chosen)
        self._until = time.monotonic() + limits.SEARCH_S

    async def page(self, before: JobId, rows: int) -> Found:
        """Up to so many rows below `before`."""
        found: list[Row] = []

        def look(tx: Tx, stretch: dict[str, Any]) -> None:
            found.extend(tx.rows(LIST_JOBS, {**self._params, **stretch, "limit": rows - len(found)}))

        stopped_at = await self._walk(before, look, lambda: len(found) == rows)
        return Found(found, stopped_at)

    async def count(self) -> Counted:
        """All rows, in what time is left."""
        found = Counter[str]()

        def look(tx: Tx, stretch: dict[str, Any]) -> None:
            found.update(dict(tx.rows(COUNT_JOBS, {**self._params, **stretch})))

        stopped_at = await self._walk(ABOVE_ALL, look, lambda: False)
        return Counted(found.total(), stopped_at is None)

    async def _walk(
        self, before: JobId, look: Callable[[Tx, dict[str, Any]], None], enough: Callable[[], bool]
    ) -> JobId | None:
        """Stretches of ids downwards, one at least, until there are none, it is enough, or the time is up; where it
        stopped then."""
        rows = FIRST_ROWS
        while not enough():
            began = time.monotonic()

            def stretch(tx: Tx, before: JobId = before, rows: int = rows) -> JobId:
                end = tx.row(END_OF_STRETCH, {"before": before, "limit": rows})
                after = BELOW_ALL if end is None else JobId(end[0])
                look(tx, {"before": before, "after": after})
                return after

            before = await self._read(stretch)
            if before == BELOW_ALL:
                return None
            if time.monotonic() >= self._until:
                break
            took_s = max(time.monotonic() - began, STRETCH_S / 4)
            rows = max(min(round(rows * STRETCH_S / took_s), MOST_ROWS), 1)
        return before
