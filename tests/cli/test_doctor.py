"""Is anything wrong, and what helps?"""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.rate_limit import Gate
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import make_process

from .stage import Cli, add, in_store


def test_a_sound_store_is_exit_code_0(cli: Cli) -> None:
    cli("db", "create")
    result = cli("doctor", "--json")
    assert result.code == 0
    verdicts = {check["name"]: check["verdict"] for check in result.json["checks"]}
    assert set(verdicts) >= {
        "settings",
        "store",
        "schema",
        "durability",
        "wal-reset",
        "disk",
        "size",
        "workers",
        "unserved",
    }
    assert "fail" not in verdicts.values()
    assert result.json["ok"] is True
    for check in result.json["checks"]:
        assert (check["verdict"] == "ok") == (check["remedy"] is None), check


def test_each_setting_is_shown_with_its_source(here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "forge.toml").write_text("slots = 3\n")
    monkeypatch.setenv("FORGE_HEARTBEAT_S", "2")
    cli("db", "create")
    config = {one["key"]: (one["value"], one["source"]) for one in cli("doctor", "--json").json["config"]}
    assert config["slots"] == (3, "forge.toml line 1")
    assert config["heartbeat_s"] == (2, "FORGE_HEARTBEAT_S")
    assert config["reaper_s"] == (5.0, "default")
    plain = cli("doctor").out
    assert "forge.toml line 1" in plain
    assert "FORGE_HEARTBEAT_S" in plain


def test_a_misspelt_variable_is_a_warning(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("db", "create")
    monkeypatch.setenv("FORGE_SLOT", "3")
    result = cli("doctor")
    assert result.code == 0
    assert "did you mean FORGE_SLOTS?" in result.out


def test_a_missing_store_is_exit_code_1_with_a_remedy(here: Path, cli: Cli) -> None:
    result = cli("doctor", "--json")
    assert result.code == 1
    (failed,) = [check for check in result.json["checks"] if check["verdict"] == "fail"]
    assert str(here / "forge-jobs.db") in failed["detail"]
    assert "forge-jobs db create" in failed["remedy"]
    assert cli("doctor").code == 1


def test_what_waits_without_a_worker_is_a_warning(cli: Cli) -> None:
    add(queue="mail")
    result = cli("doctor")
    assert result.code == 0
    assert "queue mail has no live worker; 1 job waits" in result.out
    assert "start a worker with --queues mail" in result.out
    cli("queues", "pause", "mail")
    assert "has no live worker" not in cli("doctor").out


def test_weaker_durability_is_a_warning(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_DURABILITY", "process")
    cli("db", "create")
    (check,) = [one for one in cli("doctor", "--json").json["checks"] if one["name"] == "durability"]
    assert check["verdict"] == "warn"


def test_a_rate_limit_of_a_live_worker_that_does_not_exist(cli: Cli) -> None:
    process = make_process(gates=(Gate(kind="send", scope="upstream"),))

    async def beat(storage: Storage) -> None:
        with Beater(storage) as beater:
            await beater.beat(process)

    in_store(beat)
    scopes = [one for one in cli("doctor", "--json").json["checks"] if one["name"] == "rate limits"]
    assert [one["verdict"] for one in scopes] == ["warn"]
    assert "upstream does not exist, so jobs of kind send wait for ever" in scopes[0]["detail"]
    cli("limits", "add", "upstream", "--capacity", "5", "--refill", "1")
    in_store(beat)
    scopes = [one for one in cli("doctor", "--json").json["checks"] if one["name"] == "rate limits"]
    assert [one["verdict"] for one in scopes] == ["ok"]
