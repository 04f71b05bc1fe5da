"""A clock that moves only when told: time for tests, without sleeping."""

from forge_jobs.clock import ManualClock

__all__ = ["ManualClock"]
