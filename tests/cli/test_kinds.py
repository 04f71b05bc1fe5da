"""`forge-jobs kinds`, and what every command hides of jobs by what code says of their kinds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from forge_jobs.redact import HIDDEN, HIDDEN_ERROR, HIDDEN_PAYLOAD

from .stage import Cli, program

Start = Callable[..., "subprocess.Popen[str]"]
SECRETS = ("DE89370400440532013000", "4929123456781234")
CODE = """
from forge_jobs import HandlerRegistry

handlers = HandlerRegistry()
handlers.limit("bank", capacity=100, refill_per_s=100)

@handlers.handler("pay", redact={keys}, rate_limit="bank")
async def pay(ctx, payload):
    "Pay somebody."
    ctx.log.info("paying iban=%s", payload["iban"])
    raise ValueError("no account, iban=" + payload["iban"])

@handlers.handler("card", payload_view="{view}")
async def card(payload):
    raise ValueError("no card " + payload["number"])
"""


@pytest.fixture
def ran(app: Path, worker: Start, cli: Cli) -> list[str]:
    """The ids of a job of each kind that a worker ran to its end, and the log of that worker."""
    app.write_text(CODE.format(keys=["iban"], view="hidden"))
    assert cli("enqueue", "pay", f'{{"iban": "{SECRETS[0]}"}}', "--max-attempts", "1").code == 0
    assert cli("enqueue", "card", f'{{"number": "{SECRETS[1]}"}}', "--max-attempts", "1").code == 0
    done = worker("--drain", "--queues", "default")
    _, said = done.communicate(timeout=30)
    assert done.returncode == 0, said
    assert "job_dead" in said or "paying" in said
    assert not any(secret in said for secret in SECRETS)
    return [one["id"] for one in cli("jobs", "list", "--json").json["items"]]


def test_no_command_shows_what_handlers_hide(ran: list[str], cli: Cli) -> None:
    cli("schedules", "add", "payday", "pay", "@daily", "--payload", f'{{"iban": "{SECRETS[0]}"}}')
    said = {
        words: cli(*words)
        for words in (
            *(("jobs", verb, id, *form) for id in ran for verb in ("show", "explain") for form in ((), ("--json",))),
            *(("jobs", "list", *form) for form in ((), ("--json",), ("--jsonl",))),
            *(("jobs", "export", "--format", form) for form in ("jsonl", "csv")),
            *(("jobs", "tail", "--id", id) for id in ran),
            *(("schedules", "list", "--json"), ("schedules", "disable", "payday", "--json")),
        )
    }
    for words, result in said.items():
        assert result.code == 0, words
        assert not any(secret in result.out + result.err for secret in SECRETS), words
    shown = {one["kind"]: one for one in cli("jobs", "list", "--json").json["items"]}
    assert HIDDEN in shown["pay"]["payload_preview"]
    assert shown["card"]["last_error"] == HIDDEN_ERROR
    (card,) = (id for id in ran if shown["card"]["id"] == id)
    assert cli("jobs", "show", card, "--json").json["payload"] == HIDDEN_PAYLOAD


def test_kinds_are_listed_and_shown_with_their_schema(ran: list[str], cli: Cli) -> None:
    listed = {one["kind"]: one for one in cli("kinds", "list", "--json").json["items"]}
    assert {kind: (one["dead"], one["declared"]) for kind, one in listed.items()} == {
        "card": (1, True),
        "pay": (1, True),
    }
    assert [line.split()[0] for line in cli("kinds", "list").lines[1:]] == ["card", "pay"]
    shown = cli("kinds", "show", "pay").out
    for part in ("Pay somebody.", "bank", "iban", "schema of its payloads"):
        assert part in shown, part
    assert cli("kinds", "show", "pay", "--json").json["declaration"]["rate_limit"] == "bank"
    missing = cli("kinds", "show", "none")
    assert (missing.code, "there is no kind 'none'" in missing.err) == (1, True)
    assert cli("kinds", "show", "a,b").code == 2
    (limit,) = cli("limits", "list", "--json").json["items"]
    assert (limit["kinds"], limit["waiting"]) == (["pay"], 0)


def test_rules_stay_until_an_operator_resets_them(ran: list[str], app: Path, cli: Cli) -> None:
    app.write_text(CODE.format(keys=[], view="redacted"))
    assert program("kinds", "declare", "app:handlers").out == "declared 2 kinds; card, pay changed\n"
    assert SECRETS[0] not in cli("jobs", "list", "--json").out
    assert "kinds reset" in cli("kinds", "show", "pay").err
    asked = cli("kinds", "reset", "pay")
    assert (asked.code, "give --yes" in asked.err) == (2, True)
    after = cli("kinds", "reset", "pay", "--yes", "--json")
    assert (after.code, after.json["redact"]) == (0, [])
    shown = cli("jobs", "list", "--json").out
    assert (SECRETS[0] in shown, SECRETS[1] in shown) == (True, False)
    assert cli("kinds", "reset", "none", "--yes").code == 1
