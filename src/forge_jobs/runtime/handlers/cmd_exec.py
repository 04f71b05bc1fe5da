"""Runs programs that jobs name: `cmd_exec`. Never through a shell.

    handlers.register(CmdExec(programs={"backup": "/usr/local/bin/backup"}, cwd_root="/srv/data"))
    await queue.enqueue(EnqueueRequest("cmd_exec", {"argv": ["backup", "--full"], "timeout_secs": 3600}))

Who can enqueue decides what is run, within what the constructor allows.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from forge_jobs import limits
from forge_jobs.names import check_name
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.children import Child, ChildError, Exit, environment
from forge_jobs.runtime.children.child import GONE_S, STOP_LOOK_S
from forge_jobs.runtime.children.tail import Tail
from forge_jobs.runtime.context import run_of
from forge_jobs.runtime.outcome import Dead, Done, Failed, JobOutcome
from forge_jobs.storage.error import ConfigError

if TYPE_CHECKING:
    from forge_jobs.runtime.context import JobCtx

KIND: Final = "cmd_exec"
TAIL_SHOWN_BYTES: Final = 256
TAIL_LOGGED_BYTES: Final = 2048
RISKY: Final = frozenset((
    "BASHOPTS", "BASH_ENV", "CLASSPATH", "ENV", "GCONV_PATH", "GLIBC_TUNABLES", "IFS", "JAVA_TOOL_OPTIONS", "LOCPATH",
    "NODE_OPTIONS", "NODE_PATH", "PERL5DB", "PERL5LIB", "PERL5OPT", "PS4", "RUBYLIB", "RUBYOPT", "SHELLOPTS",
    "_JAVA_OPTIONS",
))  # fmt: skip
RISKY_PREFIXES: Final = ("LD_", "DYLD_", "PYTHON", "BASH_FUNC_", "GIT_", "MALLOC_")
"""Variables that make a harmless program load or run something else."""
RISKY_FOR_PROGRAMS: Final = frozenset({"PATH", "HOME"})
"""The same where only some programs are allowed: they find others and their settings there."""


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """The payload of `cmd_exec`."""

    argv: Annotated[list[str], msgspec.Meta(min_length=1)]
    env: dict[str, str] = {}
    cwd: str | None = None
    stdin: str | None = None
    timeout_secs: Annotated[float, msgspec.Meta(ge=1, le=limits.TIMEOUT_S[1])] = 600


class Rejected(Exception):
    """A payload that is not run. The message names what, and why."""


class CmdExec:
    """A handler that runs the program that a job names, as `argv`, and waits for its end.

    Either `programs` maps the names that jobs may use as `argv[0]` to absolute paths, or `allow_any` lets them run
    whatever the worker's user can. With `cwd_root` a job's `cwd` must lie inside, symbolic links resolved, and is that
    directory if the job names none. The program's environment is PATH, HOME, LANG and TZ, what `inherit` names, and
    the payload's `env`, in which variables that make programs load others (LD_PRELOAD, PYTHONPATH, …; with
    `programs` also PATH and HOME) are refused unless `inherit` names them.

    Exit 0 is `Done`. Anything else is `Failed` with the end of its error output. A cancel, a timeout and a stop of the
    worker end the program and all of its process group: SIGTERM, 2 s, SIGKILL.

    Raises:
        ConfigError: neither or both of `programs` and `allow_any` are given, or a path is not absolute.
    """

    handler_options: Mapping[str, Any] = MappingProxyType({"executor": "async"})  # whatever its queue says

    def __init__(
        self,
        programs: Mapping[str, str | os.PathLike[str]] | None = None,
        *,
        allow_any: bool = False,
        cwd_root: str | os.PathLike[str] | None = None,
        inherit: Iterable[str] = (),
        kind: str = KIND,
    ) -> None:
        self.kind = check_name(kind, "kind")
        if bool(programs) == allow_any:
            raise ConfigError(
                "CmdExec needs either programs={name: absolute path}, the only ones that jobs may run, or "
                "allow_any=True, which lets whoever can enqueue run anything"
            )
        self._programs = {name: os.fspath(path) for name, path in (programs or {}).items()}
        for name, path in self._programs.items():
            if not os.path.isabs(path):
                raise ConfigError(f"CmdExec: program {name!r} has the path {path!r}, which is not absolute")
        self._root = None if cwd_root is None else Path(cwd_root).resolve()
        if self._root is not None and not self._root.is_dir():
            raise ConfigError(f"CmdExec: cwd_root {os.fspath(cwd_root or '')!r} is not a directory")
        self._inherit = (inherit,) if isinstance(inherit, str) else tuple(inherit)

    async def run(self, ctx: JobCtx, payload: Any) -> JobOutcome:
        """Run the job's program to its end."""
        try:
            command = self._read(payload)
            argv, cwd = self._argv(command), self._cwd(command)
        except Rejected as reason:
            return Dead(str(reason))
        run = run_of(ctx)
        run.limit(command.timeout_secs)
        env = environment(inherit=self._inherit, given=command.env)
        try:
            child = await run.env.children.start(argv, env=env, cwd=cwd, stdin=command.stdin is not None)
        except ChildError as error:
            return Failed(str(error))
        return await _Running(ctx, child, run.cancel_grace_s).until_over(command.stdin)

    def _read(self, payload: Any) -> Command:
        try:
            command = msgspec.convert(payload, Command)
        except msgspec.ValidationError as error:
            raise Rejected(f"payload: {error}") from error
        for text in (*command.argv, *command.env, *command.env.values(), command.cwd or ""):
            if "\0" in text:
                raise Rejected(f"payload: {text[:80]!r} holds a NUL character")
        for name in command.env:
            if not name or "=" in name:
                raise Rejected(f"payload: env has {name[:80]!r}, which is no name of a variable")
            if self._is_risky(name) and name not in self._inherit:
                raise Rejected(f"payload: env {name[:80]!r} is allowed only if CmdExec(inherit=[…]) names it")
        return command

    def _is_risky(self, name: str) -> bool:
        return name in RISKY or name.startswith(RISKY_PREFIXES) or (bool(self._programs) and name in RISKY_FOR_PROGRAMS)

    def _argv(self, command: Command) -> list[str]:
        name, *rest = command.argv
        if not self._programs:
            return command.argv
        if name not in self._programs:
            known = ", ".join(sorted(self._programs))
            raise Rejected(f"payload: argv[0] {name[:80]!r} is none of the programs of this worker: {known}")
        return [self._programs[name], *rest]

    def _cwd(self, command: Command) -> str | None:
        """Where to run it; links are resolved before it is compared, and what was compared is used."""
        if self._root is None:
            return command.cwd
        if command.cwd is None:
            return str(self._root)
        try:
            found = (self._root / command.cwd).resolve()
        except (OSError, RuntimeError) as error:  # a circle of links
            raise Rejected(f"cwd rejected: {command.cwd[:200]!r} cannot be resolved") from error
        if not found.is_relative_to(self._root):
            raise Rejected(f"cwd rejected: {command.cwd[:200]!r} is outside of {str(self._root)!r}")
        return str(found)

    def __repr__(self) -> str:
        what = ", ".join(sorted(self._programs)) if self._programs else "any program"
        return f"CmdExec({self.kind!r}: {what})"


