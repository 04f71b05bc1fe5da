"""The guard: a small program beside a worker that starts its children and ends them when the worker is gone.

The worker runs it as a file (`python -I -S guard.py FD`); it knows nothing of the rest of the project. Why a program:

- A worker that is killed by SIGKILL cannot end anything. The guard sees the end of the worker's socket and ends the
  group of every child: SIGTERM, 2 s, SIGKILL.
- If the guard itself is killed, the kernel kills the children (PR_SET_PDEATHSIG, Linux). That signal is sent when the
  *thread* that forked ends, not the process, and must be asked for between fork and exec, where a process with threads
  may run next to nothing safely. A worker has many threads. The guard has one, which lives as long as it does.
- There is no moment at which a child exists that nobody watches: who forks is who watches.
- Forking the worker, with its memory and its open database, is left out altogether.

The worker sends frames of 12 bytes, `START` with the descriptors of the new child and of a file that holds its
description as JSON. The guard answers in lines of JSON: `pid` (it runs), `error` (it does not), `status` (it ended, as
waitpid says it), `gone` (nothing is left of its group).
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

FRAME = struct.Struct("!BBxxII")  # operation, descriptors, child's number, milliseconds between SIGTERM and SIGKILL
START, END = 1, 2
DESCRIPTORS_MAX = 16
TERM_S = 2.0
LEFT_S = 1.0
"""How long after a child's own end what it left in its group may go on: a daemon is just about to leave the group."""
GIVE_UP_S = 1.0
"""After SIGKILL. What is left then cannot be killed, by right or because it waits for a device."""
LOOK_S = 0.02
"""How often it is looked whether a group that is ending has ended: nobody tells of grandchildren."""
PARENT_LOOK_S = 1.0
HIGH = 64
"""Descriptors are moved above this before they get their places from 0."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class Group:
    """A child and what it started, as far as that stayed in its process group."""

    def __init__(self, number: int, pid: int, report_fd: int) -> None:
        self.number = number
        self.pid = pid
        self.report_fd: int | None = report_fd
        """Closed by exec, or tells why there was none."""
        self.exited = False
        self.term_at: float | None = None
        self.kill_at: float | None = None
        self.killed_at: float | None = None

    def signal(self, number: int) -> bool:
        """Signal every process of the group; False if there is none.

        The number cannot mean somebody else: as long as the leader is not waited for or a member lives, it is not
        given away, and once both are over this group is forgotten within `LOOK_S`.
        """
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            if self.exited:
                return False
            os.kill(self.pid, number)  # it has no group yet
        except PermissionError:
            pass
        return True

    def end(self, term_s: float, now: float) -> None:
        """SIGTERM now, SIGKILL in `term_s` or when an earlier call said."""
        self.signal(signal.SIGTERM)
        self.kill_at = min(now + term_s, self.kill_at or now + term_s)

    def signal_if_due(self, now: float) -> None:
        if self.term_at is not None and now >= self.term_at:
            self.term_at = None
            self.end(TERM_S, now)
        if self.kill_at is not None and now >= self.kill_at:
            self.killed_at = self.killed_at or now
            self.signal(signal.SIGKILL)

    def unkillable(self, now: float) -> bool:
        return self.killed_at is not None and now > self.killed_at + GIVE_UP_S


class Guard:
    """The one loop: frames of the worker, ends of children, groups that are due to be killed."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.worker = os.getppid()
        self.groups: dict[int, Group] = {}  # by process id
        self.descriptors: list[int] = []
        self.buffer = b""
        self.orphaned = False
        self.prctl = _prctl()
        if self.prctl is not None:
            # Orphans of a child come here to be waited for: in a container nobody else may do it.
            self.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.poll = select.poll()
        self.poll.register(channel, select.POLLIN)
        self.wakeup = _wake_on_signals()
        self.poll.register(self.wakeup, select.POLLIN)
        self.pidfd = _pidfd(self.worker)
        if self.pidfd is not None:
            self.poll.register(self.pidfd, select.POLLIN)

    def run(self) -> None:
        while not self.orphaned or self.groups:
            for fd, _ in self.poll.poll(self._patience_ms()):
                if fd == self.channel.fileno():
                    self._receive()
                elif fd == self.wakeup.fileno():
                    self.wakeup.recv(4096)
                elif fd == self.pidfd:
                    self._orphaned()
                else:
                    self._started(next(group for group in self.groups.values() if group.report_fd == fd))
            if self.pidfd is None and os.getppid() != self.worker:
                self._orphaned()
            self._reap()
            self._kill_and_forget(time.monotonic())

    def _patience_ms(self) -> float | None:
        waits = [PARENT_LOOK_S] if self.pidfd is None else []
        now = time.monotonic()
        for group in self.groups.values():
            if group.exited or group.killed_at is not None:
                waits.append(LOOK_S)
            elif group.kill_at is not None:
                waits.append(max(group.kill_at - now, 0.001))
        return min(waits) * 1000 if waits else None

    def _orphaned(self) -> None:
        """The worker is gone, or asks for the end."""
        if self.orphaned:
            return
        self.orphaned = True
        self.poll.unregister(self.channel)
        if self.pidfd is not None:
            self.poll.unregister(self.pidfd)
        for group in self.groups.values():
            group.end(TERM_S, time.monotonic())

    def _receive(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self.channel, 65536, 4 * DESCRIPTORS_MAX)
        except OSError:
            data, descriptors = b"", []
        for fd in descriptors:
            os.set_inheritable(fd, False)
        self.descriptors += descriptors
        if not data:
            self._orphaned()
            return
        self.buffer += data
        while len(self.buffer) >= FRAME.size:
            operation, count, number, ms = FRAME.unpack_from(self.buffer)
            self.buffer = self.buffer[FRAME.size :]
            if operation == START:
                given, self.descriptors = self.descriptors[:count], self.descriptors[count:]
                self._start(number, given)
            else:
                self._end(number, ms / 1000)

    def _start(self, number: int, given: list[int]) -> None:
        try:
            with os.fdopen(given[0], "rb") as file:
                spec = json.load(file)
            report, theirs = os.pipe()
            pid = os.fork()
            if pid == 0:
                self._become(spec, given[1:], theirs)
        except OSError as error:
            self._tell(n=number, error="fork", errno=error.errno)
            return
        finally:
            for fd in given[1:]:
                os.close(fd)
        os.close(theirs)
        self.groups[pid] = Group(number, pid, report)
        self.poll.register(report, select.POLLIN)

    def _become(self, spec: dict[str, Any], given: list[int], report: int) -> NoReturn:
        """In the child: what it shall be, then exec. Never returns."""
        stage = "start"
        try:
            report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, HIGH)
            guard = os.getppid()
            os.setsid()
            if self.prctl is not None:
                self.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != guard or guard == 1:  # it died before that
                    os._exit(127)
            for place, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH) for fd in given]):
                os.dup2(fd, place)
            os.closerange(len(given), HIGH)
            for each in signal.valid_signals():
                if each not in (signal.SIGKILL, signal.SIGSTOP):
                    try:
                        signal.signal(each, signal.SIG_DFL)
                    except (OSError, ValueError):
                        pass  # one that the C library keeps for itself
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            stage = "rlimit"
            _limit(spec["rlimits"])
            stage = "chdir"
            if spec["cwd"] is not None:
                os.chdir(spec["cwd"])
            stage = "exec"
            argv, env = spec["argv"], spec["env"]
            os.execvpe(argv[0], argv, env)  # noqa: S606
        except OSError as error:
            os.write(report, f"{stage} {error.errno or 0}".encode())
        except BaseException:
            os.write(report, f"{stage} 0".encode())
        finally:
            os._exit(127)

    def _started(self, group: Group) -> None:
        """The child runs its program, or could not."""
        fd, group.report_fd = group.report_fd, None
        assert fd is not None
        self.poll.unregister(fd)
        report = os.read(fd, 100).decode()
        os.close(fd)
        if report:
            stage, _, number = report.partition(" ")
            self._tell(n=group.number, error=stage, errno=int(number))
        else:
            self._tell(n=group.number, pid=group.pid)

    def _end(self, number: int, term_s: float) -> None:
        for group in self.groups.values():
            if group.number == number:
                group.end(term_s, time.monotonic())

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            group = self.groups.get(pid)
            if group is None:
                continue  # an orphan of some child
            if group.report_fd is not None:
                self._started(group)
            group.exited = True
            self._tell(n=group.number, status=status)
            group.term_at = time.monotonic() + LEFT_S

    def _kill_and_forget(self, now: float) -> None:
        for group in list(self.groups.values()):
            group.signal_if_due(now)
            if group.exited and (not group.signal(0) or group.unkillable(now)):
                del self.groups[group.pid]
                self._tell(n=group.number, gone=True)

    def _tell(self, **fields: object) -> None:
        try:
            self.channel.sendall(json.dumps(fields).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the worker is gone


def _limit(rlimits: dict[str, int]) -> None:
    if rlimits:
        import resource

        for name, value in rlimits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def _wake_on_signals() -> socket.socket:
    """A socket that can be read when a signal came.

    Signals that would end the guard are caught and forgotten: a service manager sends SIGTERM to all processes of a
    service, and the guard's time is when the worker is gone. Handlers, unlike "ignore", do not pass to the children.
    """
    read, write = socket.socketpair()
    read.setblocking(False)
    write.setblocking(False)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.set_wakeup_fd(write.detach(), warn_on_full_buffer=False)
    for each in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(each, lambda *_: None)
    return read


def _pidfd(pid: int) -> int | None:
    """Readable when the process is over; None where there is no such thing. The end of the socket alone would not do:
    a child that the worker forks by itself holds a copy of it."""
    try:
        return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except OSError:
        return None


def _prctl() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        found: Callable[..., int] = ctypes.CDLL(None).prctl
        return found
    except (ImportError, OSError, AttributeError):
        return None


def main() -> None:
    Guard(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
