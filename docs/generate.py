"""Writes the reference pages that are taken from the code, so that they cannot say something else.

    python docs/generate.py              write them
    python docs/generate.py --check      exit 1 if one is not up to date; the tests do this
    python docs/generate.py --numbers run.json    put the numbers of `forge-jobs bench --json` into README.md

What only people can say (what a setting is for, what to do about a log event) is in the tables below. A setting,
a limit or an event that has no line there is an error, and so is a line for something that is gone.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from forge_jobs import config, limits
from forge_jobs.api.app import openapi
from forge_jobs.api.problem import STATUS_OF, TITLES
from forge_jobs.cli import settings
from forge_jobs.cli.errors import describe
from forge_jobs.cli.lazy_group import Group
from forge_jobs.cli.main import program
from forge_jobs.config import RuntimeConfig, StoreConfig
from forge_jobs.observe import COUNTS, HISTOGRAMS, KINDS
from forge_jobs.prometheus.families import GAUGES, PREFIX
from forge_jobs.storage import error as errors
from forge_jobs.storage.sql.book import parse
from forge_jobs.storage.sql.events import PER_JOB_PER_SECOND
from forge_jobs.storage.sql.maintenance import METRICS_KEPT_DAYS, PROCESS_METRICS_KEPT_DAYS
from forge_jobs.storage.types.blocker import BlockerCode
from forge_jobs.storage.types.metric import METRICS

DOCS: Final = Path(__file__).resolve().parent
ROOT: Final = DOCS.parent
SOURCE: Final = Path(inspect.getfile(config)).parent
NOTE: Final = "<!-- Made by docs/generate.py. Change the code or that script, not this page. -->"

# Settings: unit, and what it is for.

SETTINGS: Final[Mapping[str, tuple[str, str]]] = {
    "database": (
        "URL",
        "The store. `sqlite:///jobs.db` is relative to the current directory, `sqlite:////…` absolute; "
        "`postgresql://user@host/name` is a server's. In the file it may also be a table `[database]` with `host`, "
        "`port` (5432), `database`, `username`, and `password`, `password_env` or `password_file`.",
    ),
    "queues": ("list of names", "The queues that a worker serves. In the environment: names joined by commas."),
    "executors": (
        "table",
        "Where the handlers of a queue run that do not say so themselves: `async`, `thread` or `process`. In the file "
        "a table `[executors]`, in the environment `reports=process,mail=thread`. Queues that a worker does not serve "
        "may be among them.",
    ),
    "worker_name": ("text", "What people call this worker, at most 128 characters. Blank means none."),
    "log_level": ("word", "The least important log line that a worker prints."),
    "log_format": ("word", "`json`, `text`, or `auto`: text on a terminal, JSON lines elsewhere."),
    "heartbeat_s": ("seconds", "How often a worker says that it is alive."),
    "stale_s": (
        "seconds",
        "After this long a silence a worker loses its jobs. At least 5 × `heartbeat_s` and 2 × `reaper_s`.",
    ),
    "reaper_s": ("seconds", "How often silent workers are looked for."),
    "supervisor_s": ("seconds", "How often the open slots are compared to the queue's settings."),
    "poll_ms": ("milliseconds", "How long an idle worker waits for a wake-up before it looks by itself."),
    "event_flush_s": ("seconds", "How often job events are written."),
    "cleanup_s": ("seconds", "How often retention removes old jobs."),
    "metrics_s": ("seconds", "How often events are rolled up into metrics by minute."),
    "shutdown_grace_s": ("seconds", "How long handlers may go on after SIGTERM before they are ended."),
    "cancel_grace_s": ("seconds", "How long a handler may go on after a cancel or timeout before it is ended."),
    "slots": ("jobs", "Most jobs of one queue at a time in one process."),
    "max_crashes": (
        "crashes",
        "A job whose worker died this often ends `dead`, reason `crashed`. A handler may set its own.",
    ),
    "max_abandoned_threads": (
        "threads",
        "While so many threads of handlers that ignored their end run on, no job is taken that needs a thread.",
    ),
    "max_jobs": ("jobs", "After so many jobs a worker takes no more, finishes what it runs, and ends. 0: never."),
    "max_rss_mib": ("MiB", "The same when the worker's own memory has grown so large. 0: never."),
    "max_jobs_per_child": ("jobs", "A child process of the worker is replaced after so many jobs. 0: never."),
    "max_child_rss_mib": ("MiB", "A child is replaced, after its job, when it has grown so large. 0: never."),
    "child_memory_mib": ("MiB", "Address space of a child (`RLIMIT_AS`). 0: no limit."),
    "child_processes": ("processes", "Processes that the user of a child may have (`RLIMIT_NPROC`). 0: no limit."),
    "child_open_files": ("files", "Files that a child may have open (`RLIMIT_NOFILE`). 0: no limit."),
    "child_env": (
        "list of names",
        "Variables that children get besides `PATH`, `HOME`, `LANG` and `TZ`; `*` is all. In the environment: names "
        "joined by commas.",
    ),
    "max_attempts": ("runs", "Runs before a job is `dead`, when neither its request nor its handler says."),
    "durability": ("word", "`full` survives power loss. `process` survives only the death of processes."),
    "store_deadline_s": ("seconds", "No call on the store takes longer; then it raises."),
    "payload_max": ("bytes", "Largest payload as stored."),
    "force_network_fs": ("yes or no", "Use a network file system all the same. SQLite's locks do not hold there."),
    "read_only": ("yes or no", "Only look at the store: every change is refused, by its connections too."),
    "schema": ("name", "PostgreSQL: the schema that holds our tables."),
    "auto_migrate": ("yes or no", "PostgreSQL: opening a store may bring an older schema up to date."),
    "notify": ("yes or no", "PostgreSQL: tell other processes of new jobs with NOTIFY, and listen."),
    "listen_url": ("URL", "PostgreSQL: a direct connection to listen on, where `database` leads through a pooler."),
    "lease_ttl_s": ("seconds", "How long a process holds the lease of a loop that one process runs for all."),
    "rebalance_s": ("seconds", "How often the totals of queues are split anew over the processes."),
}
CHOICES: Final[Mapping[str, Sequence[str]]] = {
    "log_level": settings.LOG_LEVELS,
    "log_format": settings.LOG_FORMATS,
    "durability": config.DURABILITIES,
}

# Limits: unit, and what is limited.

LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "NAME_LENGTH": (
        "characters",
        "Name of a queue, kind or schedule: `A-Z a-z 0-9 _ . : -`, the first a letter, digit or `_`.",
    ),
    "DEDUPE_KEY_LENGTH": ("characters", "Dedupe key, all printable."),
    "PAYLOAD_MAX_BYTES": ("bytes", "Payload as stored, by default (`payload_max`)."),
    "PAYLOAD_CEILING_BYTES": ("bytes", "The largest `payload_max` that can be set."),
    "JSON_DEPTH": ("levels", "Nesting of a payload."),
    "INTEGER_DIGITS": ("digits", "Integer in a payload."),
    "TAGS": ("tags", "Tags of one job."),
    "TAG_LENGTH": ("characters", "One tag."),
    "PRIORITY": ("", "Priority; lower is claimed first."),
    "MAX_ATTEMPTS": ("runs", "`max_attempts` of a job."),
    "MAX_CRASHES": ("crashes", "`max_crashes` of a kind."),
    "DELAY_S": ("seconds", "`delay` and `ttl` of a request."),
    "UNIQUE_FOR_S": ("seconds", "`unique_for` of a request."),
    "RUN_AT_YEARS": ("years", "`run_at` and `expires_at` of a request."),
    "TIMEOUT_S": ("seconds", "`timeout` of a handler."),
    "RETRY_AFTER_S": ("seconds", "`Throttled(retry_after=…)`. A longer one is cut, and logged."),
    "MAX_WORKERS": ("slots", "`max_workers` of a queue, over all processes."),
    "SLOTS_PER_PROCESS": ("slots", "All queues of one process together."),
    "SLOTS_PER_QUEUE_OF_A_TOTAL": (
        "slots",
        "One process's share of a queue with `max_workers`, when `slots` is not given.",
    ),
    "BACKOFF_S": ("seconds", "Base and cap of a queue's backoff; also what a handler's own backoff may give, from 0."),
    "JITTER": ("share", "Jitter of a queue's backoff."),
    "RETENTION_DAYS": ("days", "How long done and dead jobs are kept; `none` is for ever."),
    "MAX_PENDING": ("jobs", "`max_pending` of a queue."),
    "ERROR_TEXT_BYTES": ("bytes", "Message of one error; a longer one is cut in the middle."),
    "TRACEBACK_BYTES": ("bytes", "Traceback of the newest error; a longer one is cut in the middle."),
    "ERROR_HISTORY": ("entries", "Error history of one job; the newest are kept."),
    "BULK_REQUESTS": ("jobs", "One `enqueue_bulk`, and `forge-jobs enqueue --bulk --atomic`."),
    "BULK_PAYLOAD_BYTES": ("bytes", "Payloads of one `enqueue_bulk` together."),
    "BULK_CHUNK": ("jobs", "One statement of a bulk, and one transaction of `forge-jobs enqueue --bulk`."),
    "PAGE": ("jobs", "One page of a list."),
    "PROGRESS_MESSAGE_LENGTH": ("characters", "Message of `ctx.progress`; a longer one is cut."),
    "LOG_LINES": ("lines", "Lines kept of what a job logged. Older ones go, and are counted."),
    "LOG_LINE_BYTES": ("bytes", "One such line. A longer one is cut in the middle."),
    "LOG_BYTES": ("bytes", "All such lines of a job. Older ones go, and are counted."),
    "LOG_BUFFER_BYTES": (
        "bytes",
        "Such lines of all jobs of a process that wait to be written. More are dropped and counted.",
    ),
    "CHILD_LINE_BYTES": ("bytes", "One line between a worker pool and a child, either way, its end included."),
    "CHILD_LOG_LINE_BYTES": ("bytes", "One line of a child's error output; a longer one is cut."),
    "CHILD_LOG_LINES_PER_S": ("lines", "Lines that a child may log in a second. More are counted instead."),
    "CHILDREN_PER_POOL": ("children", "`size` of a worker pool."),
    "EVENT_BUFFER": ("events", "Events that wait to be written. More are dropped and counted."),
    "SEARCH_S": ("seconds", "A search for text in jobs is counted, and its page filled, for so long."),
    "SERIES_BUCKETS": ("buckets", "Most buckets of one series of a metric. More are refused."),
    "TRACE_BYTES": ("bytes", "`trace` of a request as stored."),
    "RATE_CAPACITY": ("tokens", "Capacity and refill per second of a rate limit, and the cost of a job."),
    "RATE_RETRY_S": ("seconds", "What a refused `acquire` is told to wait, at least and at most."),
    "CRON_EXPR_LENGTH": ("characters", "Expression of a schedule."),
    "PREVIEW_FIRES": ("fires", "One preview of a schedule."),
    "SCHEDULE_JITTER_S": ("seconds", "`jitter_s` of a schedule."),
    "MISFIRE_GRACE_S": ("seconds", "`misfire_grace_s` of a schedule."),
    "MISFIRE_ALL": ("ticks", 'n of `misfire="all(n)"`, and the ticks that fire at once under `skip`.'),
    "URL_BYTES": ("bytes", "URL of an HTTP request."),
    "HEADERS_BYTES": ("bytes", "Headers of an HTTP request together."),
    "BODY_EXTRA_BYTES": ("bytes", "What the body of an HTTP request may have beyond `payload_max`."),
    "BULK_BODY_BYTES": ("bytes", "Body of `POST /api/v1/jobs/bulk`, which takes up to 1 000 jobs."),
    "BODY_S": ("seconds", "The body of an HTTP request must have arrived."),
    "HEADER_S": ("seconds", "The headers of an HTTP request must have arrived."),
    "CONNECTIONS": ("connections", "Open HTTP connections of one server."),
    "STREAMS": ("streams", "Open streams of `GET /api/v1/events` of one server."),
    "REQUESTS_AT_ONCE": ("requests", "HTTP requests served at once; more wait up to 5 s."),
}

# Log events: what it says, and what to do.

EVENTS: Final[Mapping[str, str]] = {
    "abandoned": (
        "A handler ignored its cancel, timeout or shutdown, as `reason` says. Its slot goes on without it; its result "
        "is ignored."
    ),
    "analyze_fault": "The planner's statistics could not be refreshed. Harmless once; look at the disk if it repeats.",
    "answer_fault": "A listener failed while it was told a result. A fault of forge-jobs: report it.",
    "answer_undelivered": "The event loop closed with an answer of PostgreSQL on its way. What was committed stays.",
    "answers_undelivered": "The event loop was closed while writes were on their way. What was committed stays.",
    "api_fault": "An HTTP request met an unexpected error; its caller got a 500. Report it.",
    "api_request": "An HTTP request was answered.",
    "api_store": "The store refused or did not answer an HTTP request; its caller was told without these words.",
    "backoff_fault": "A handler's `backoff` raised or gave a senseless value. The queue's curve is used.",
    "beat_refused": "A heartbeat failed. One is harmless; many lead to `claims_stopped` and `fenced`.",
    "cancel_seen": "A running job is told that somebody cancelled it.",
    "checkpoint_fault": "The write-ahead log could not be copied back. It is tried again.",
    "checkpoint_risk": "A connection of your own checkpoints the file, on an SQLite where that can corrupt it.",
    "child_died": "A child of a worker pool ended by itself. Its job, if any, counts a crash.",
    "child_ended": "A child of a worker pool broke the rules of its protocol, as `reason` says, and was ended.",
    "child_not_started": "A child of a worker pool could not be started. Jobs that wait for it fail.",
    "claims_stopped": "No heartbeat was accepted for `stale_s` − 2 × `heartbeat_s`. The worker takes no new jobs.",
    "claimed": "A job was taken by this process.",
    "cleaned_up": "Retention removed old jobs.",
    "cleanup_fault": "Retention failed on one queue and went on with the next.",
    "close_timeout": "Another process held the database while this one closed it.",
    "connections_full": "As many HTTP connections are open as there may be; a new one was closed.",
    "connection_cut": "PostgreSQL owed an answer for 6 s, so the connection was ended and is made anew.",
    "cron_fault": "A schedule met an error. Its tick stays due and is tried again within seconds.",
    "cron_fired": "A tick made a job.",
    "cron_invalid": "A schedule's expression or zone cannot be read any more. It is stopped; the others fire.",
    "cron_skipped": "A tick made no job: it was too late (`misfire`), or the job before it waits or runs (`held`).",
    "enqueue_retry": "`ctx.enqueue` met a lock and tries again with the same id.",
    "event_flush_fault": "Events could not be written. They are kept for the next flush.",
    "events_dropped": "The event buffer is full. Jobs are not affected; timelines have a gap.",
    "events_lost": "Events could not be written when the store was closed.",
    "exchange_fault": "An unexpected error while settling or claiming. It is tried again. Report it.",
    "fenced": "No heartbeat was accepted for `stale_s` − `heartbeat_s`. Handlers are told to stop.",
    "guard_lost": "The guard of child processes ended, and its children with it. The next child starts a new one.",
    "guard_stuck": "The guard of child processes did not end with the worker and was killed.",
    "handler_replaced": "A kind was registered twice. The last registration counts.",
    "heart_close_fault": "A broken heartbeat connection did not close cleanly. It is replaced all the same.",
    "hook_fault": "A hook of the application failed. `hook` and `name` say which; the job's outcome stays.",
    "id_tail_overflow": "More ids were made in a millisecond than fit. They go on in the next, in order.",
    "http_listening": "The worker serves /livez, /readyz and /metrics.",
    "idle_fault": "Upkeep while idle failed. `store_replaced` may stand next to it.",
    "job_dead": "A job ended without success; `reason` says why.",
    "job_done": "A job is done.",
    "job_failed": "An attempt failed and will be retried.",
    "job_log_lost": "The last lines of jobs could not be written before the worker stopped.",
    "job_released": "An interrupted job went back to its queue with its attempt restored.",
    "job_throttled": "A job waits because its upstream asked for it. No attempt was burnt.",
    "kind_unserved": "Jobs of a kind wait, and no worker of their queue has a handler for it.",
    "lease_gained": "This process now runs a loop for all.",
    "lease_lost": "Another process runs the loop now. Harmless: what it does is safe to be done twice.",
    "lifespan_fault": "A shared resource could not be closed. All is recorded; the worker ends with an error.",
    "line_fault": "What a child wrote could not be handled. Its job failed. A fault of forge-jobs: report it.",
    "listener_fault": "An unexpected error of the listener; it goes on. Report it.",
    "listener_lost": "The connection for notifications broke. It is made anew; until then jobs are found by polling.",
    "loop_fault": "A background loop failed and goes on after a pause.",
    "loop_lag": "The event loop was late by more than a second. `running` names the kinds that may block it.",
    "lost_ownership": "A run is no longer the owner of its job. Its result is dropped.",
    "metrics_unread": "The store's gauges could not be read for `/metrics`; `forge_jobs_store_up` is 0.",
    "migrated": "A migration was applied.",
    "network_file_system": "The database is on a network file system, and `force_network_fs` allows it.",
    "on_dead_dropped": "`on_dead` hooks are too slow, or the worker stopped: they did not hear of these deaths.",
    "observer_fault": "A hook on events raised. It is not called any more.",
    "news_fault": "The store did not answer the look for live news. It is repeated.",
    "operation_failed": "An act on many jobs ended, as the store refused. What it did before stays done.",
    "operation_fault": "An act on many jobs met an unexpected error. Report it.",
    "outcome_unreadable": "What a handler answered could not be read. It counts as a failure.",
    "poll_mode": "Wake-ups from other processes do not work here. Jobs are found by polling.",
    "pool_fault": "A worker pool stopped by an unexpected error. Report it.",
    "postgres_error": "What PostgreSQL said, in its own words.",
    "probe": "A request to the HTTP server of a worker.",
    "probe_fault": "An answer for a probe or scraper could not be made.",
    "progress_lost": "The last progress of a run could not be written. The job itself is not affected.",
    "queue_unserved": "Jobs of a queue wait, and no worker serves it.",
    "quieted": "An operator asked this worker to claim nothing more until it is resumed.",
    "rate_limit_fault": "The function that names a kind's rate limit failed. Its scope was not drained.",
    "rate_scope_unknown": "A rate limit that handlers name does not exist: their jobs wait. Declare it, or add it.",
    "reaped": "A job was taken back from a worker that fell silent.",
    "rebalanced": "The total of a queue was split anew over the processes.",
    "resources_ready": "The resources that handlers share are made; claims begin.",
    "resident_fault": "A handler failed when it was told that the runtime stops.",
    "reload": "A source file changed: the worker with `--reload` is started anew.",
    "reload_polls": "The system does not tell of changed files. They are looked for every moment.",
    "resumed": "An operator lets this worker claim jobs again.",
    "retry_after_cut": "A handler asked for more than 7 days. 7 days it is.",
    "revive_failed": "A stale job could not be taken back. The others were; this one is tried again.",
    "runtime_fault": "A part of the worker failed. The worker stops: half a worker is worse than none.",
    "settings_unreadable": "A queue's settings could not be read. Slots stay as they are.",
    "settle_fault": "An outcome could not be written. The job is ended `dead` with a note, so that it is not stuck.",
    "shutdown_begun": "The worker stops: no new jobs, handlers are told.",
    "shutdown_done": "The worker has stopped.",
    "shutdown_overrun": "A handler blocks the event loop past the grace. The process ends; its jobs are reaped later.",
    "shutdown_unsettled": "Outcomes could not be written before the end. The reaper gives those jobs back.",
    "slot_fault": "A slot failed and is replaced. A fault of forge-jobs: report it.",
    "sqlite_error": "What SQLite itself said.",
    "stop_asked": "An operator asked this worker to stop.",
    "store_error": "The store refused or did not answer. The exchange is tried again.",
    "store_replaced": "The database file was replaced or deleted. The process stops using it and ends.",
    "stray_released": "A claim whose answer was lost was given back.",
    "thread_claims_resumed": "Abandoned threads have ended. Jobs that need a thread are taken again.",
    "thread_claims_stopped": (
        "As many threads as `max_abandoned_threads` run on after their end was due. No job that needs one is taken "
        "until some have ended. Find out where those handlers hang; give their calls timeouts."
    ),
    "child_unreadable": "A child process sent what is no message. Its job failed; it is replaced.",
    "retiring": "The worker has done its share, or has grown too large. It ends when the jobs that it runs are done.",
    "task_fault": "A task ended with an error during the shutdown.",
    "tokens_unreadable": "The file of API tokens was changed and cannot be read. Those read before go on.",
    "trace_fault": "OpenTelemetry failed at the span of a run. The run is not affected.",
    "unfenced": "Heartbeats are accepted again; the worker goes on.",
    "upkeep_fault": "The table of jobs could not be vacuumed or analysed now. It is tried again after as many jobs.",
    "wake_fault": "A wake-up could not be read, or not be sent after a commit of your own. The poll finds the job.",
    "wake_mode": "Notifications arrive again.",
    "watch_fault": "A look for other processes' commits failed. It is repeated.",
    "worker_ended": "A worker with `--reload` ended by itself. The next change of a file starts it again.",
    "worker_started": "A worker is registered and its slots are open.",
}
EXCEPTION_LEVEL: Final = "error"
UNNAMED_FIELDS: Final[Mapping[str, str]] = {
    "enqueue_retry": "kind or batch, attempt, delay_ms, error",
    "events_dropped": "",
}
"""Where the template does not say it all: `enqueue_retry` names what it enqueues as its first field."""


class Outdated(Exception):
    """The tables above do not fit the code."""


def configuration() -> str:
    """`reference/configuration.md`."""
    bounds = _setting_bounds()
    known = settings.known_settings()
    _same("SETTINGS", SETTINGS, known)
    defaults = {**settings._defaults(), **settings._OWN_DEFAULTS}
    library = {f.name: f.default for f in (*dataclasses.fields(RuntimeConfig), *dataclasses.fields(StoreConfig))}
    rows = []
    for key in known:
        unit, purpose = SETTINGS[key]
        shown = _value(defaults[key])
        if key in library and library[key] != defaults[key]:
            shown += f" (in Python {_value(library[key])})"
        legal = ", ".join(f"`{word}`" for word in CHOICES[key]) if key in CHOICES else _range(bounds.get(key))
        rows.append((f"`{key}`", shown, f"`{settings.variable(key)}`", unit, legal, purpose))
    return _page(
        "Configuration",
        """
        Every setting of the command line and its worker. A value comes from the command's option, else from the
        environment, else from a file, else it is the default. The file is `forge.toml` in the current directory, or
        where there is none the table `[tool.forge-jobs]` of `pyproject.toml` there; directories above are not looked
        at. A blank variable is as good as an unset one. An unknown key, a wrong type or a value out of range is refused
        with file, line, key and value, and the exit code is 2. `forge-jobs doctor` prints every value with its source.

        Python programs do not read the environment or a file: they pass `RuntimeConfig` to `QueueRuntime` and
        `StoreConfig` to `open_storage`, with the same keys, defaults and bounds.
        """,
        _table(("key", "default", "environment", "unit", "legal values", "what it is for"), rows),
        f"""
        `RuntimeConfig` has: {_names(RuntimeConfig)}.

        `StoreConfig` has: {_names(StoreConfig)}.

        Settings of one queue are kept in the store, not here: see `forge-jobs queues set` in the
        [command line](cli.md). Settings of one kind are options of its handler: see
        [retry and throttle](../how-to/retry-and-throttle.md).
        """,
    )


def limits_page() -> str:
    """`reference/limits.md`."""
    found = {name: value for name, value in vars(limits).items() if name.isupper()}
    _same("LIMITS", LIMITS, found)
    rows = [
        (LIMITS[name][1], _limit(value, LIMITS[name][0]), LIMITS[name][0], f"`{name}`") for name, value in found.items()
    ]
    return _page(
        "Limits",
        """
        What is beyond a limit is refused before anything is written, with a message that names the field, the value
        and the rule. Where a value is cut or brought to its limit instead, the line says so. Values of
        `forge-jobs queues set` are brought to the nearest legal value, and the command says so.
        """,
        _table(("what", "limit", "unit", "name in `forge_jobs.limits`"), rows),
    )


def metrics_page() -> str:
    """`reference/metrics.md`."""
    parts = []
    for of, title in (("jobs", "Of jobs, by queue and kind"), ("process", "Of a process"), ("store", "Of the store")):
        rows = [(f"`{m.name}`", m.unit, m.meaning) for m in METRICS.values() if m.of == of]
        parts.append(f"## {title}\n\n" + _table(("metric", "unit", "what it is"), rows))
    return _page(
        "Metrics",
        f"""
        Metrics are kept by minute in the store, and read with `storage.metrics.series(metric, since, until, bucket=…)`:
        minutes from `since` to before `until`, in buckets of whole minutes that begin at multiples of their width, at
        most {limits.SERIES_BUCKETS} of them. `queue`, `kind` and `host_id` narrow a series down. A bucket without
        values is left out. In a bucket of several minutes, queues or kinds counts and sums add up, `p50` is the
        mean of the parts weighted by count and rounded, and `p95` and `p99` are those of the worst part.

        One worker of the cluster counts the events of closed minutes every `metrics_s` seconds, and makes good what was
        missed. A count is never lowered, and stays when its jobs are deleted. Counts are exact but for events
        that a process dropped or, killed, had not written yet, which is about two seconds. Times are of runs that have
        an event of their own: the first {PER_JOB_PER_SECOND} events of a second in each process. Percentiles of jobs
        are by nearest rank on exact values; those of a process are of values rounded to two digits.

        Every worker writes its own minute when it has closed, sampled every 10 s. What the system does not tell is left
        out. Metrics of jobs and of the store are kept for {METRICS_KEPT_DAYS} days, those of processes for
        {PROCESS_METRICS_KEPT_DAYS}.
        """,
        *parts,
    )


# Blockers: what each says, and whom it is about.

BLOCKERS: Final[Mapping[str, tuple[str, str]]] = {
    "unknown_id": ("job", "There is no such job, or it was deleted or purged."),
    "unknown_queue": ("queue", "There is no such queue."),
    "unknown_schedule": ("schedule", "There is no such schedule."),
    "unreadable": ("job", "Its row was written by a newer version, or is damaged."),
    "finished": ("job", "Done or dead: the reason, when, and whether a retry would be refused and by which job's key."),
    "expired": ("job", "Past its `expires_at`; the next sweep ends it."),
    "cancel_requested": ("job", "It runs and was asked to stop: by whom, and whether its worker has heard of it."),
    "running_stale": ("job", "Its worker is silent; when the job is taken back."),
    "running_no_slot": ("job", "A worker claimed it and has not begun it."),
    "running": ("job", "It runs: where, since when, which attempt, and how old the last heartbeat is."),
    "loop_dead": ("job, schedule", "The background loop that would move it on makes no progress in any live worker."),
    "schedule_invalid": ("schedule", "Its expression or zone cannot be read any more."),
    "schedule_finished": ("schedule", "No tick is left."),
    "schedule_disabled": ("schedule", "It is turned off: by whom, since when."),
    "schedule_failing": ("schedule", "Its tick meets an error again and again."),
    "no_leader": ("schedule", "No worker fires schedules."),
    "queue_stopped": ("job, queue", "The queue's total of workers is 0."),
    "queue_paused": ("job, queue", "By whom, since when; or in every process that could take the job."),
    "queue_full": ("queue", "`max_pending` jobs wait, so that further ones are refused."),
    "queue_unserved": ("job, queue", "No live worker serves the queue; who did last."),
    "kind_unserved": ("job, queue", "No live worker of the queue has a handler for the kind."),
    "threads_abandoned": ("job, queue", "The workers stopped taking the kind, since handlers would not end."),
    "workers_fenced": ("job, queue", "The workers live, and cannot reach the store in time."),
    "workers_quiet": ("job, queue", "An operator asked the workers to claim nothing until they are resumed."),
    "no_slots": ("job, queue", "No slot is open: no share of the total, or every worker is shutting down."),
    "rate_scope_unknown": ("job, queue", "The rate limit that the kind is paid from does not exist."),
    "queue_cooling_down": ("job, queue", "An upstream asked the whole queue to wait; until when."),
    "throttle_wait": ("job", "Its upstream asked it to wait; until when."),
    "retry_wait": ("job", "Its next attempt is due later; with the last error."),
    "scheduled": ("job, schedule", "Its time has not come."),
    "held": ("schedule", "Its last tick made no job, as another job holds the key."),
    "rate_limited": ("job, queue", "The bucket does not hold what the job costs; when it does."),
    "runs_alone": ("job", "It runs with nothing beside it, and no worker is idle."),
    "slots_busy": ("job, queue", "All slots work; the oldest job, and how long a run takes in the median."),
    "behind_others": ("job", "So many ready jobs stand before it."),
    "poll_mode": ("job, queue", "Workers are not told of new jobs: it may start a little later."),
    "ready": ("job, queue", "Nothing is in the way: the next claim takes it."),
    "idle": ("queue", "No job of it is due."),
}


def blockers_page() -> str:
    """`reference/blockers.md`."""
    _same("BLOCKERS", BLOCKERS, [code.value for code in BlockerCode])
    return _page(
        "Blockers",
        """
        What `jobs explain`, `queues explain` and `schedules explain` answer, and `storage.jobs.explain(id)` in Python:
        a list, most final first, in the order of this table. Each blocker has a `code`, a sentence (`text`), `since`
        and `until` where they are known, and a `remedy`. Everything is read in one snapshot, and nothing is changed.

        A job is explained as `ready` exactly if the next claim of a live worker takes it.
        """,
        _table(("code", "of", "says"), [(f"`{code.value}`", *BLOCKERS[code.value]) for code in BlockerCode]),
    )


def prometheus_page() -> str:
    """`reference/prometheus.md`."""

    def labels(names: Sequence[str]) -> str:
        return ", ".join(f"`{name}`" for name in names)

    counters = [(f"`{PREFIX}{one.name}_total`", labels(one.labels), one.meaning) for one in COUNTS.values()]
    histograms = [(f"`{PREFIX}{one.name}`", labels(one.labels), one.meaning) for one in HISTOGRAMS.values()]
    gauges = [(f"`{PREFIX}{one.name}`", labels(one.labels), one.of, one.meaning) for one in GAUGES.values()]
    return _page(
        "Prometheus",
        f"""
        What `/metrics` of `forge-jobs worker --http` says, in Prometheus' text format 0.0.4. Counters and histograms
        are of the process that is asked, since it began. Gauges of the store are of all processes together, read every
        5 s at most, so every worker tells the same: take one of them, with `max by (queue) (…)`.

        Kinds beyond {KINDS} become `other`. Ids, keys and payloads of jobs are never labels. A sample that nothing is
        known of is absent; HELP and TYPE are always there.
        """,
        "## Gauges\n\n" + _table(("name", "labels", "of", "what it is"), gauges),
        "## Counters\n\n" + _table(("name", "labels", "what it counts"), counters),
        "## Histograms\n\n" + _table(("name", "labels", "what it measures"), histograms),
    )


def cli() -> str:
    """`reference/cli.md`."""
    parts = [_command(name, command) for name, command in _commands("forge-jobs", program)]
    return _page(
        "Command line",
        """
        `--database URL` and `--debug` may stand before or after the name of a command. Data goes to stdout, everything
        else to stderr. The exit code is 0 for success, 1 for a failure, 2 for a mistake in the command or the
        configuration. `--json` prints one document; lists are `{"items": […], "next_cursor": …, "total": …}`.
        Durations are `90`, `90s`, `5m`, `2h`, `7d` or `250ms`. A command that only looks never creates a database.
        """,
        *parts,
    )


def http_api() -> str:
    """Every route with its role, what it takes and what it gives; and the codes of refusals."""
    described = openapi()
    schemas = described["components"]["schemas"]
    parts: dict[str, list[str]] = {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            parts.setdefault(operation["tags"][0], []).append(_route(method.upper(), path, operation, schemas))
    codes = [[f"`{code}`", str(status), TITLES[status]] for code, status in STATUS_OF.items()]
    return _page(
        "HTTP API",
        HTTP_INTRODUCTION,
        *(f"## {tag.capitalize()}\n\n" + "\n\n".join(routes) for tag, routes in parts.items()),
        "## Refusals\n\nA refusal is `application/problem+json` with `type`, `title`, `status`, `code`, `detail` and "
        "`request_id`, and where it is about one field with `field` and `reason`. Branch on `code` and `reason`; "
        "`detail` is for people. 429 and 503 come with `Retry-After`.",
        _table(["code", "status", "title"], codes),
    )


HTTP_INTRODUCTION: Final = """\
`forge-jobs serve` answers at `http://127.0.0.1:8787/api/v1`; `forge_jobs.api.create_app(storage, config)` is the same
as an ASGI app to mount. [Serving it safely](../how-to/serve-the-api-safely.md) tells who may call. The same as
OpenAPI 3.1 is at `/openapi.json`.

