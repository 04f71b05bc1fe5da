"""Where settings come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_jobs import ConfigError
from forge_jobs.cli.settings import load_settings
from forge_jobs.testing.throwaway import reserved_port

from .stage import Cli


def test_without_anything_the_defaults_hold() -> None:
    settings = load_settings(environment={})
    assert settings.database == "sqlite:///forge-jobs.db"
    assert settings.queues == ("default",)
    assert settings.runtime.slots == 10
    assert settings.runtime.shutdown_grace_s == 25
    assert settings.store.durability == "full"
    assert not settings.is_given("slots")


def test_an_option_beats_the_environment_which_beats_the_file(here: Path) -> None:
    (here / "forge.toml").write_text("slots = 3\nheartbeat_s = 2\nmax_crashes = 7\n")
    settings = load_settings({"slots": 9}, environment={"FORGE_SLOTS": "5", "FORGE_HEARTBEAT_S": "1.5"})
    assert (settings.runtime.slots, settings.runtime.heartbeat_s, settings.runtime.max_crashes) == (9, 1.5, 7)
    assert str(settings.sources["slots"]) == "--slots"
    assert str(settings.sources["heartbeat_s"]) == "FORGE_HEARTBEAT_S"
    assert str(settings.sources["max_crashes"]) == "forge.toml line 3"
    assert str(settings.sources["reaper_s"]) == "default"


def test_the_table_in_pyproject_is_read(here: Path) -> None:
    (here / "pyproject.toml").write_text('[project]\nname = "x"\nslots = 1\n\n[tool.forge-jobs]\nqueues = ["a", "b"]\n')
    settings = load_settings(environment={})
    assert settings.queues == ("a", "b")
    assert str(settings.sources["queues"]) == "pyproject.toml line 6"


def test_forge_toml_is_read_in_place_of_pyproject_and_that_is_noted(here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.forge-jobs]\nslots = 1\n")
    (here / "forge.toml").write_text("slots = 2\n")
    settings = load_settings(environment={})
    assert settings.runtime.slots == 2
    assert "pyproject.toml is not read" in settings.notes[0]


def test_directories_above_are_not_looked_at(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "forge.toml").write_text("slots = 2\n")
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    assert load_settings(environment={}).runtime.slots == 10


def test_queues_of_the_environment_are_split_trimmed_and_without_blanks() -> None:
    settings = load_settings(environment={"FORGE_QUEUES": " a, b,,a ", "FORGE_WORKER_NAME": "  blue "})
    assert settings.queues == ("a", "b")
    assert settings.worker_name == "blue"


def test_a_blank_variable_is_as_good_as_unset() -> None:
    settings = load_settings(environment={"FORGE_SLOTS": "", "FORGE_DATABASE_URL": " ", "FORGE_WORKER_NAME": " "})
    assert settings.runtime.slots == 10
    assert settings.database == "sqlite:///forge-jobs.db"
    assert settings.worker_name is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("FORGE_SLOTS", "many", "FORGE_SLOTS: slots 'many' must be a whole number"),
        ("FORGE_SLOTS", "0", "FORGE_SLOTS: slots 0 is not within 1 … 2000"),
        ("FORGE_HEARTBEAT_S", "nan", "FORGE_HEARTBEAT_S: heartbeat_s nan must be a number"),
        ("FORGE_QUEUES", " , ", "FORGE_QUEUES ' , ' names no queue"),
        ("FORGE_QUEUES", "a b", "FORGE_QUEUES: queues: queue name 'a b' is not legal"),
        ("FORGE_DURABILITY", "off", "FORGE_DURABILITY: durability 'off' must be one of full, process"),
        ("FORGE_LOG_LEVEL", "warn", "did you mean 'warning'?"),
        ("FORGE_FORCE_NETWORK_FS", "maybe", "force_network_fs 'maybe' must be true or false"),
        ("FORGE_WORKER_NAME", "x" * 129, "worker_name of 129 characters is over 128"),
        (
            "FORGE_DATABASE_URL",
            "jobs.db",
            "FORGE_DATABASE_URL: database URL 'jobs.db' is neither of the form sqlite:///",
        ),
    ],
)
def test_a_bad_variable_is_named_with_its_value(name: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(environment={name: value})
    assert says in str(caught.value)


TABLE = '[database]\nhost = "db"\ndatabase = "jobs"\nusername = "me"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slots = -1", "forge.toml line 1: slots -1 is not within"),
        ("\nstale_s = 1\nheartbeat_s = 5", "forge.toml line 2: stale_s 1 must be at least"),
        ('stale_s = "nan"', "forge.toml line 1: stale_s 'nan' must be a number"),
        ("slots = true", "forge.toml line 1: slots True must be a whole number"),
        ("slots = 2.5", "forge.toml line 1: slots 2.5 must be a whole number"),
        ("poll_ms = inf", "forge.toml line 1: poll_ms inf must be a number"),
        ('durability = "off"', "forge.toml line 1: durability 'off' must be one of full, process"),
        ('database = "sqlite:////nfs/share/x.db"', "forge.toml line 1: database 'sqlite:////nfs/share/x.db'"),
        ("database = 5", "forge.toml line 1: database 5 must be text"),
        ('[database]\nhost = "db"', "forge.toml line 1: database: username is missing"),
        (TABLE, "forge.toml line 1: database: there is none of password, password_env and password_file"),
        (f'{TABLE}pasword = "x"', "database: unknown key 'pasword'; did you mean 'password'?"),
        (f'{TABLE}port = "5432"', "database: port '5432' must be a whole number from 1 to 65535"),
        (f"{TABLE}password = 7", "database: password … must be text"),
        (f'{TABLE}password_env = "NO_SUCH_SECRET"', "names the variable NO_SUCH_SECRET, which is not set"),
        (f'{TABLE}password_env = "hunter-2"', "is it the password itself?"),
        (f'{TABLE}password_file = "gone"', "password_file 'gone' cannot be read: No such file"),
        ('# first\nqueues = "a,b"', "forge.toml line 2: queues 'a,b' must be a list"),
        ("queues = []", "forge.toml line 1: queues [] names no queue"),
        ("[[[", "forge.toml is not TOML"),
        ('a = "x', "line 1"),
        ("unknwon = 1", "forge.toml line 1: unknown key 'unknwon'"),
        ('"slts" = 1', "forge.toml line 1: unknown key 'slts'; did you mean 'slots'? (its value is 1)"),
    ],
)
def test_a_bad_file_ends_every_command_with_2_and_names_the_place(here: Path, cli: Cli, text: str, says: str) -> None:
    (here / "forge.toml").write_text(text)
    for command in (["jobs", "list"], ["enqueue", "echo"], ["doctor"], ["worker", "app:handlers"]):
        result = cli(*command)
        assert result.code == 2, command
        assert says in result.err
        assert result.out == ""
    assert [path.name for path in here.iterdir()] == ["forge.toml"]


def test_an_unreadable_file_ends_with_2(here: Path, cli: Cli) -> None:
    (here / "forge.toml").write_bytes(b"slots = 1 # \xff")
    result = cli("jobs", "list")
    assert (result.code, result.err) == (2, "error: forge.toml cannot be read: it is not UTF-8\n")
    (here / "forge.toml").unlink()
    (here / "forge.toml").mkdir()
    assert "forge.toml cannot be read: Is a directory" in cli("jobs", "list").err


def test_a_table_describes_a_server_and_where_its_password_is(here: Path) -> None:
    (here / "secret").write_text("p@ss/word\n")
    (here / "forge.toml").write_text(f'{TABLE}port = 6000\npassword_file = "secret"\n')
    assert load_settings(environment={}).database == "postgresql://me:p%40ss%2Fword@db:6000/jobs"
    (here / "forge.toml").write_text(f'{TABLE}password_env = "DB_PASSWORD"\n')
    assert load_settings(environment={"DB_PASSWORD": "x"}).database == "postgresql://me:x@db:5432/jobs"
    (here / "forge.toml").write_text(f'{TABLE}password = "y"\npassword_env = "DB_PASSWORD"\n')
    assert load_settings(environment={"DB_PASSWORD": "x"}).database == "postgresql://me:y@db:5432/jobs"
    (here / "forge.toml").write_text(f'{TABLE.replace("db", "/run/pg")}password = "y"\n')
    assert load_settings(environment={}).database == "postgresql://me:y@:5432/jobs?host=%2Frun%2Fpg"


def test_a_password_in_a_url_is_never_shown(cli: Cli) -> None:
    with reserved_port() as closed:
        result = cli("--database", f"postgresql://me:hunter2@127.0.0.1:{closed}/jobs", "jobs", "list")
    assert result.code == 1
    assert f"PostgreSQL at 127.0.0.1:{closed}/jobs does not answer" in result.err
    assert "hunter2" not in result.err


def test_a_network_file_system_is_refused_by_the_setting_that_named_it(
    here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_jobs.storage.sqlite.storage.file_system", lambda directory: "nfs4")
    (here / "forge.toml").write_text('\ndatabase = "sqlite:///x.db"\n')
    result = cli("enqueue", "echo")
    assert result.code == 2
    assert "forge.toml line 2: database" in result.err
    assert "network file system (nfs4)" in result.err
    assert not (here / "x.db").exists()


def test_the_database_is_understood_before_and_after_the_command(cli: Cli) -> None:
    assert cli("--database", "sqlite:///a.db", "enqueue", "echo").code == 0
    assert cli("jobs", "list", "--database", "sqlite:///a.db", "--json").json["total"] == 1
    assert cli("jobs", "list").code == 1