class _Running:
    """A program at work: its input and outputs are moved at the same time, so that neither waits for the other."""

    def __init__(self, ctx: JobCtx, child: Child, cancel_grace_s: float) -> None:
        self._ctx = ctx
        self._child = child
        self._grace_s = cancel_grace_s
        self._told: CancelReason | None = None
        self._out, self._err = Tail(), Tail()

    async def until_over(self, stdin: str | None) -> JobOutcome:
        child = self._child
        child.stdout.listen(self._out.feed)
        child.stderr.listen(self._err.feed)
        if child.stdin is not None:
            child.stdin.write((stdin or "").encode())
            child.stdin.close_when_sent()
        self._ctx.cancel.on_fire(self._tell)
        try:
            how = await child.wait()
            if self._told is not None:
                await child.until_gone(GONE_S)
                self._ctx.cancel.raise_if_cancelled()
            if how.asked_to_stop and await self._ctx.cancel.fired_within(STOP_LOOK_S):
                self._ctx.cancel.raise_if_cancelled()
            child.stdout.read_rest()
            child.stderr.read_rest()
            return self._outcome(how)
        except asyncio.CancelledError:
            child.begin_end()
            await child.until_gone(min(GONE_S / 2, 0.8 * self._grace_s))
            raise
        finally:
            child.close()

    def _tell(self, reason: CancelReason) -> None:
        if self._child.running:
            self._told = reason
            self._child.begin_end()

    def _outcome(self, how: Exit) -> JobOutcome:
        self._ctx.log.info(
            "command_ended pid=%d how=%s stdout_bytes=%d stderr_bytes=%d",
            self._child.pid, how, self._out.total_bytes, self._err.total_bytes,
        )  # fmt: skip
        for name, tail in (("stdout", self._out), ("stderr", self._err)):
            if tail.total_bytes:
                self._ctx.log.debug("command_said stream=%s %s", name, tail.text(TAIL_LOGGED_BYTES))
        if how.signal is not None:
            return Failed(f"killed by signal {how.signal}")
        if how.code == 0:
            return Done()
        words = self._err.text(TAIL_SHOWN_BYTES) or self._out.text(TAIL_SHOWN_BYTES)
        return Failed(f"exit {how.code}: {words}" if words else f"exit {how.code}")
