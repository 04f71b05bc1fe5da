"""What the log says, and how."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from forge_jobs import HandlerRegistry
from forge_jobs.cli.logs import fields_of, hide_secrets_of, log_to_stderr, talk
from forge_jobs.redact import HIDDEN, HIDDEN_ERROR, Secrets

log = logging.getLogger("forge_jobs.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    logger = logging.getLogger("forge_jobs")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def written(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().err.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_an_event_is_one_json_line_with_typed_fields(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info", "auto")
    log.warning("reaped job_id=%s kind=%s crashes=%d silent_s=%.1f mode=fast", "J1", "a kind", 2, 1.25)
    line = written(capsys)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "reaped",
        "mode": "fast",
        "job_id": "J1",
        "kind": "a kind",
        "crashes": 2,
        "silent_s": 1.25,
    }


def test_extra_fields_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info", "json")
    log.info("%s%s", "job_done", " kind=x", extra={"event": "job_done", "fields": {"kind": "x", "attempt": 1}})
    assert {k: v for k, v in written(capsys).items() if k not in ("ts", "level")} == {
        "event": "job_done",
        "kind": "x",
        "attempt": 1,
    }
    log.info("from a handler", extra={"job_id": "J1", "fence": 3})
    line = written(capsys)
    assert (line["event"], line["job_id"], line["fence"]) == ("from a handler", "J1", 3)


def test_neither_control_characters_nor_secrets_get_through(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[31m\nfake line\x7f\u202e password=hunter2 postgresql://me:hunter2@db/x"
    for format in ("json", "text"):
        log_to_stderr("info", format)
        log.info("job_failed error=%s", evil)
        try:
            raise ValueError(evil)
        except ValueError:
            log.exception("loop_fault loop=%s", "reaper")
        err = capsys.readouterr().err
        assert not set(err) & set("\x1b\x7f\u202e")
        assert "hunter2" not in err
        assert "ValueError" in err
        if format == "json":
            assert len([json.loads(line) for line in err.splitlines()]) == 2


def test_text_is_one_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info", "text")
    log.info("worker_started queues=%s slots=%d", "a,b", 3)
    (line,) = capsys.readouterr().err.splitlines()
    assert "worker_started" in line
    assert line.endswith("queues=a,b slots=3")


def test_the_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("warning", "json")
    log.info("nothing_here")
    log.warning("something_here")
    assert written(capsys)["event"] == "something_here"


def test_a_short_command_passes_warnings_on_as_talk(capsys: pytest.CaptureFixture[str]) -> None:
    talk(logging.WARNING)
    log.info("not this")
    log.warning("poll_mode: no wake socket at %s", "/x\x1b")
    assert capsys.readouterr().err == "warning: poll_mode: no wake socket at /x\\x1b\n"


@pytest.mark.parametrize(
    ("template", "arguments", "fields"),
    [
        ("poll_mode: no socket (%s)", ("x",), {"event": "poll_mode", "message": "no socket (x)"}),
        ("a_b c=%s; the reaper helps", ("y z",), {"event": "a_b", "c": "y z", "message": "c=y z; the reaper helps"}),
        ("retry %s attempt=%d", ("kind=x", 2), {"event": "retry", "attempt": 2}),
        ("enqueue_retry %s attempt=%d", ("kind=x", 2), {"event": "enqueue_retry", "attempt": 2}),
        ("100% of it", (), {"event": "100% of it"}),
        ("share_cut at=%d%%", (5,), {"event": "share_cut", "at": 5}),
        ("echoing %s", ({"a": 1},), {"event": "echoing {'a': 1}"}),
        (ValueError("odd"), (), {"event": "odd"}),
    ],
)
def test_fields_come_from_the_template(template: Any, arguments: tuple[Any, ...], fields: dict[str, Any]) -> None:
    text = str(template) % arguments if arguments else str(template)
    assert fields_of(template, arguments, text) == fields


def test_what_handlers_of_this_process_hide_is_hidden_in_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    handlers = HandlerRegistry()
    handlers.handler("pay", redact="iban")(lambda payload: None)
    handlers.handler("card", payload_view="hidden")(lambda payload: None)
    log_to_stderr("info", "json")
    hide_secrets_of(handlers.secrets)
    try:
        log.warning("job_failed kind=%s error=%s", "pay", "no iban=DE1")
        assert written(capsys)["error"] == f"no iban={HIDDEN}"
        log.warning("job_failed kind=%s error=%s", "other", "no iban=DE1")
        assert written(capsys)["error"] == "no iban=DE1"
        log.warning("paying iban=%s password=%s", "DE1", "x", extra={"kind": "pay"})
        line = written(capsys)
        assert (line["iban"], line["password"]) == (HIDDEN, HIDDEN)
        try:
            raise ValueError("DE1")
        except ValueError as error:
            log.warning("job_failed kind=%s error=%s", "card", error, exc_info=True)
        line = written(capsys)
        assert line["error"] == HIDDEN_ERROR
        assert line["exception"].endswith(f"ValueError: {HIDDEN_ERROR}")
        handlers.handler("other", redact="iban")(lambda payload: None)
        log.warning("job_failed kind=%s error=%s", "other", "no iban=DE1")
        assert written(capsys)["error"] == f"no iban={HIDDEN}"
    finally:
        hide_secrets_of(Secrets)
