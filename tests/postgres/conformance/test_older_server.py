"""The older PostgreSQL on this machine does what the conformance suite says a backend must do.

Random histories, which take longest, are tried on it with the long proofs only (see `conftest.py`)."""

from forge_jobs.testing.conformance import *  # noqa: F403

SERVER = "pg15"
del TestClockOfOneHost  # noqa: F821  # its server's clock is the only one
