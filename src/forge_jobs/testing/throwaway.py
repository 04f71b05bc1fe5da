"""What a throw-away server of any make needs: a port of its own, a user that is not root, and an end.

The end is the hard part: a test run may be killed, and its servers must not stay. So a shell waits beside the run on a
pipe that only the run holds open. When the pipe closes, because the folder was closed or because the run is gone,
the shell stops the server and removes its folder. There is one way to clean up, and every run takes it.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

LOOPBACK: Final = "127.0.0.1"
DISK: Final = Path("/var/tmp")  # /tmp is often memory
MEMORY: Final = Path("/dev/shm")
MEMORY_WANTED_BYTES: Final = 2 * 1024**3
NAMESPACE: Final = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
ACCOUNTS: Final = ("postgres", "nobody")
CLEAN_UP: Final = 'cat; sh "$0/stop"; rm -rf -- "$0"'
CLEAN_UP_LIMIT_S: Final = 30.0


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody else is given inside the block, whether a server listens on it or not.

    Linux: a socket that is bound but does not listen keeps the kernel from giving the port away, and a server that
    sets SO_REUSEADDR, as they all do, can listen on it all the same. Elsewhere the port was free at the beginning.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, 0))
        port: int = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port


@dataclass(frozen=True, slots=True)
class OrdinaryUser:
    """Someone who is not root, for programs that refuse to run as root.

    argv: what to put before a command, nothing if this process is not root. account: whose files the command can
    read and write if those are not this process's own.
    """

    argv: tuple[str, ...] = ()
    account: pwd.struct_passwd | None = None

    @classmethod
    def find(cls) -> Self:
        """Root in a user namespace that calls it 1000, so that no file changes hands; else another account.

        Raises:
            RuntimeError: this is root, and neither is to be had.
        """
        if os.geteuid() != 0:
            return cls()
        if shutil.which(NAMESPACE[0]) and _succeeds(*NAMESPACE, "true"):
            return cls(NAMESPACE)
        for account in pwd.getpwall():
            if account.pw_name in ACCOUNTS:
                ids = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}")
                return cls(("setpriv", *ids, "--clear-groups", "--"), account)
        raise RuntimeError(
            "the server refuses to run as root, user namespaces are forbidden here and there is no account "
            f"named {' or '.join(ACCOUNTS)}: run as an ordinary user"
        )

    def can_run(self, program: Path) -> bool:
        return _succeeds(*self.argv, "test", "-x", str(program))

    def own(self, path: Path) -> None:
        """Make the user the owner of `path`, so that it can write there."""
        if self.account is not None:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)


class ServerFolder:
    """A new folder that is gone when it is closed, or when this process has ended, however that came.

    user: who must be able to read it. in_memory: whether it may be lost in a power cut.
    """

    def __init__(self, prefix: str, user: OrdinaryUser, *, in_memory: bool = False) -> None:
        self.path: Final = Path(tempfile.mkdtemp(prefix=prefix, dir=_place(user, in_memory)))
        if user.account is not None:
            self.path.chmod(0o755)
        self._caretaker = subprocess.Popen(
            ["sh", "-c", CLEAN_UP, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C ends the run and must leave the shell to its work
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stop_with(self, command: Sequence[str]) -> None:
        """Before the folder is removed run `command`, which ends the server, if one runs, within a limit of its own."""
        (self.path / "stop").write_text(shlex.join(command))

    def close(self) -> None:
        """Stop what runs in the folder and remove it; returns when both are done.

        Raises:
            subprocess.TimeoutExpired: the server did not stop.
        """
        assert self._caretaker.stdin is not None
        self._caretaker.stdin.close()
        self._caretaker.wait(CLEAN_UP_LIMIT_S)


def _place(user: OrdinaryUser, in_memory: bool) -> Path | None:
    """Where a folder goes; None is Python's own choice.

    Memory only if there is plenty, and never for another account, who may need programs in it: often nothing there
    may be executed.
    """
    if in_memory and user.account is None and _free_bytes(MEMORY) >= MEMORY_WANTED_BYTES:
        return MEMORY
    return DISK if os.access(DISK, os.W_OK) else None


def _free_bytes(place: Path) -> int:
    """What this process may still write to a folder."""
    return shutil.disk_usage(place).free if os.access(place, os.W_OK) else 0


def _succeeds(*argv: str) -> bool:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, cwd="/").returncode == 0
