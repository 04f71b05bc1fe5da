"""Every fault that `make mutants` puts into the source still has its place there."""

from __future__ import annotations

import pytest

from mutants.catch import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_a_mutant_changes_the_source(mutant: Mutant) -> None:
    for file, before, after in mutant.changes:
        assert (ROOT / "src/forge_jobs" / file).read_text().count(before) >= 1, "write it anew"
        assert before != after
    for path in mutant.tests:
        assert path.startswith("-") or "/" not in path or (ROOT / path.partition("::")[0]).exists(), path
