"""A worker process whose host's clock is wrong by `SKEW_S` seconds: see `worker_main` for the rest."""

from __future__ import annotations

import os
import time

SKEW_NS = int(os.environ["SKEW_S"]) * 1_000_000_000
_time_ns, _time = time.time_ns, time.time
time.time_ns = lambda: _time_ns() + SKEW_NS
time.time = lambda: _time() + SKEW_NS / 1e9

from .worker_main import main  # noqa: E402

if __name__ == "__main__":
    main()