JSON in and out, UTF-8. Instants are RFC 3339; answers have them in UTC with microseconds. Durations are numbers of
seconds (`_s`) or milliseconds (`_ms`). What is not known is refused: fields, parameters, parameters given twice.
Nothing is converted: `"5"` is not 5, and `true` is not 1. `X-Request-Id` (up to 64 letters, digits and `-`) is kept,
logged, audited and returned; without one it is made.

Lists have `items`, `next_cursor` (null on the last page) and `total`. A cursor belongs to its list: it is refused
with another filter. A walk by cursors yields each row once, also while rows are added. A parameter that may be
repeated matches any of its values; given empty (`status=`), none.

Roles are `read`, `operate` and `admin`; each includes those before it. A change must come from the server's own pages
(`Sec-Fetch-Site` or `Origin` say so) or carry a bearer token; a program without a token sends `Sec-Fetch-Site: none`.
HEAD and OPTIONS are answered everywhere."""


def _route(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    role = operation["x-role"]
    lines = [f"### {method} {path}", f"{operation['summary']}. Role: {'any' if role == 'none' else role}."]
    if operation.get("description", operation["summary"]) != operation["summary"]:
        lines.append(operation["description"])
    given = [f"`{one['name']}`" for one in operation.get("parameters", ()) if one["in"] == "query"]
    if given:
        lines.append(f"Parameters: {', '.join(given)}.")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body is not None:
        lines.append(f"Body: {_shape(body, schemas)}.")
    for status, response in operation["responses"].items():
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        if int(status) < 400:
            told = f": {_shape(schema, schemas)}" if schema else ""
            lines.append(f"Answer {status}{told}.")
    return "\n\n".join(lines)


def _shape(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """The fields of a schema by name; those that must be given in bold."""
    if "anyOf" in schema:
        return next(_shape(one, schemas) for one in schema["anyOf"] if one.get("type") != "null") + ", or none"
    found = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    needed = found.get("required", ()) if found.get("additionalProperties") is False else ()
    fields = found.get("properties", {})
    if set(fields) == set(needed):  # an answer, whose fields are all there
        needed = ()
    told = [f"**`{name}`**" if name in needed else f"`{name}`" for name in fields]
    each = fields.get("items", {}).get("items", {})
    if "$ref" in each:
        told[list(fields).index("items")] += f" (of {_shape(each, schemas)})"
    return ", ".join(told) or "an empty object"


def errors_page() -> str:
    """`reference/errors.md`."""
    tree = textwrap.dedent(inspect.getdoc(errors) or "").partition("\n\n")[2]
    found = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == errors.__name__
    ]
    parts = []
    for one in sorted(found, key=lambda c: c.__name__):
        base = one.__bases__[0]
        fields = _attributes(one)
        text = f"## {one.__name__}\n\n{_prose(one)}\n\n"
        text += f"A kind of {'`' + base.__name__ + '`' if base in found else 'the built-in `Exception`'}."
        if fields:
            text += f" Attributes: {', '.join(f'`{name}`' for name in fields)}."
        text += f" On the command line: exit code {_exit_code(one)}."
        parts.append(text)
    return _page(
        "Errors",
        """
        Catch errors by class, never by text. All of them can be imported from `forge_jobs`. Expected answers are not
        errors: a deduplicated enqueue returns `Deduped`, a cancel of a finished job `already_finished`.
        """,
        f"```text\n{tree.rstrip()}\n```",
        """
        `is_transient_conflict(error)` is true when the same write may well succeed a moment later: for `Busy`, and for
        lock conflicts of a database. `ctx.enqueue` repeats such a write by itself after 100 ms, 300 ms and 1 s.
        """,
        *parts,
    )


def log_events() -> str:
    """`reference/log-events.md`."""
    found = dict(sorted(_log_lines().items()))
    _same("EVENTS", EVENTS, found)
    rows = [
        (f"`{event}`", ", ".join(sorted(levels)), f"`{', '.join(sorted(loggers))}`", fields or "–", EVENTS[event])
        for event, (levels, loggers, fields) in found.items()
    ]
    return _page(
        "Log events",
        """
        forge-jobs logs through Python's `logging` under the name `forge_jobs`. A line reads `event key=value …`. The
        worker of the command line prints JSON lines off a terminal, with `ts`, `level`, `event` and the fields below,
        and text on one. A name or field that changes is in the changelog. No line holds a payload. Claims and
        jobs that are done are told at debug level only; follow jobs with `forge-jobs jobs tail`.

        A warning or error that repeats about the same thing (the same queue, kind, loop or schedule) is logged once in
        60 s; the next one says in `left_out` how many there were between. What tells of another job each time, and what
        changes the state of the worker, is logged each time.

        Every line that is logged under a handler, by `ctx.log` (the logger `forge_jobs.job`) or any other logger,
        carries `job_id`, `kind`, `queue`, `attempt` and `fence`, and with OpenTelemetry `trace_id` and `span_id`; see
        [what a job logged](../how-to/see-what-a-job-logged.md). What a handler puts into the text of a line is its own
        business.
        """,
        _table(("event", "level", "logger", "fields", "what it means"), rows),
    )


SUITES: Final[Mapping[str, str]] = {
    "SQLite": "tests/conformance/test_sqlite_conformance.py",
    "PostgreSQL": "tests/postgres/conformance/test_older_server.py",
}
NOT_TAKEN: Final[Mapping[str, str]] = {
    "TestClockOfOneHost": "the server's clock is the only one that counts, so a worker's host may have any time",
}


def backends() -> str:
    """What the conformance suite demands of each backend, and how much SQL they share."""
    left_out = {backend: _left_out(ROOT / path) for backend, path in SUITES.items()}
    parts = [
        "Every backend runs one conformance suite, `forge_jobs.testing.conformance`, in `make test`; a guarantee is in "
        "this table because its tests pass, and none is skipped. ● holds; ○ does not apply there, as said below it.",
    ]
    for module, classes in _demands().items():
        rows = []
        for name, demands in classes.items():
            marks = ["○" if name in left_out[backend] else "●" for backend in SUITES]
            rows += [[demand, *marks] for demand in demands]
            if "○" in marks:
                rows.append([f"*○: {NOT_TAKEN[name]}*", *[""] * len(SUITES)])
        parts += [f"## {module}", _table(["demand", *SUITES], rows)]
    return _page("Guarantees and backends", *parts, "## The statements", *_shared_statements())


def _left_out(suite: Path) -> set[str]:
    tree = ast.parse(suite.read_text())
    deleted = [target for node in tree.body if isinstance(node, ast.Delete) for target in node.targets]
    return {target.id for target in deleted if isinstance(target, ast.Name)}


def _demands() -> dict[str, dict[str, list[str]]]:
    """Test names as sentences, by module and class of the suite."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted((SOURCE / "testing" / "conformance").glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                tests = [one.name for one in node.body if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))]
                said = [test.removeprefix("test_").replace("_", " ") for test in tests if test.startswith("test_")]
                topic = re.sub(r"(?<!^)([A-Z])", lambda m: f" {m[1].lower()}", node.name.removeprefix("Test"))
                demands = [f"{topic}: {one}" for one in said]
                found.setdefault(path.stem.replace("_", " ").capitalize(), {})[node.name] = demands
    return found


