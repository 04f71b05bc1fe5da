"""The older PostgreSQL on this machine does what the conformance suite says a backend must do.

The short run tries on it what depends most on the server, the long one the rest (see `conftest.py`)."""

from forge_jobs.testing.conformance import *  # noqa: F403

SERVER = "pg15"
del TestClockOfOneHost  # noqa: F821  # its server's clock is the only one
