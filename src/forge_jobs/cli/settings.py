"""Where settings come from: an option, else the environment, else a file in the current directory, else the default.

The file is `forge.toml`, or where there is none the table `[tool.forge-jobs]` of `pyproject.toml`; directories above
are not looked at. What is wrong is refused by file, line, key and value.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from forge_jobs.cli.database_table import url_of_table
from forge_jobs.config import RuntimeConfig, StoreConfig, unknown_key
from forge_jobs.names import check_name
from forge_jobs.runtime.executors.placement import check_executors
from forge_jobs.storage.error import ConfigError, InvalidName

DEFAULT_DATABASE: Final = "sqlite:///forge-jobs.db"
SHUTDOWN_GRACE_S: Final = 25.0
"""Longer than the library's: below the 30 s after which an orchestrator kills."""
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("auto", "json", "text")
LABEL_LENGTH: Final = 128

_OWN_TYPES: Final = {
    "database": "str",
    "queues": "list",
    "executors": "dict",
    "worker_name": "str",
    "log_level": "str",
    "log_format": "str",
}
_OWN_DEFAULTS: Final[dict[str, Any]] = {
    "database": DEFAULT_DATABASE,
    "queues": ("default",),
    "executors": {},
    "worker_name": None,
    "log_level": "info",
    "log_format": "auto",
    "shutdown_grace_s": SHUTDOWN_GRACE_S,
}
_OWN_VARIABLES: Final = {"database": "FORGE_DATABASE_URL"}
_OWN_OPTIONS: Final = {"shutdown_grace_s": "--grace", "worker_name": "--name", "executors": "--executor"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from: `--slots`, `FORGE_SLOTS`, `forge.toml line 3`, or `default`."""

    name: str
    is_file: bool = False

    def __str__(self) -> str:
        return self.name


DEFAULT: Final = Source("default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting with its source."""

    database: str
    queues: tuple[str, ...]
    executors: Mapping[str, str]
    worker_name: str | None
    log_level: str
    log_format: str
    runtime: RuntimeConfig
    store: StoreConfig
    values: Mapping[str, Any]
    sources: Mapping[str, Source]
    notes: tuple[str, ...] = ()

    @property
    def executors_served(self) -> dict[str, str]:
        """Those of the queues that are served."""
        return {queue: name for queue, name in self.executors.items() if queue in self.queues}

    def is_given(self, key: str) -> bool:
        """Whether somebody chose the value."""
        return self.sources[key] is not DEFAULT

    def blame(self, error: ConfigError) -> ConfigError:
        """`error` with the source of the setting that it is about."""
        return _blame(error, self.values, self.sources)


def load_settings(
    options: Mapping[str, Any] | None = None, *, environment: Mapping[str, str] | None = None
) -> Settings:
    """The settings of a command in the current directory; `options` are those given on the command line.

    Raises:
        ConfigError: a file cannot be read, a key is unknown, or a value has the wrong type or is out of range.
    """
    environment = os.environ if environment is None else environment
    notes: list[str] = []
    values: dict[str, Any] = {**_defaults(), **_OWN_DEFAULTS}
    sources: dict[str, Source] = dict.fromkeys(values, DEFAULT)
    for key, (value, source) in _read_file(Path.cwd(), notes).items():
        values[key], sources[key] = value, source
    for key, (value, source) in _read_environment(environment, notes).items():
        values[key], sources[key] = value, source
    for key, value in (options or {}).items():
        if value is not None:
            values[key], sources[key] = value, Source(_option(key))
    try:
        if isinstance(values["database"], dict):
            values["database"] = url_of_table(values["database"], environment)
        return _build(values, sources, tuple(notes))
    except ConfigError as error:
        raise _blame(error, values, sources) from error


def known_settings() -> list[str]:
    """The keys of a configuration file."""
    return list(_types())


def variable(key: str) -> str:
    """The environment variable of a key."""
    return _OWN_VARIABLES.get(key, f"FORGE_{key.upper()}")


def _build(values: dict[str, Any], sources: dict[str, Source], notes: tuple[str, ...]) -> Settings:
    runtime = RuntimeConfig(**{f.name: values[f.name] for f in dataclasses.fields(RuntimeConfig)})
    flag = values["force_network_fs"]
    if type(flag) is not bool:
        raise ConfigError(f"force_network_fs {flag!r} must be true or false")
    store = StoreConfig(**{f.name: values[f.name] for f in dataclasses.fields(StoreConfig)})
    values["queues"] = _queues(values["queues"])
    values["executors"] = _executors(values["executors"], values["queues"], sources["executors"])
    values["worker_name"] = _label(values["worker_name"])
    _one_of("log_level", values["log_level"], LOG_LEVELS)
    _one_of("log_format", values["log_format"], LOG_FORMATS)
    _check_database(values["database"], sources["database"])
    return Settings(
        **{key: values[key] for key in _OWN_TYPES},
        runtime=runtime,
        store=store,
        values=values,
        sources=sources,
        notes=notes,
    )


def _check_database(url: Any, source: Source) -> None:
    from forge_jobs.storage.open import Backend, backend_of, sqlite_path

    if type(url) is not str:
        raise ConfigError(f"database {url!r} must be text such as {DEFAULT_DATABASE!r}")
    if backend_of(url) is Backend.POSTGRESQL:
        return
    directory = Path(sqlite_path(url)).absolute().parent
    if source.is_file and not directory.is_dir():
        raise ConfigError(f"database {url!r} is in the directory {directory}, which does not exist")


def _queues(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f'queues {value!r} must be a list of names such as ["default", "mail"]')
    if not value:
        raise ConfigError("queues [] names no queue; name one, or leave the key out")
    try:
        return tuple(dict.fromkeys(check_name(name, "queue") for name in value))
    except InvalidName as error:
        raise ConfigError(f"queues: {error}") from error


def _executors(value: Any, queues: tuple[str, ...], source: Source) -> dict[str, str]:
    """The executors of queues by queue. All but the option may name queues too that other workers serve."""
    if not isinstance(value, dict):
        raise ConfigError(f'executors {value!r} must be a table such as {{ reports = "process" }}')
    found = check_executors(value, queues if source.name == _option("executors") else None)
    return {queue: executor.value for queue, executor in found.items()}


def _label(value: Any) -> str | None:
    if value is None:
        return None
    if type(value) is not str:
        raise ConfigError(f"worker_name {value!r} must be text")
    if len(value.strip()) > LABEL_LENGTH:
        raise ConfigError(f"worker_name of {len(value.strip())} characters is over {LABEL_LENGTH}")
    return value.strip() or None


def _one_of(key: str, value: Any, legal: tuple[str, ...]) -> None:
    if value not in legal:
        near = difflib.get_close_matches(str(value), legal, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{key} {value!r} must be one of {', '.join(legal)}{hint}")


# The environment


def _read_environment(environment: Mapping[str, str], notes: list[str]) -> dict[str, tuple[Any, Source]]:
    found: dict[str, tuple[Any, Source]] = {}
    for key, type_ in _types().items():
        text = environment.get(variable(key), "")
        if text.strip():  # blank is as good as unset: that is how compose files pass what they do not have
            found[key] = _parse(key, text, type_), Source(variable(key))
    known = {variable(key) for key in _types()}
    for name in sorted(environment):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name.startswith("FORGE_") and name not in known and near:
            notes.append(f"the environment variable {name} is not a setting; did you mean {near[0]}?")
    return found


def _parse(key: str, text: str, type_: str) -> Any:
    """The value that `text` stands for; what is not one stays text and is refused with the others."""
    match type_:
        case "list" | "tuple[str, ...]":
            names = [name.strip() for name in text.split(",") if name.strip()]
            if not names:
                raise ConfigError(f"{variable(key)} {text!r} names {'no queue' if key == 'queues' else 'nothing'}")
            return names
        case "dict":
            return parse_pairs(variable(key), text.split(","))
        case "bool":
            return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower(), text)
        case "int" | "float":
            try:
                return int(text)
            except ValueError:
                pass
            try:
                return float(text) if type_ == "float" else text
            except ValueError:
                return text
    return text


def parse_pairs(key: str, texts: Iterable[str]) -> dict[str, str]:
    """The table that texts such as `reports=process` stand for.

    Raises:
        ConfigError: one is not of that form, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in filter(str.strip, texts):
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ConfigError(f"{key} {text.strip()!r} must be of the form QUEUE=EXECUTOR, such as reports=process")
        if found.get(name, value) != value:
            raise ConfigError(f"{key} gives {name!r} twice: {found[name]} and {value}")
        found[name] = value
    return found


# The file


def _read_file(directory: Path, notes: list[str]) -> dict[str, tuple[Any, Source]]:
    own, project = directory / "forge.toml", directory / "pyproject.toml"
    if own.exists():
        if project.exists() and "[tool.forge-jobs" in project.read_text(errors="replace"):
            notes.append("[tool.forge-jobs] in pyproject.toml is not read, because there is a forge.toml")
        return _read_table(own, ())
    if project.exists():
        return _read_table(project, ("tool", "forge-jobs"))
    return {}


def _read_table(path: Path, place: tuple[str, ...]) -> dict[str, tuple[Any, Source]]:
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path.name} cannot be read: {reason}") from error
    try:
        table: Any = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path.name} is not TOML: {_at_line(str(error), text)}") from error
    for name in place:
        table = table.get(name, {}) if isinstance(table, dict) else {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path.name}: {'.'.join(place)} must be a table")
    legal = known_settings()
    found: dict[str, tuple[Any, Source]] = {}
    for key, value in table.items():
        source = Source(_place(path.name, _line_of(key, place, text)), is_file=True)
        if key not in legal:
            raise ConfigError(f"{source}: {unknown_key(key, legal)} (its value is {value!r})")
        found[key] = value, source
    return found


def _at_line(message: str, text: str) -> str:
    """The parser's message with the line itself."""
    lines = text.splitlines()
    message = message.replace("at end of document", f"at the end, line {len(lines)}")
    found = re.search(r"line (\d+)", message)
    if found is None or not 1 <= int(found[1]) <= len(lines):
        return message
    return f"{message}: {lines[int(found[1]) - 1].strip()[:80]!r}"


def _place(file: str, line: int | None) -> str:
    return file if line is None else f"{file} line {line}"


def _line_of(key: str, place: tuple[str, ...], text: str) -> int | None:
    """The line on which `key` of the table `place` stands, as far as a look at each line can tell."""
    name = rf"""(?:{re.escape(key)}|"{re.escape(key)}"|'{re.escape(key)}')"""
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+\s*([^\]]*?)\s*\]", line)
        if header is not None:
            current = re.sub(r"""["'\s]""", "", header[1])
            if current == ".".join((*place, key)):
                return number
        elif current == ".".join(place) and re.match(rf"\s*{name}\s*[.=]", line):
            return number
    return None


# Keys and blame


def _types() -> dict[str, str]:
    """Every key with the name of its type."""
    fields = (*dataclasses.fields(RuntimeConfig), *dataclasses.fields(StoreConfig))
    return {**_OWN_TYPES, **{f.name: str(f.type) for f in fields}}


def _defaults() -> dict[str, Any]:
    fields = (*dataclasses.fields(RuntimeConfig), *dataclasses.fields(StoreConfig))
    return {f.name: f.default for f in fields}


def _option(key: str) -> str:
    return _OWN_OPTIONS.get(key, f"--{key.replace('_', '-')}")


def _blame(error: ConfigError, values: Mapping[str, Any], sources: Mapping[str, Source]) -> ConfigError:
    """The error with the place of the first setting it names that somebody chose."""
    message = str(error)
    for word in re.findall(r"[a-z_]+", message):
        source = sources.get(word, DEFAULT)
        if source is not DEFAULT and not message.startswith(str(source)):
            return ConfigError(f"{source}: {message}")
    return error
