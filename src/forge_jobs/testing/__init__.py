"""What tests of programs that use forge-jobs, and tests of forge-jobs itself, are made of.

`forge_jobs.testing.clock` moves time by hand, `forge_jobs.testing.factories` builds requests, claims and
outcomes, and `forge_jobs.testing.conformance` says as tests what a storage backend must do.
"""

from forge_jobs.testing.clock import ManualClock

__all__ = ["ManualClock"]
