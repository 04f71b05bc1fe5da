"""Numbered migrations, each applied once, and the rules about who may work on which schema."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from forge_jobs.storage.error import SchemaMismatch

OLDEST_SERVED: Final = 1
"""The oldest schema version that a program must know to work on the newest schema."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step. `checksum` is of its text: a step that was changed after it was applied is refused."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()[:16]

    def scripted(self, sql: str, table: str, now: str) -> str:
        """`sql`, this step as a backend reads it, and that it was applied, for people who apply it themselves."""
        row = f"({self.version}, '{self.name}', '{self.checksum}', {OLDEST_SERVED}, {now})"
        return f"{sql.rstrip()}\nINSERT INTO {table} (version, name, checksum, serves, applied_at) VALUES {row};\n"


@dataclass(frozen=True, slots=True)
class AppliedStep:
    """What the store remembers of a step: `serves` is the oldest version a program must know to work on it."""

    version: int
    checksum: str
    serves: int


def migrations(package: str) -> list[Migration]:
    """The steps in a backend's `migrations` folder, in order."""
    found = []
    for page in files(package).joinpath("migrations").iterdir():
        number, _, name = page.name.removesuffix(".sql").partition("_")
        if page.name.endswith(".sql"):
            found.append(Migration(int(number), name, page.read_text()))
    return sorted(found, key=lambda step: step.version)


def lacking(known: Iterable[Migration], applied: Iterable[AppliedStep]) -> list[Migration]:
    """The steps that a store lacks.

    Raises:
        SchemaMismatch: it is newer than this program serves, or a step was changed after it was applied.
    """
    steps: Mapping[int, Migration] = {step.version: step for step in known}
    newest = max(steps)
    done = set()
    for step in applied:
        done.add(step.version)
        if step.version > newest and step.serves > newest:
            raise SchemaMismatch(
                f"the database has schema version {step.version}, which needs a program that knows version "
                f"{step.serves}; this one knows {newest}. Upgrade forge-jobs"
            )
        if step.version in steps and steps[step.version].checksum != step.checksum:
            raise SchemaMismatch(
                f"migration {step.version} of the database differs from this program's; it was made by another build"
            )
    return [step for version, step in sorted(steps.items()) if version not in done]
