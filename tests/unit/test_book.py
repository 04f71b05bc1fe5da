"""Statements with parts in common."""

from __future__ import annotations

import pytest

from forge_jobs.storage.sql.book import parse

FRAGMENT = "-- fragment: mine\n-- About it.\n  AND own = :me\n\n"


def test_a_fragment_takes_the_place_of_its_use() -> None:
    page = FRAGMENT + "-- name: mine\nSELECT 1 WHERE true\n-- use: mine\nLIMIT 1;\n"
    assert parse(page, "page.sql") == {"mine": "SELECT 1 WHERE true\n  AND own = :me\nLIMIT 1"}


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (FRAGMENT + "-- name: a\nSELECT 1\n-- use: yours\n", "page.sql uses the fragment yours"),
        ("-- name: a\nSELECT 1\n-- name: a\nSELECT 2\n", "two statements named a"),
        (FRAGMENT + FRAGMENT, "two fragments named mine"),
    ],
)
def test_what_cannot_be_meant_is_refused(page: str, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        parse(page, "page.sql")