def _shared_statements() -> list[str]:
    pages = (SOURCE / "storage/sql/queries").glob("*.sql")
    shared = {name for page in pages for name in parse(page.read_text(), page.name)}
    sqlite, postgres = (
        parse((SOURCE / "storage" / folder / "overlay.sql").read_text(), folder) for folder in ("sqlite", "postgres")
    )
    both = sorted(sqlite.keys() & postgres.keys())
    return [
        f"{len(shared)} statements are written once. {len(sqlite)} read differently on SQLite and {len(postgres)} on "
        f"PostgreSQL; {len(both)} of these are the same verb in two ways, the others exist only there. The overlay of "
        "each backend says at the statement which feature forces it.",
        _table(
            ["where", "statements"],
            [
                ["in two ways", ", ".join(f"`{name}`" for name in both)],
                ["only SQLite", ", ".join(f"`{name}`" for name in sorted(sqlite.keys() - postgres.keys() - shared))],
                [
                    "only PostgreSQL",
                    ", ".join(f"`{name}`" for name in sorted(postgres.keys() - sqlite.keys() - shared)),
                ],
                ["PostgreSQL's own way of a shared one", ", ".join(f"`{n}`" for n in sorted(postgres.keys() & shared))],
            ],
        ),
    ]


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "reference/backends.md": backends,
    "reference/configuration.md": configuration,
    "reference/limits.md": limits_page,
    "reference/metrics.md": metrics_page,
    "reference/blockers.md": blockers_page,
    "reference/prometheus.md": prometheus_page,
    "reference/cli.md": cli,
    "reference/http-api.md": http_api,
    "reference/errors.md": errors_page,
    "reference/log-events.md": log_events,
}

