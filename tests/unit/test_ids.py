"""Ids ascend in the order of minting, whatever the clock and the random tail do."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import ulid
from ulid import ULID

from forge_jobs import ids
from forge_jobs.ids import IdGenerator, JobId, new_id, new_ids, parse_id
from forge_jobs.storage.error import InvalidInput

HIGHEST_TAIL = (1 << 80) - 1


class Host:
    """Stands in for the host's clock and dice."""

    def __init__(self, ms: int, tail: int) -> None:
        self.ms, self.tail = ms, tail

    def time_ns(self) -> int:
        return self.ms * 1_000_000

    def randbits(self, bits: int) -> int:
        assert bits == 80
        return self.tail


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(100, 7)
    monkeypatch.setattr(ids, "secrets", host)
    monkeypatch.setattr(ids, "time", host)
    return host


def _value(job_id: JobId) -> tuple[int, int]:
    number = int(ULID.from_str(job_id))
    return number >> 80, number & HIGHEST_TAIL


class TestGenerator:
    def test_an_id_is_a_ulid_of_now(self) -> None:
        job_id = new_id()
        parsed = ULID.from_str(job_id)
        assert str(parsed) == job_id
        assert parse_id(job_id) == job_id
        assert abs(parsed.timestamp - ULID().timestamp) < 60

    def test_ids_ascend_across_calls_and_batches(self) -> None:
        minted = [new_id(), *new_ids(3_000), new_id(), *new_ids(5), new_id()]
        assert minted == sorted(set(minted))

    def test_nothing_asked_is_nothing_minted_and_order_holds(self) -> None:
        generator = IdGenerator()
        before = generator.mint()
        assert generator.mint(0) == []
        assert before < generator.mint()

    def test_within_a_millisecond_the_tail_is_counted(self, host: Host) -> None:
        generator = IdGenerator()
        minted = []
        for host.tail in (7, 3, 999):
            minted += generator.mint()
        assert [_value(job_id) for job_id in minted] == [(100, 7), (100, 8), (100, 9)]

    def test_a_new_millisecond_has_a_tail_of_its_own(self, host: Host) -> None:
        generator = IdGenerator()
        generator.mint()
        host.ms, host.tail = 101, 3
        assert _value(generator.mint()[0]) == (101, 3)

    def test_a_clock_that_steps_back_does_not_break_the_order(self, host: Host) -> None:
        generator = IdGenerator()
        minted = []
        for host.ms in (100, 50, 51, 101):
            minted += generator.mint()
        assert [_value(job_id) for job_id in minted] == [(100, 7), (100, 8), (100, 9), (101, 7)]

    def test_a_tail_that_overflows_goes_on_in_the_next_millisecond(
        self, host: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        host.tail = HIGHEST_TAIL - 1
        generator = IdGenerator()
        minted = [generator.mint()[0] for _ in range(4)]
        host.ms, host.tail = 101, 0
        minted += generator.mint()
        assert [_value(job_id) for job_id in minted] == [
            (100, HIGHEST_TAIL - 1), (100, HIGHEST_TAIL), (101, 0), (101, 1), (101, 2),
        ]  # fmt: skip
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["id_tail_overflow"]

    def test_a_batch_may_cross_an_overflow(self, host: Host) -> None:
        host.tail = HIGHEST_TAIL - 2
        minted = IdGenerator().mint(5)
        assert [_value(job_id)[0] for job_id in minted] == [100, 100, 100, 101, 101]
        assert minted == sorted(set(minted))

    def test_a_batch_may_cross_the_counted_characters(self, host: Host) -> None:
        """The last four characters are counted by us, the others are encoded by the library."""
        host.tail = (1 << 20) - 2
        minted = IdGenerator().mint(4)
        assert [_value(job_id) for job_id in minted] == [(100, (1 << 20) + n) for n in (-2, -1, 0, 1)]

    def test_threads_share_one_order(self) -> None:
        generator, minted = IdGenerator(), []

        def work() -> None:
            for _ in range(50):
                minted.extend(generator.mint(20))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(minted)) == 4_000

    def test_a_forked_child_mints_other_ids(self) -> None:
        """Else two jobs would share an id, and one of them be taken for a repeat of the other."""
        done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
        theirs, ours = done.stdout.split()
        assert theirs != ours


FORK = """
import os
from forge_jobs import ids

ids._generator._last = int(ids.ULID()) + (3_600_000 << 80)  # the clock was set back by an hour
child = os.fork()
if child:
    os.waitpid(child, 0)
print(ids.new_id(), flush=True)
"""


class TestParse:
    def test_lower_case_is_read_and_stored_upper_case(self) -> None:
        assert parse_id("01arz3ndektsv4rrffq69g5fav") == "01ARZ3NDEKTSV4RRFFQ69G5FAV"

    @pytest.mark.parametrize("text", ["0" * 26, "7" + "Z" * 25])
    def test_the_first_and_the_last_id_are_ids(self, text: str) -> None:
        assert parse_id(text) == text

    @pytest.mark.parametrize(
        "text",
        ["", "0" * 25, "0" * 27, "8" + "0" * 25, "I" + "0" * 25, "0" * 25 + "L", "0" * 25 + "O", "0" * 25 + "U",
         "0" * 25 + "\n", " " + "0" * 25, "0" * 25 + "é", "0" * 25 + "\u0660", "01ARZ3ND-KTSV4RRFFQ69G5FAV", None, 5,
         b"0" * 26, "ſ" * 26, "\ud800" * 26],
    )  # fmt: skip
    def test_what_is_no_id_is_refused(self, text: object) -> None:
        with pytest.raises(InvalidInput) as caught:
            parse_id(text, "parent_id")  # type: ignore[arg-type]
        assert (caught.value.field, caught.value.reason) == ("parent_id", "invalid_id")

    def test_it_reads_what_the_library_writes(self) -> None:
        for _ in range(100):
            text = str(ulid.ULID())
            assert parse_id(text) == text
