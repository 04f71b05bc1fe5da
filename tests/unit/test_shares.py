"""How totals are split over processes, and how many slots a process may open."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from forge_jobs import limits
from forge_jobs.runtime.shares import Split, differences, plan_shares, split, split_totals, unassigned
from forge_jobs.storage.types.process import ProcessInfo, ProcessRow, ProcessState
from forge_jobs.storage.types.queue import QueueSettings
from forge_jobs.storage.types.share import Assignment, Share, Standing
from forge_jobs.testing.factories import make_process

hosts = st.sampled_from([f"host-{letter}" for letter in "abcdefgh"])
totals = st.integers(0, 60)
caps = st.dictionaries(hosts, st.integers(0, 30), max_size=8)
WIDE = 1_000


def even(total: int, count: int, offset: int = 0) -> list[int]:
    """The shares of `count` processes without caps, in host id order."""
    found = split(total, {f"host-{n}": WIDE for n in range(count)}, offset)
    assert found.unassigned == 0
    return [share for _, share in sorted(found.shares.items())]


class TestSplit:
    def test_a_remainder_goes_to_the_first_hosts_from_the_offset_on(self) -> None:
        assert even(10, 3) == [4, 3, 3]
        assert even(10, 3, 1) == [3, 4, 3]
        assert even(11, 3, 2) == [4, 3, 4]
        assert even(2, 3) == [1, 1, 0]
        assert even(0, 3) == [0, 0, 0]

    @given(totals, caps, st.integers(0, 20))
    def test_the_total_is_conserved_and_no_cap_exceeded(self, total: int, caps: dict[str, int], offset: int) -> None:
        found = split(total, caps, offset)
        assert sum(found.shares.values()) + found.unassigned == total
        assert set(found.shares) == set(caps)
        assert all(0 <= share <= caps[host] for host, share in found.shares.items())

    @given(totals, caps, st.integers(0, 20))
    def test_what_is_left_is_only_what_none_can_take(self, total: int, caps: dict[str, int], offset: int) -> None:
        found = split(total, caps, offset)
        assert found.unassigned == max(total - sum(caps.values()), 0)

    @given(totals, caps, st.integers(0, 20))
    def test_processes_that_could_take_more_differ_by_one_at_most_and_have_the_most(
        self, total: int, caps: dict[str, int], offset: int
    ) -> None:
        shares = split(total, caps, offset).shares
        room = [share for host, share in shares.items() if share < caps[host]]
        if room:
            assert max(room) - min(room) <= 1
            assert max(shares.values()) <= min(room) + 1

    @given(totals, caps, st.integers(0, 20))
    def test_the_order_in_which_processes_are_listed_does_not_matter(
        self, total: int, caps: dict[str, int], offset: int
    ) -> None:
        assert split(total, dict(reversed(caps.items())), offset) == split(total, caps, offset)


class TestSplitOfManyQueues:
    def test_ten_queues_of_one_worker_put_two_on_each_of_five_processes(self) -> None:
        five = {f"host-{n}": WIDE for n in range(5)}
        found = split_totals({f"queue-{n}": 1 for n in range(10)}, {f"queue-{n}": five for n in range(10)})
        for host in five:
            assert sum(one.shares[host] for one in found.values()) == 2

    @given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), totals, max_size=12), st.integers(1, 7))
    def test_remainders_are_spread_over_all_queues(self, totals: dict[str, int], count: int) -> None:
        everyone = {f"host-{n}": WIDE for n in range(count)}
        found = split_totals(totals, dict.fromkeys(totals, everyone))
        loads = [sum(one.shares[host] for one in found.values()) for host in everyone]
        assert max(loads) - min(loads) <= 1

    def test_a_queue_that_nobody_serves_is_unassigned(self) -> None:
        assert split_totals({"mail": 4}, {}) == {"mail": Split(shares={}, unassigned=4)}


def process(host_id: str, *, live: bool = True, **fields: object) -> ProcessRow:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return ProcessRow(info=make_process(host_id, **fields), started_at=at, heartbeat_at=at, live=live)


def queue(name: str = "mail", total: int | None = 10, **fields: object) -> QueueSettings:
    return QueueSettings(name=name, max_workers=total, **fields)  # type: ignore[arg-type]


class TestPlan:
    def test_only_live_processes_that_declare_the_queue_and_take_work_have_a_share(self) -> None:
        processes = [
            process("a"),
            process("b", state=ProcessState.DRAINING),
            process("c", live=False),
            process("d", queues=("other",)),
            process("e", queues=("other", "mail")),
        ]
        assert plan_shares([queue()], processes)["mail"].shares == {"a": 5, "e": 5}

    def test_a_queue_without_a_total_is_not_split(self) -> None:
        assert plan_shares([queue(total=None)], [process("a")]) == {}

    def test_a_paused_queue_keeps_its_shares(self) -> None:
        assert plan_shares([queue(paused=True)], [process("a")])["mail"].shares == {"a": 10}

    def test_what_a_process_offers_caps_its_share(self) -> None:
        processes = [process("a", offered={"mail": 2}), process("b", offered={"mail": 50})]
        assert plan_shares([queue()], processes)["mail"].shares == {"a": 2, "b": 8}

    def test_a_process_that_does_not_say_what_it_offers_has_the_general_cap(self) -> None:
        found = plan_shares([queue(total=3_000)], [process("a"), process("b")])["mail"]
        assert set(found.shares.values()) == {limits.SLOTS_PER_QUEUE_OF_A_TOTAL}
        assert found.unassigned == 1_000

    def test_the_row_of_an_older_program_is_read(self) -> None:
        written = msgspec.json.decode(msgspec.json.encode(make_process()))
        del written["offered"]
        assert msgspec.json.decode(msgspec.json.encode(written), type=ProcessInfo).offered == {}


class TestDifferences:
    @given(
        st.dictionaries(st.sampled_from(["mail", "web"]), totals, max_size=2),
        st.dictionaries(hosts, st.sampled_from(["live", "draining", "silent", "gone"]), max_size=6),
        st.dictionaries(st.tuples(st.sampled_from(["mail", "web", "old"]), hosts), st.none() | st.integers(0, 9)),
    )
    def test_once_written_nothing_is_left_to_write(
        self, totals: dict[str, int], states: dict[str, str], before: dict[tuple[str, str], int | None]
    ) -> None:
        processes = [
            process(
                host,
                live=state != "silent",
                queues=("mail", "web"),
                state=ProcessState.DRAINING if state == "draining" else ProcessState.RUNNING,
            )
            for host, state in states.items()
            if state != "gone"
        ]
        plan = plan_shares([queue(name, total) for name, total in totals.items()], processes)
        after = dict(before)
        for change in differences(plan, processes, stored(before)):
            assert before.get((change.queue, change.host_id), "no row") != change.share
            after[change.queue, change.host_id] = change.share
        assert differences(plan, processes, stored(after)) == []
        for name, one in plan.items():
            known = {row.info.host_id for row in processes}
            shares = {host: share for (of, host), share in after.items() if of == name and host in known and share}
            assert shares == {host: share for host, share in one.shares.items() if share}

    def test_a_process_that_takes_no_more_work_is_set_to_nothing_and_one_never_seen_gets_no_row(self) -> None:
        processes = [
            process("a"),
            process("b", state=ProcessState.DRAINING),
            process("c", state=ProcessState.DRAINING),
        ]
        plan = plan_shares([queue()], processes)
        rows = stored({("mail", "a"): 5, ("mail", "b"): 5})
        assert differences(plan, processes, rows) == [
            Assignment(queue="mail", host_id="a", share=10),
            Assignment(queue="mail", host_id="b", share=0),
        ]

    def test_a_queue_whose_total_was_lifted_has_no_shares(self) -> None:
        rows = stored({("mail", "a"): 10, ("mail", "b"): None})
        assert differences({}, [process("a"), process("b")], rows) == [
            Assignment(queue="mail", host_id="a", share=None)
        ]

    def test_rows_of_processes_that_are_gone_are_left_to_the_pruning(self) -> None:
        assert differences({}, [process("a")], stored({("mail", "z"): 5})) == []


def stored(shares: dict[tuple[str, str], int | None]) -> list[Share]:
    return [Share(queue=name, host_id=host, share=share) for (name, host), share in shares.items()]


def test_what_is_unassigned_is_what_nobody_was_given() -> None:
    rows = stored({("mail", "a"): 3, ("mail", "c"): None, ("web", "a"): 9})
    assert unassigned(queue(total=10), rows) == 7
    assert unassigned(queue(total=2), rows) == 0, "the shares of a total just lowered"
    assert unassigned(queue(total=None), rows) is None


def standing(total: int | None = 10, *, own: int = 0, elsewhere: int = 0, live: bool = True) -> Standing:
    return Standing(total=total, share=None, open=own, elsewhere=elsewhere, live=live)


class TestMayOpen:
    def test_fewer_are_always_granted(self) -> None:
        assert standing(own=5, elsewhere=9).may_open(staying=5, closing=0, wanted=2) == 2

    def test_more_are_granted_as_far_as_nobody_has_them(self) -> None:
        assert standing(own=2, elsewhere=5).may_open(staying=2, closing=0, wanted=9) == 5

    def test_slots_that_close_count_until_they_have(self) -> None:
        assert standing(own=4, elsewhere=5).may_open(staying=2, closing=2, wanted=9) == 3

    def test_what_is_open_is_kept_when_the_total_was_lowered_below_it(self) -> None:
        assert standing(total=3, own=4, elsewhere=5).may_open(staying=4, closing=0, wanted=4) == 4

    def test_what_was_taken_over_is_not_kept(self) -> None:
        assert standing(own=1, elsewhere=9).may_open(staying=5, closing=0, wanted=5) == 1

    def test_without_a_total_all_that_is_wanted_is_granted(self) -> None:
        assert standing(total=None, elsewhere=500).may_open(staying=0, closing=3, wanted=10) == 10

    def test_a_process_that_others_cannot_see_gets_no_more(self) -> None:
        assert standing(own=2, live=False).may_open(staying=2, closing=0, wanted=9) == 2
        assert standing(None, own=2, live=False).may_open(staying=2, closing=0, wanted=9) == 2

    @given(
        st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20),
        st.integers(0, 20), st.booleans(),
    )  # fmt: skip
    def test_it_never_grows_past_the_total(
        self, total: int, own: int, elsewhere: int, staying: int, closing: int, wanted: int, live: bool
    ) -> None:
        """Whatever the figures: what is counted afterwards is within the total, or no more than before."""
        allowed = standing(total, own=own, elsewhere=elsewhere, live=live).may_open(
            staying=staying, closing=closing, wanted=wanted
        )
        assert 0 <= allowed <= wanted
        assert allowed + closing + elsewhere <= max(total, own + elsewhere, closing + elsewhere)