# Settings and their bounds


def _setting_bounds() -> dict[str, tuple[float, float]]:
    """The bounds of every number, from the table of `RuntimeConfig` and the calls in `StoreConfig`."""
    found = dict(config._BOUNDS)
    for call in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(StoreConfig)))):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "check_number":
            name, low, high = call.args[0], call.args[2], call.args[3]
            assert isinstance(name, ast.Constant)
            found.setdefault(str(name.value), (_evaluate(low), _evaluate(high)))
    return found


def _evaluate(node: ast.expr) -> float:
    value: float = eval(ast.unparse(node), vars(config))  # noqa: S307
    return value


def _names(kind: type) -> str:
    return ", ".join(f"`{f.name}`" for f in dataclasses.fields(kind))


# Commands


def _commands(path: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    yield path, group
    for name in group.list_commands(click.Context(group)):
        command = group.commands[name]
        if isinstance(group, Group) and name in group._lazy:
            module, _, attribute = group._lazy[name][0].partition(":")
            command = getattr(importlib.import_module(module), attribute)
        if isinstance(command, click.Group):
            yield from _commands(f"{path} {name}", command)
        else:
            yield f"{path} {name}", command


def _command(path: str, command: click.Command) -> str:
    ctx = click.Context(command, info_name=path)
    text, _, example = inspect.cleandoc(command.help or "").partition("\b\n")
    usage = " ".join([path, *command.collect_usage_pieces(ctx)])
    parts = [f"## {path}", f"```text\n{usage}\n```", " ".join(text.split("\n\n")[0].split())]
    parts += [" ".join(paragraph.split()) for paragraph in text.split("\n\n")[1:] if paragraph.strip()]
    if example:
        lines = example.splitlines()[1:]
        parts.append("```text\n" + textwrap.dedent("\n".join(lines)).strip() + "\n```")
    options = [
        (f"`{_option(option)}`", _cell(option.help or ""), _default(option))
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden and option.name not in ("database", "debug")
    ]
    if options:
        parts.append(_table(("option", "what it does", "default"), options))
    return "\n\n".join(parts)


def _option(option: click.Option) -> str:
    names = " / ".join([", ".join(option.opts), *(option.secondary_opts or [])])
    if option.is_flag or option.count:
        return names
    if isinstance(option.type, click.types._NumberRangeBase) and not option.metavar:
        return f"{names} N"
    metavar = option.metavar or (
        "|".join(str(choice) for choice in option.type.choices)
        if isinstance(option.type, click.Choice)
        else option.type.name.upper()
    )
    return f"{names} {metavar}"


def _default(option: click.Option) -> str:
    return _value(option.default) if option.show_default else ""


# Errors


def _prose(one: type) -> str:
    """The class's own docstring, sentences rejoined."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(one.__doc__ or "").split("\n\n"))


def _attributes(one: type) -> list[str]:
    if "__init__" not in vars(one):
        return []
    tree = ast.parse(textwrap.dedent(inspect.getsource(one.__init__)))  # type: ignore[misc]
    return [
        node.targets[0].attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)
    ]


def _exit_code(one: type[BaseException]) -> int:
    error = one.__new__(one)
    error.__dict__.update(dict.fromkeys(_attributes(one), ()))
    return describe(error)[2]


# Log events

_CALL: Final = re.compile(r"([a-z][a-z0-9_]*)")
_LEVELS: Final = {"debug", "info", "warning", "error", "critical", "exception"}


def _log_lines() -> dict[str, tuple[set[str], set[str], str]]:
    """Every event in the source: its levels, its loggers, its fields."""
    found: dict[str, tuple[set[str], set[str], list[str]]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        if path.relative_to(SOURCE).parts[0] in ("bench", "demo", "testing"):
            continue
        tree = ast.parse(path.read_text())
        loggers = _loggers(tree)
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and (line := _log_line(call, tree)) is not None:
                event, level, fields = line
                levels, names, known = found.setdefault(event, (set(), set(), []))
                levels.add(level)
                names.add(loggers.get("log", "forge_jobs"))
                known += [field for field in fields if field not in known]
    return {
        event: (levels, names, UNNAMED_FIELDS.get(event, ", ".join(fields)))
        for event, (levels, names, fields) in found.items()
    }


def _loggers(tree: ast.Module) -> dict[str, str]:
    return {
        target.id: node.value.args[0].value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name)
        and ast.unparse(node.value.func) == "logging.getLogger"
        and isinstance(node.value.args[0], ast.Constant)
        and isinstance(node.value.args[0].value, str)
    }


def _log_line(call: ast.Call, tree: ast.Module) -> tuple[str, str, list[str]] | None:
    function = ast.unparse(call.func)
    if function == "tell" and len(call.args) == 3 and isinstance(call.args[2], ast.Constant):
        level = ast.unparse(call.args[1]).rpartition(".")[2].lower()
        return str(call.args[2].value), level, _told(call, tree)
    if not function.startswith("log.") or function[4:] not in _LEVELS or not call.args:
        return None
    template = call.args[0]
    if not isinstance(template, ast.Constant) or not isinstance(template.value, str):
        return None
    match = _CALL.match(template.value)
    assert match is not None, template.value
    level = EXCEPTION_LEVEL if function == "log.exception" else function[4:]
    return match[1], level, re.findall(r"(\w+)=%", template.value)


def _told(call: ast.Call, tree: ast.Module) -> list[str]:
    """The fields of a `tell`: the keys of the mapping that it spreads, then its keywords."""
    names: list[str] = []
    for keyword in call.keywords:
        if keyword.arg is not None:
            names.append(keyword.arg)
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                names += [str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)]
    return names


# The numbers of the README

_NUMBERS: Final[Mapping[str, str]] = {
    "drain": "run no-op jobs, one process, 100 slots",
    "drain_10": "the same with 10 slots, against a commit per claim and per finish",
    "drain_2p": "two processes on one file",
    "statements_per_job": "statements the server gets for a job, connecting and heartbeats included",
    "enqueue_one": "enqueue, one caller who waits for each answer",
    "enqueue_concurrent": "enqueue, 100 callers in one process",
    "enqueue_bulk": "`enqueue_bulk`",
    "pickup_p50": "from enqueue to handler, same process, median",
    "pickup_p99": "the same, 99th percentile",
    "pickup_other_process_p50": "from enqueue to handler, another process, median",
    "pickup_other_process_p99": "the same, 99th percentile",
    "claim_at_1m": "claim 100 jobs beside a million ready ones; ratio to ten thousand",
    "claim_future_band": "claim 100 jobs beside 100 000 scheduled ones of better priority; ratio to none",
    "claim_blocked": "claim 100 jobs beside 100 000 better ones whose rate limit is used up; ratio to ten",
    "claim_after_churn": "the same beside both, after half a million jobs came and went; ratio to a fresh table",
    "claim_during_purge": "claim 10 jobs while retention removes half a million, 99th percentile; ratio to before it",
    "idle_rss": "memory of an idle worker",
    "idle_cpu": "one core's share that an idle worker uses",
}
NUMBERS: Final[Mapping[str, Mapping[str, str]]] = {
    "sqlite": _NUMBERS,
    "postgresql": {
        **_NUMBERS,
        "drain_2p": "two processes; ratio to one",
        "enqueue_concurrent": "enqueue, 100 callers in one process; ratio to bare commits one by one",
    },
}
"""What each number is, by backend."""
COMMANDS: Final = {"sqlite": "forge-jobs bench", "postgresql": "forge-jobs bench --backend postgres"}
BACKEND_NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def marks(backend: str) -> tuple[str, str]:
    """What stands before and after the table of a backend."""
    return f"<!-- numbers {backend}: begin -->", f"<!-- numbers {backend}: end -->"


def numbers(run: Mapping[str, Any]) -> str:
    """The table of the README from the document of `forge-jobs bench --json`."""
    results = {result["name"]: result for result in run["results"]}
    place = run["environment"]
    backend = place["backend"]
    rows = []
    for name, what in NUMBERS[backend].items():
        result = results.get(name)
        if result is None or result["value"] is None:
            continue
        value = _number(round(result["value"])) if result["value"] >= 100 else f"{result['value']:.3g}"
        ratio = "" if result["ratio"] is None else f"{result['ratio']:.2f}"
        rows.append((what, f"{value} {result['unit']}", ratio, f"`{COMMANDS[backend]} --only {name}`"))
    name, version = BACKEND_NAMES[backend], place["versions"][backend]
    disk = f", {place['file_system']}" if place["file_system"] else ""
    load = ", ".join(f"{load:g}" for load in place["load"])
    settings = ", ".join(f"`{setting}={value}`" for setting, value in place["settings"].items())
    return "\n\n".join(
        [
            f"{name}, measured on {place['taken_at'][:10]} on a shared {place['cores']}-core machine "
            f"({place['cpu']}{disk}) with other work on it: load {load} at the start. "
            f"Python {place['versions']['python']}, {name} {version}, durability `{place['durability']}` ({settings}), "
            f"{_number(place['jobs'])} jobs, median of {place['repeat']}.",
            _table(("measure", "value", "ratio to raw limit", "command"), rows),
        ]
    )


def write_numbers(page: Path, run: Path) -> None:
    """Put the table of a run between the marks of its backend on the page."""
    document = json.loads(run.read_text())
    begin, end = marks(document["environment"]["backend"])
    text = page.read_text()
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    if not tail:
        raise Outdated(f"{page} lacks the marks {begin} and {end}")
    page.write_text(f"{head}{begin}\n\n{numbers(document)}\n\n{end}{tail}")


# Markdown


def _page(title: str, *parts: str) -> str:
    body = "\n\n".join(textwrap.dedent(part).strip() for part in parts)
    return f"# {title}\n\n{NOTE}\n\n{body}\n"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def _value(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case dict() if not value:
            return "none"
        case tuple() | list():
            return ", ".join(f"`{one}`" for one in value)
        case int() | float():
            return _number(value)
    return f"`{value}`"


def _number(value: float) -> str:
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else f"{value:g}"


def _bounds(bounds: tuple[float, float]) -> str:
    return f"{_number(bounds[0])} … {_number(bounds[1])}"


def _limit(value: Any, unit: str) -> str:
    if unit == "years":
        return f"{value[0]} … {value[1]}"
    return _bounds(value) if isinstance(value, tuple) else f"at most {_number(value)}"


def _range(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else _bounds(bounds)


def _same(table: str, told: Mapping[str, Any], found: Sequence[str] | Mapping[str, Any]) -> None:
    missing, gone = set(found) - set(told), set(told) - set(found)
    if missing or gone:
        raise Outdated(f"docs/generate.py: {table} lacks {sorted(missing)} and has {sorted(gone)}, which are gone")


def outdated() -> list[str]:
    """The pages that do not say what the code says."""
    return [page for page, make in PAGES.items() if not (DOCS / page).exists() or (DOCS / page).read_text() != make()]


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] == "--numbers":
        write_numbers(ROOT / "README.md", Path(arguments[1]))
        return 0
    if arguments == ["--check"]:
        for page in outdated():
            sys.stderr.write(f"docs/{page} is not up to date: python docs/generate.py\n")
        return 1 if outdated() else 0
    for page, make in PAGES.items():
        (DOCS / page).write_text(make())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
