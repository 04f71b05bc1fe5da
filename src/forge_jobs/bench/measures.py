"""All measures, in the order in which they are taken."""

from __future__ import annotations

from typing import Final

from forge_jobs.bench.claim import claim_at_1m, claim_future_band
from forge_jobs.bench.drain import drain, drain_2p, drain_10, raw_drain_16col
from forge_jobs.bench.enqueue import enqueue_bulk, enqueue_concurrent, enqueue_one, raw_enqueue_16col
from forge_jobs.bench.idle import idle
from forge_jobs.bench.measure import Measure, Number, Target
from forge_jobs.bench.pickup import pickup, pickup_other_process

RATE: Final = "jobs/s"
FLAT: Final = Target(bound=1.5, at_most=True)
"""A claim's time beside a large backlog, as a multiple of its time beside a small one."""


def _below(bound: float) -> Target:
    return Target(bound=bound, at_most=True, of_value=True)


# What each should reach. Concurrent callers pay for checking each request alone, hence their lower share; single
# commits are mostly the disk, hence their higher one.
MEASURES: Final = (
    Measure((Number("drain", RATE, Target(bound=0.5)),), drain),
    Measure((Number("drain_10", RATE, Target(bound=3)),), drain_10),
    Measure((Number("drain_2p", RATE, Target(bound=0.5)),), drain_2p),
    Measure((Number("raw_drain_16col", RATE),), raw_drain_16col),
    Measure((Number("enqueue_one", RATE, Target(bound=0.6)),), enqueue_one),
    Measure((Number("enqueue_concurrent", RATE, Target(bound=0.3)),), enqueue_concurrent),
    Measure((Number("enqueue_bulk", RATE, Target(bound=0.5)),), enqueue_bulk),
    Measure((Number("raw_enqueue_16col", RATE),), raw_enqueue_16col),
    Measure((Number("pickup_p50", "ms", _below(2)), Number("pickup_p99", "ms", _below(12))), pickup),
    Measure(
        (Number("pickup_other_process_p50", "ms", _below(5)), Number("pickup_other_process_p99", "ms", _below(25))),
        pickup_other_process,
    ),
    Measure((Number("claim_at_1m", "ms", FLAT),), claim_at_1m),
    Measure((Number("claim_future_band", "ms", FLAT),), claim_future_band),
    Measure((Number("idle_rss", "MiB", _below(42)), Number("idle_cpu", "%", _below(3))), idle),
)
NAMES: Final = tuple(number.name for measure in MEASURES for number in measure.numbers)
