"""The terminal application: three tables, a line of news, a filter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Input, Static

from forge_jobs.ids import JobId
from forge_jobs.redact import Secrets
from forge_jobs.storage.error import ForgeError
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import NotRetryable, Retried, SlotHeld
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.job import JobRow
from forge_jobs.text import printable, span
from forge_jobs.top.look import SORTS, Look, Looker, sorted_jobs, sorted_processes, sorted_queues

COLUMNS: Final = {
    "queues": (
        "queue",
        "state",
        "ready",
        "oldest",
        "scheduled",
        "retrying",
        "running",
        "slots",
        "per s",
        "dead",
        "done",
    ),
    "workers": ("worker", "state", "host", "version", "queues and slots", "running", "beat", "up"),
    "jobs": ("job", "status", "queue", "kind", "attempt", "age", "worker or error"),
}
STYLES: Final = {
    "paused": "yellow", "stopped": "yellow", "cooling down": "yellow", "partly paused": "yellow", "unserved": "red",
    "draining": "yellow", "fenced": "red", "gone": "red", "running": "green", "open": "green",
    "in_progress": "cyan", "failed": "yellow", "dead": "red",
}  # fmt: skip
LONGEST_CELL: Final = 100

Row = tuple[str, Sequence[Any]]
"""A key, and the cells."""


class Top(App[None]):
    """The view. It reads every `every_s` seconds, and acts as `actor`."""

    TITLE = "forge-jobs top"
    CSS = """
    #news { height: 1; padding: 0 1; background: $boost; }
    .title { height: 1; padding: 0 1; text-style: bold; color: $accent; }
    DataTable { height: 1fr; }
    #jobs { height: 2fr; }
    #filter { display: none; height: 3; }
    #filter.shown { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("p", "pause", "pause or resume queue"),
        Binding("s", "sort", "sort"),
        Binding("r", "retry", "retry job"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("escape", "clear_filter", "no filter", show=False),
        Binding("tab", "app.focus_next", "next table"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, storage: Storage, *, actor: Actor, stale_after: timedelta, every_s: float = 2.0) -> None:
        super().__init__()
        self._storage = storage
        self._actor = actor
        self._every_s = every_s
        self._looker = Looker(storage, stale_after)
        self._last: Look | None = None
        self._sorts = {name: sorts[0] for name, sorts in SORTS.items()}
        self._wanted = ""

    def compose(self) -> ComposeResult:
        yield Static(id="news", markup=False)
        for name in COLUMNS:
            yield Static(name, id=f"{name}-title", classes="title", markup=False)
            yield DataTable[Text](id=name, cursor_type="row", zebra_stripes=True)
        yield Input(placeholder="part of a queue, kind, worker or job id; Enter keeps it, Escape ends it", id="filter")
        yield Footer()

    async def on_mount(self) -> None:
        for name, columns in COLUMNS.items():
            self._table(name).add_columns(*columns)
        self._table("queues").focus()
        await self.look()
        self.set_interval(self._every_s, self.look)

    async def look(self) -> None:
        """Read anew and show it; while the store does not answer, what was there last."""
        try:
            self._last = await self._looker.look()
        except ForgeError as error:
            self._news(f"the store does not answer, this is from before: {error}", trouble=True)
            return
        self._show()

    # Keys

    async def action_pause(self) -> None:
        """Pause the selected queue, or resume it. Running jobs go on."""
        queue = self._selected("queues")
        line = next((one for one in self._last.queues if one.settings.name == queue), None) if self._last else None
        if queue is None or line is None:
            self.notify("select a queue first", severity="warning")
            return
        try:
            if line.settings.paused:
                await self._storage.queues.resume(queue, actor=self._actor)
                self.notify(f"queue {queue} goes on")
            else:
                await self._storage.queues.pause(queue, signal=False, actor=self._actor)
                self.notify(f"queue {queue} is paused; running jobs go on")
        except ForgeError as error:
            self.notify(str(error), severity="error")
        await self.look()

    async def action_retry(self) -> None:
        """Retry the selected job, if it failed or is dead."""
        job_id = self._selected("jobs")
        if job_id is None:
            self.notify("select a failed or dead job first", severity="warning")
            return
        try:
            outcome = await self._storage.jobs.retry(JobId(job_id), actor=self._actor)
        except ForgeError as error:
            self.notify(str(error), severity="error")
            return
        match outcome:
            case Retried():
                self.notify(f"job {job_id} runs again")
            case SlotHeld(holder=holder):
                self.notify(f"job {holder} holds its key", severity="warning")
            case NotRetryable(status=status):
                self.notify(f"it is {status or 'gone'}; only failed and dead jobs are retried", severity="warning")
        self._looker.forget_ended()
        await self.look()

    def action_sort(self) -> None:
        """Sort the table that has the focus by the next thing."""
        name = self.focused.id if isinstance(self.focused, DataTable) else "queues"
        assert name is not None
        sorts = SORTS[name]
        self._sorts[name] = sorts[(sorts.index(self._sorts[name]) + 1) % len(sorts)]
        self._show()

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.add_class("shown")
        box.focus()

    def action_clear_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.value = ""
        box.remove_class("shown")
        self._table("queues").focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._wanted = event.value.strip().lower()
        self._show()

    def on_input_submitted(self) -> None:
        self.query_one("#filter", Input).remove_class("shown")
        self._table("queues").focus()

    # Showing

    def _show(self) -> None:
        if self._last is None:
            return
        look = self._last
        live = sum(row.live for row in look.processes)
        running = sum(line.busy for line in look.queues)
        ready = sum(line.counts.ready for line in look.queues)
        kept = f" · filter {self._wanted!r}" if self._wanted else ""
        at = look.at.strftime("%H:%M:%SZ")
        self._news(f"{self._storage.url} · {at} · workers {live} · running {running} · ready {ready}{kept}")
        rows = {"queues": self._queue_rows(look), "workers": self._worker_rows(look), "jobs": self._job_rows(look)}
        for name, some in rows.items():
            self._fill(name, [row for row in some if self._passes(row)])
            self.query_one(f"#{name}-title", Static).update(f"{name}, by {self._sorts[name]}")

    def _queue_rows(self, look: Look) -> Iterable[Row]:
        for line in sorted_queues(look.queues, self._sorts["queues"]):
            counts, total, oldest = line.counts, line.settings.max_workers, line.counts.oldest_ready_at
            slots = line.slots if total is None else f"{line.slots}/{total}"
            yield (
                line.settings.name,
                (
                    line.settings.name, line.state, counts.ready, "-" if oldest is None else _ago(look.at, oldest),
                    counts.scheduled, counts.failed, line.busy, slots,
                    "-" if line.rate_per_s is None else f"{line.rate_per_s:.1f}", counts.dead, counts.done,
                ),
            )  # fmt: skip

    def _worker_rows(self, look: Look) -> Iterable[Row]:
        for row in sorted_processes(look.processes, self._sorts["workers"]):
            info = row.info
            slots = ", ".join(f"{queue} {info.slots.get(queue, 0)}" for queue in info.queues)
            yield (
                info.host_id,
                (
                    info.label or info.host_id, str(info.state) if row.live else "gone", info.host_name, info.version,
                    slots, len(info.running), _ago(look.at, row.heartbeat_at), _ago(look.at, row.started_at),
                ),
            )  # fmt: skip

    def _job_rows(self, look: Look) -> Iterable[Row]:
        for job in sorted_jobs([*look.running, *look.ended], self._sorts["jobs"]):
            yield job.id, (
                job.id, job.status, job.queue, job.kind, f"{job.attempts}/{job.max_attempts}",
                _ago(look.at, _since(job)), _worker_or_error(job, look.secrets),
            )  # fmt: skip

    def _fill(self, name: str, rows: Sequence[Row]) -> None:
        """Put these rows into a table; the cursor stays on its row if that is still there."""
        table, selected = self._table(name), self._selected(name)
        table.clear()
        for key, cells in rows:
            table.add_row(*map(_cell, cells), key=key)
        if selected in (keys := [key for key, _ in rows]):
            table.move_cursor(row=keys.index(selected))

    def _passes(self, row: Row) -> bool:
        return not self._wanted or any(self._wanted in str(cell).lower() for cell in row[1])

    def _selected(self, name: str) -> str | None:
        table = self._table(name)
        if not table.row_count:
            return None
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    def _table(self, name: str) -> DataTable[Text]:
        return self.query_one(f"#{name}", DataTable)

    def _news(self, text: str, *, trouble: bool = False) -> None:
        self.query_one("#news", Static).update(Text(printable(text), style="bold red" if trouble else ""))


def _cell(value: Any) -> Text:
    text = printable(str(value))
    shown = text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"
    return Text(shown, style=STYLES.get(text, ""), justify="right" if isinstance(value, int) else "left")


def _ago(now: datetime, then: datetime) -> str:
    return span(max(now - then, timedelta(0)))


def _since(job: JobRow) -> datetime:
    if job.status == "in_progress" and job.started_at is not None:
        return job.started_at
    return job.completed_at or job.started_at or job.enqueued_at


def _worker_or_error(job: JobRow, secrets: Secrets) -> str:
    if job.status == "in_progress":
        return job.worker or job.process_id or ""
    error = secrets.error(job.kind, job.last_error or "").strip()
    return error.splitlines()[0] if error else job.dead_reason or ""
