"""All measures, in the order in which they are taken, and what each number is held against on each backend."""

from __future__ import annotations

from typing import Final

from forge_jobs.bench import drain, enqueue
from forge_jobs.bench.claim import claim_after_churn, claim_at_1m, claim_blocked, claim_future_band
from forge_jobs.bench.idle import idle
from forge_jobs.bench.measure import Goal, Measure, Number, Target
from forge_jobs.bench.pickup import pickup, pickup_other_process
from forge_jobs.bench.purge import claim_during_purge
from forge_jobs.bench.sqlite.generic import raw_drain_16col, raw_enqueue_16col
from forge_jobs.storage.open import Backend

RATE: Final = "jobs/s"
NO_GOAL: Final = Goal()
FLAT: Final = Goal(Target(bound=1.5, at_most=True))
"""A claim's time beside a large backlog, as a multiple of its time beside a small one."""

CALM: Final = Goal(Target(bound=2, at_most=True))
"""The slowest claims while others work, as a multiple of those while nobody does."""


def _at_least(ratio: float) -> Target:
    return Target(bound=ratio)


def _below(bound: float) -> Goal:
    return Goal(Target(bound=bound, at_most=True, of_value=True))


# What each should reach. On SQLite concurrent callers pay for checking each request alone, hence their lower share, and
# single commits are mostly the disk, hence their higher one. On PostgreSQL a round trip costs more than a check, so
# many callers are held against one who waits for each commit, and a second process against the first.
MEASURES: Final = (
    Measure((Number("drain", RATE, Goal(_at_least(0.5), drain.bare), Goal(_at_least(0.55), drain.bare)),), drain.drain),
    Measure((Number("drain_10", RATE, Goal(_at_least(3), drain.bare_one_by_one)),), drain.drain_10),
    Measure(
        (Number("drain_2p", RATE, Goal(_at_least(0.5), drain.bare), Goal(_at_least(1), drain.one_process)),),
        drain.drain_2p,
    ),
    Measure((Number("statements_per_job", "statements", postgres=_below(0.05)),), drain.statements_per_job),
    Measure((Number("raw_drain_16col", RATE, NO_GOAL),), raw_drain_16col),
    Measure(
        (
            Number(
                "enqueue_one",
                RATE,
                Goal(_at_least(0.6), enqueue.bare_one_by_one),
                Goal(limit=enqueue.bare_one_by_one),
            ),
        ),
        enqueue.enqueue_one,
    ),
    Measure(
        (
            Number(
                "enqueue_concurrent",
                RATE,
                Goal(_at_least(0.3), enqueue.bare_batches),
                Goal(_at_least(8), enqueue.bare_one_by_one),
            ),
        ),
        enqueue.enqueue_concurrent,
    ),
    Measure(
        (
            Number(
                "enqueue_bulk",
                RATE,
                Goal(_at_least(0.5), enqueue.bare_bulk),
                Goal(_at_least(0.5), enqueue.bare_bulk),
            ),
        ),
        enqueue.enqueue_bulk,
    ),
    Measure((Number("raw_enqueue_16col", RATE, NO_GOAL),), raw_enqueue_16col),
    Measure(
        (Number("pickup_p50", "ms", _below(2), _below(3)), Number("pickup_p99", "ms", _below(12), _below(10))), pickup
    ),
    Measure(
        (
            Number("pickup_other_process_p50", "ms", _below(5), _below(3)),
            Number("pickup_other_process_p99", "ms", _below(25), _below(10)),
        ),
        pickup_other_process,
    ),
    Measure((Number("claim_at_1m", "ms", FLAT, FLAT),), claim_at_1m),
    Measure((Number("claim_future_band", "ms", FLAT, FLAT),), claim_future_band),
    Measure((Number("claim_blocked", "ms", FLAT, FLAT),), claim_blocked),
    Measure((Number("claim_after_churn", "ms", postgres=FLAT),), claim_after_churn),
    Measure((Number("claim_during_purge", "ms", CALM, CALM),), claim_during_purge),
    Measure((Number("idle_rss", "MiB", _below(42), NO_GOAL), Number("idle_cpu", "%", _below(3), NO_GOAL)), idle),
)


def names_on(backend: Backend) -> tuple[str, ...]:
    """The numbers that are taken on a backend."""
    return tuple(number.name for measure in MEASURES for number in measure.numbers_on(backend))
