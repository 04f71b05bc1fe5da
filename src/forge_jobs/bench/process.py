"""Worker processes of a measurement, seen from the measuring side."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from forge_jobs.bench.measure import BenchError
from forge_jobs.bench.scratch import Store

END_S: Final = 10.0
TAIL: Final = 600


class WorkerProcess:
    """A running `forge_jobs.bench.worker`, or another program in its place."""

    def __init__(self, argv: Sequence[str], store: Store, errors: IO[bytes]) -> None:
        self._errors = errors
        self.process = subprocess.Popen(
            argv,
            env=store.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            bufsize=1,
        )

    def hear(self) -> str:
        """The next line it says.

        Raises:
            BenchError: it ended instead.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self.fault()
        return line.strip()

    def tell(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")

    def wait(self) -> None:
        """Until it ends by itself.

        Raises:
            BenchError: it ended with an error.
        """
        if self.process.wait() != 0:
            raise self.fault()

    def fault(self) -> BenchError:
        code = self.process.wait(END_S)
        text = Path(self._errors.name).read_text(errors="replace").strip()
        return BenchError(f"the worker process ended with exit code {code}: {text[-TAIL:] or 'it said nothing'}")


@contextmanager
def started(argv: Sequence[str], store: Store, folder: Path) -> Iterator[WorkerProcess]:
    """A process on `store` that is gone after the block; what it says on stderr goes to `folder`."""
    with open(folder / f"worker-{time.monotonic_ns()}.log", "wb") as errors:
        worker = WorkerProcess(argv, store, errors)
        try:
            yield worker
        finally:
            worker.process.kill()
            worker.process.communicate()


def worker_argv(slots: int, what: str) -> list[str]:
    return [sys.executable, "-m", "forge_jobs.bench.worker", str(slots), what]
