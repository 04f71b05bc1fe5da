"""What tests of programs that use forge-jobs, and tests of forge-jobs itself, are made of.

    ran = await drain(storage, handlers)                      # run what is ready, here and now
    await assert_enqueued(storage, "mail", payload={"to": 7})

`drain` and `inline` run jobs in this process, `assert_enqueued` and its neighbours look at the store, `make_ctx` calls
a handler alone, `ManualClock` moves time by hand, `Cluster` starts real workers to be killed. With pytest there are
fixtures: `forge_jobs.testing.pytest_plugin`. `forge_jobs.testing.conformance` says as tests what a storage backend
must do. The names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from forge_jobs.testing.clock import ManualClock, SharedClock
    from forge_jobs.testing.cluster import Cluster, until
    from forge_jobs.testing.context import make_ctx
    from forge_jobs.testing.drained import Drained, Ran, drain, drain_sync
    from forge_jobs.testing.enqueued import all_enqueued, assert_enqueued, refute_enqueued
    from forge_jobs.testing.inlined import inline

__all__ = [
    "Cluster",
    "Drained",
    "ManualClock",
    "Ran",
    "SharedClock",
    "all_enqueued",
    "assert_enqueued",
    "drain",
    "drain_sync",
    "inline",
    "make_ctx",
    "refute_enqueued",
    "until",
]

_HOMES: Final = {
    "clock": "ManualClock SharedClock",
    "cluster": "Cluster until",
    "context": "make_ctx",
    "drained": "Drained Ran drain drain_sync",
    "enqueued": "all_enqueued assert_enqueued refute_enqueued",
    "inlined": "inline",
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a name from the module it lives in, so that the pytest plugin costs nothing where nobody uses it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'forge_jobs.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"forge_jobs.testing.{_HOME_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
