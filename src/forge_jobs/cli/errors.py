"""What a failure looks like on the command line: one line that says what is wrong, one hint, and an exit code.

0 is success, 1 a failure, 2 a mistake in the command or the configuration. Tracebacks need `--debug`.
"""

from __future__ import annotations

import sys
import traceback

import click

from forge_jobs.cli.lazy_group import NoCommand
from forge_jobs.cli.output import say

FAILURE = 1
USAGE = 2
INTERRUPTED = 130
CLOSED_PIPE = 141
"""128 + SIGPIPE: what a shell reports for a program whose reader has gone."""


class Failure(click.ClickException):
    """A command did not do what was asked."""

    def __init__(self, message: str, hint: str | None = None, *, code: int = FAILURE) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


class Usage(Failure):
    """The command or the configuration is wrong, and nothing was touched."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint, code=USAGE)


def report(error: BaseException, *, debug: bool) -> int:
    """Tell about `error` on stderr; returns the exit code."""
    if debug and not isinstance(error, (click.UsageError, KeyboardInterrupt)):
        traceback.print_exception(error)
    message, hint, code = describe(error)
    if message:
        say(f"error: {message}")
    if hint:
        say(f"hint: {hint}")
    return code


def describe(error: BaseException) -> tuple[str, str | None, int]:
    """Message, hint and exit code of an error."""
    match error:
        case KeyboardInterrupt():
            return "", None, INTERRUPTED
        case NoCommand():
            sys.stderr.write(f"{error.message}\n")
            return "", None, USAGE
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "forge-jobs"
            return _one_line(error.format_message()), f"`{path} --help` shows how it is used", USAGE
        case Failure():
            return error.message, error.hint, error.code
        case click.ClickException():
            return _one_line(error.format_message()), None, error.exit_code
        case click.Abort() if isinstance(error.__context__, KeyboardInterrupt):  # as click tells Ctrl-C
            return "", None, INTERRUPTED
        case click.Abort():
            return "nothing was done: there was no answer", None, FAILURE
    return _describe_ours(error)


def _describe_ours(error: BaseException) -> tuple[str, str | None, int]:
    from forge_jobs.storage import error as ours

    text = str(error) or type(error).__name__
    match error:
        case BaseExceptionGroup() if len(error.exceptions) == 1:
            return describe(error.exceptions[0])
        case ours.ConfigError() | ours.InvalidInput():
            return text, None, USAGE
        case ours.OutcomeUnknown():
            again = f"repeat it with `--id {error.ids[0]}`: that is safe" if len(error.ids) == 1 else None
            return text, again, FAILURE
        case ours.Busy():
            return text, "nothing was changed; try again, or see who holds the file with `fuser`", FAILURE
        case ours.ForgeError():
            return text, None, FAILURE
        case OSError():
            return text, None, FAILURE
    return f"{type(error).__name__}: {text}", "this is a fault of forge-jobs; `--debug` shows where", FAILURE


def _one_line(text: str) -> str:
    """Click's message as ours: one line that starts small and does not end with a full stop."""
    text = " ".join(text.split()).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
