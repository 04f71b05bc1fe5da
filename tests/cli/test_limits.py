"""Rate limits on the command line."""

from __future__ import annotations

import pytest

from .stage import Cli, add


def test_a_limit_is_added_listed_tuned_drained_and_removed(cli: Cli) -> None:
    add()
    made = cli("limits", "add", "gh", "--capacity", "5000", "--refill", "3600/1h", "--json")
    assert made.code == 0
    assert (made.json["scope"], made.json["capacity"], made.json["refill_per_s"]) == ("gh", 5000, 1)
    assert "exists already" in cli("limits", "add", "gh", "--capacity", "1", "--refill", "1").err
    cli("limits", "add", "chat", "--capacity", "50", "--refill", "0", "--per-key")
    page = cli("limits", "list", "--json").json
    assert [(one["scope"], one["tokens"], one["per_key"]) for one in page["items"]] == [
        ("chat", 50, True),
        ("gh", 5000, False),
    ]
    lines = cli("limits", "list").lines
    assert lines[0].split() == ["SCOPE", "TOKENS", "CAPACITY", "REFILL/S", "SHUT", "FOR", "KEYS", "WAITING", "KINDS"]
    assert lines[1].split() == ["chat", "50", "50", "fixed", "-", "each", "its", "own", "0"]
    assert len(cli("limits", "list", "--jsonl").lines) == 2

    tuned = cli("limits", "set", "gh", "--capacity", "10", "--refill", "30/m", "--json").json
    assert (tuned["capacity"], tuned["refill_per_s"], tuned["tokens"]) == (10, 0.5, 10)
    assert tuned["changed_by"]
    drained = cli("limits", "drain", "gh", "--for", "10m", "--json").json
    assert drained["tokens"] < 1
    assert drained["blocked_until"] is not None
    assert "9m" in cli("limits", "list").lines[2]
    assert cli("limits", "remove", "gh").code == 2
    assert cli("limits", "remove", "gh", "--yes").out == "gh removed\n"
    assert [one["scope"] for one in cli("limits", "list", "--json").json["items"]] == ["chat"]


@pytest.mark.parametrize("command", [("set", "no", "--capacity", "1"), ("drain", "no"), ("remove", "no", "--yes")])
def test_an_unknown_scope_is_exit_code_1(cli: Cli, command: tuple[str, ...]) -> None:
    add()
    result = cli("limits", *command)
    assert (result.code, result.out) == (1, "")
    assert "there is no rate limit 'no'" in result.err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("add", "a b", "--capacity", "1", "--refill", "1"), "scope name 'a b' is not legal"),
        (("add", "a", "--capacity", "0", "--refill", "1"), "capacity 0.0 must be more than 0"),
        (("add", "a", "--capacity", "inf", "--refill", "1"), "capacity inf must be a finite number"),
        (("add", "a", "--capacity", "1", "--refill", "-1"), "refill_per_s -1.0 must be a finite number"),
        (("add", "a", "--capacity", "1", "--refill", "5/x"), "'5/x' is no rate"),
        (("add", "a", "--capacity", "1", "--refill", "5/0s"), "the duration must be more than 0"),
        (("add", "a", "--capacity", "1"), "missing option"),
        (("set", "a"), "nothing to change"),
        (("set", "a", "--capacity", "nan"), "capacity nan must be a finite number"),
        (("drain", "a", "--for", "soon"), "--for"),
    ],
)
def test_what_cannot_be_is_refused_before_a_store_is_opened(cli: Cli, command: tuple[str, ...], says: str) -> None:
    result = cli("limits", *command)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
