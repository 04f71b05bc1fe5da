"""SQLite does what the conformance suite says a backend must do."""

from forge_jobs.testing.conformance import *  # noqa: F403
