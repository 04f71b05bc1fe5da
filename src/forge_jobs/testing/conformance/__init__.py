"""What a storage backend must do, as tests.

A third party's backend is tested by two short files. `conftest.py` says how to open it:

    class MyBackend:
        name = "mine"
        one_host = False              # see `TestClockOfOneHost`
        def open(self, clock): ...    # an async context manager that gives a new, empty Storage
        def reopen(self, clock): ...  # the same for the store that `open` made last

    @pytest.fixture
    def backend(tmp_path):
        return MyBackend(tmp_path)

and `test_my_conformance.py` takes in the suite:

    from forge_jobs.testing.conformance import *

It needs pytest with pytest-asyncio in its mode `auto`, and hypothesis. Tests marked `slow` are long proofs.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "admin", "arrange", "blockers", "blockers_and_claims", "cancel", "claim", "cluster", "cluster_histories",
            "counts", "dedupe", "durability", "enqueue", "events", "finalize", "heartbeat", "kinds", "lifecycle_matrix",
            "logs", "metrics", "model", "operating", "processes", "queues", "rate_limits", "reaper", "retention",
            "schedules", "standstill", "state_machine", "throttle",
        )
    )
)  # fmt: skip

from forge_jobs.testing.conformance.admin import (  # noqa: E402
    TestActOnMany,
    TestCounts,
    TestFilter,
    TestList,
    TestNextDue,
    TestRetry,
    TestRunNow,
)
from forge_jobs.testing.conformance.backend import Backend  # noqa: E402
from forge_jobs.testing.conformance.blockers import (  # noqa: E402
    TestBlockersInTime,
    TestBlockersOfFinishedJobs,
    TestBlockersOfLimits,
    TestBlockersOfQueues,
    TestBlockersOfRunningJobs,
    TestBlockersOfWorkers,
    TestExplaining,
)
from forge_jobs.testing.conformance.blockers_and_claims import TestBlockersAgreeWithClaims  # noqa: E402
from forge_jobs.testing.conformance.cancel import TestCancel, TestDelete  # noqa: E402
from forge_jobs.testing.conformance.claim import (  # noqa: E402
    TestClaim,
    TestClaimAlone,
    TestClaimAndSettings,
    TestSettleAndClaim,
)
from forge_jobs.testing.conformance.cluster import TestLeases, TestOpenSlots, TestRebalance, TestShares  # noqa: E402
from forge_jobs.testing.conformance.cluster_histories import TestClusterHistories  # noqa: E402
from forge_jobs.testing.conformance.counts import TestCountsAreKept  # noqa: E402
from forge_jobs.testing.conformance.dedupe import TestDedupe, TestDedupeInBulk, TestUniqueFor  # noqa: E402
from forge_jobs.testing.conformance.durability import TestReopen, TestTwoStores, TestWake  # noqa: E402
from forge_jobs.testing.conformance.enqueue import (  # noqa: E402
    TestEnqueue,
    TestEnqueueAgain,
    TestEnqueueBulk,
    TestFullQueue,
)
from forge_jobs.testing.conformance.events import TestAudit, TestEvents  # noqa: E402
from forge_jobs.testing.conformance.finalize import TestAttempts, TestErrors, TestFinalize, TestProgress  # noqa: E402
from forge_jobs.testing.conformance.fixtures import beater, clock, neighbour, storage  # noqa: E402
from forge_jobs.testing.conformance.heartbeat import TestHeartbeat  # noqa: E402
from forge_jobs.testing.conformance.kinds import TestKinds  # noqa: E402
from forge_jobs.testing.conformance.lifecycle_matrix import TestLifecycleMatrix  # noqa: E402
from forge_jobs.testing.conformance.logs import TestJobLog  # noqa: E402
from forge_jobs.testing.conformance.metrics import TestRecord, TestRollup, TestSeries  # noqa: E402
from forge_jobs.testing.conformance.operating import (  # noqa: E402
    TestChange,
    TestOperators,
    TestOrders,
    TestOverviews,
)
from forge_jobs.testing.conformance.processes import TestProcesses  # noqa: E402
from forge_jobs.testing.conformance.queues import (  # noqa: E402
    TestDeleteQueue,
    TestPause,
    TestQueueCounts,
    TestQueueSettings,
)
from forge_jobs.testing.conformance.rate_limits import (  # noqa: E402
    TestDrain,
    TestKeyedLimits,
    TestPaidClaims,
    TestRateLimit,
    TestTuneLimits,
)
from forge_jobs.testing.conformance.reaper import TestClockOfOneHost, TestExpire, TestRevive  # noqa: E402
from forge_jobs.testing.conformance.retention import TestRetention  # noqa: E402
from forge_jobs.testing.conformance.schedules import (  # noqa: E402
    TestDeclaredSchedules,
    TestEditedSchedules,
    TestFire,
    TestMisfire,
    TestScheduleFaults,
    TestTrigger,
)
from forge_jobs.testing.conformance.standstill import TestExplainQueue, TestExplainSchedule, TestKindsThatWait  # noqa: E402
from forge_jobs.testing.conformance.state_machine import TestStateMachine  # noqa: E402
from forge_jobs.testing.conformance.throttle import TestCoolDown, TestCoolDownIsForgotten, TestThrottled  # noqa: E402

__all__ = [
    "Backend", "TestActOnMany", "TestAttempts", "TestAudit", "TestBlockersAgreeWithClaims", "TestBlockersInTime",
    "TestBlockersOfFinishedJobs", "TestBlockersOfLimits", "TestBlockersOfQueues", "TestBlockersOfRunningJobs",
    "TestBlockersOfWorkers", "TestCancel", "TestChange", "TestClaim", "TestClaimAlone", "TestClaimAndSettings",
    "TestClockOfOneHost", "TestClusterHistories", "TestCoolDown", "TestCoolDownIsForgotten", "TestCounts",
    "TestCountsAreKept", "TestDeclaredSchedules", "TestDedupe", "TestDedupeInBulk", "TestDelete", "TestDeleteQueue",
    "TestDrain", "TestEditedSchedules", "TestEnqueue", "TestEnqueueAgain", "TestEnqueueBulk", "TestErrors",
    "TestEvents", "TestExpire", "TestExplainQueue", "TestExplainSchedule", "TestExplaining", "TestFilter",
    "TestFinalize", "TestFire", "TestFullQueue", "TestHeartbeat", "TestJobLog", "TestKeyedLimits",
    "TestKinds", "TestKindsThatWait", "TestLeases", "TestLifecycleMatrix", "TestList", "TestMisfire", "TestNextDue",
    "TestOpenSlots", "TestOperators", "TestOrders", "TestOverviews",
    "TestPaidClaims", "TestPause", "TestProcesses", "TestProgress", "TestQueueCounts",
    "TestQueueSettings", "TestRateLimit", "TestRebalance", "TestRecord", "TestReopen", "TestRetention", "TestRetry",
    "TestRevive", "TestRollup", "TestRunNow", "TestScheduleFaults", "TestSeries", "TestSettleAndClaim",
    "TestShares", "TestStateMachine", "TestThrottled", "TestTrigger", "TestTuneLimits", "TestTwoStores",
    "TestUniqueFor", "TestWake", "beater", "clock", "neighbour", "storage",
]  # fmt: skip
