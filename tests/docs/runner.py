"""Runs the blocks of one page from top to bottom in the current directory.

    PYTHONPATH=tests python -m docs.runner docs/tutorial/first-jobs.md

Python blocks share one namespace and one event loop, and may use `await` at the top level, as `python -m asyncio`
allows. A `console` block is a list of commands, `$ command`, each followed by what it prints; `…` stands for
anything, and nothing means that the output does not matter. A last line `^C` stops the command with SIGINT once it
has printed the lines above. Anything that does not go as the page says ends the run with an error.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Final

from .page import Block, blocks

COMMAND_LIMIT_S: Final = 60.0
INTERRUPT: Final = "^C"


class Wrong(Exception):
    """The page says something else."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block and what it is said to print."""

    text: str
    expected: str
    interrupted: bool


def run_page(page: Path) -> None:
    """Run every block of the page.

    Raises:
        Wrong: one does not do what the page says; the message names page and line.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    with asyncio.Runner() as runner:
        for block in blocks(page):
            try:
                if "not run" in block.notes:
                    continue
                if "file" in block.notes:
                    Path(block.notes["file"]).write_text(block.text)
                elif "output" in block.notes:
                    _compare(block.text, printed, "the Python block above")
                elif block.language == "python":
                    printed = _run_python(block, namespace, runner, page)
                elif block.language == "console":
                    _run_console(block)
            except Exception as error:
                where = f"{page}:{block.line}"
                detail = str(error) if isinstance(error, Wrong) else traceback.format_exc()
                raise Wrong(f"{where}: {detail}") from error


def _run_python(block: Block, namespace: dict[str, Any], runner: asyncio.Runner, page: Path) -> str:
    source = "\n" * (block.line - 1) + block.text  # so that a traceback shows the line of the page
    code = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(_run_async(code, namespace))
        else:
            exec(code, namespace)
    return printed.getvalue()


async def _run_async(code: CodeType, namespace: dict[str, Any]) -> None:
    await eval(code, namespace)


def _run_console(block: Block) -> None:
    commands = list(_commands(block.text))
    for command in commands:
        wanted = int(block.notes.get("exits", "0")) if command is commands[-1] else 0
        code, output = _run_interrupted(command) if command.interrupted else _run_command(command)
        if code != wanted:
            raise Wrong(f"`{command.text}` ended with {code}, not {wanted}:\n{output}")
        if command.expected:
            _compare(command.expected, output, f"`{command.text}`")


def _commands(text: str) -> list[Command]:
    found: list[Command] = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.rstrip("\n").split("\n")
        words = [lines.pop(0)]
        while lines and lines[0].startswith("> "):
            words.append(lines.pop(0)[2:])
        interrupted = bool(lines) and lines[-1] == INTERRUPT
        expected = "\n".join(lines[:-1] if interrupted else lines)
        found.append(Command("\n".join(words), expected, interrupted))
    return found


def _run_command(command: Command) -> tuple[int, str]:
    done = subprocess.run(
        ["/bin/sh", "-c", command.text],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(),
        timeout=COMMAND_LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout


def _run_interrupted(command: Command) -> tuple[int, str]:
    """Run until the expected lines are there, then press Ctrl-C."""
    log = Path("interrupted.log")
    with log.open("w") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command.text}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
        )
        try:
            deadline = time.monotonic() + COMMAND_LIMIT_S
            while not _pattern(command.expected).search(log.read_text()):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Wrong(f"`{command.text}` did not print what the page says:\n{log.read_text()}")
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            code = process.wait(COMMAND_LIMIT_S)
        finally:
            process.kill()
            process.wait()
    text = log.read_text()
    log.unlink()
    return code, text


def _compare(expected: str, output: str, who: str) -> None:
    shown = "".join(f"{line.rstrip()}\n" for line in output.strip().split("\n"))
    if not _pattern(expected).search(shown):
        raise Wrong(f"{who} printed\n\n{shown}\n\nand the page says\n\n{expected}")


def _pattern(expected: str) -> re.Pattern[str]:
    """Whole lines, in order; `…` stands for anything in a line, a line of it for any lines."""
    parts = [
        "(?:[^\n]*\n)*?" if line.strip() == "…" else re.escape(line.rstrip()).replace("…", "[^\n]*") + "\n"
        for line in expected.strip().split("\n")
    ]
    return re.compile("^" + "".join(parts), re.MULTILINE)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**kept, "PATH": path, "NO_COLOR": "1", "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}


if __name__ == "__main__":
    try:
        run_page(Path(sys.argv[1]).resolve())
    except Wrong as wrong:
        sys.exit(str(wrong))
