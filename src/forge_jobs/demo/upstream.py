"""The upstream: a small HTTP API over the corpus, like a code host's, with a budget and moods. A process of its own.

    GET /files?page=2        {"files": [{"path": …, "size_bytes": …}, …], "pages": 4, "next": 3 or null}
    GET /files/json/tool.py  the source

It has a bucket of requests: the budget per second flows in, two seconds of it fit. Once in its life another client
takes all of it for a while. What finds the bucket empty gets 429 with Retry-After. A file that is gone answers 404, a
flaky one 500 the first time, a slow one late. Every answer is a line in the log before it is sent, with the run that
asked for it, so an answer without a line does not exist. It prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from forge_jobs.demo.corpus import Fate, SourceFile, choose

PER_PAGE: Final = 50
SLOW_S: Final = 2.0
BURST_S: Final = 2
"""How many seconds of the budget fit into the bucket."""
STRANGER_S: Final = 1.5
"""How long the other client takes all there is."""

JOB_HEADER: Final = "X-Job-Id"
FENCE_HEADER: Final = "X-Job-Fence"
ATTEMPT_HEADER: Final = "X-Job-Attempt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One line of the log: what was asked by which run, and the answer. A page has no `path`, a file page 0."""

    at: float
    path: str
    page: int
    status: int
    job_id: str
    fence: int
    attempt: int
    stranger: bool = False
    """Refused because another client had the budget."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent."""

    status: int
    body: bytes = b""
    kind: str = "text/plain; charset=utf-8"
    retry_after_s: int | None = None
    stranger: bool = False


class Budget:
    """A bucket of requests, and the stranger who comes when so many have been answered."""

    def __init__(self, per_s: float, stranger_after: int | None) -> None:
        self.per_s = per_s
        self._tokens = self._capacity = BURST_S * per_s
        self._filled = time.monotonic()
        self._left = stranger_after
        self._stranger_until = 0.0
        self._lock = threading.Lock()

    def spend(self) -> Reply | None:
        """Take one request; the refusal if there is none to take."""
        with self._lock:
            now = time.monotonic()
            if now < self._stranger_until:
                return _refusal(self._stranger_until - now, b"another client is over the budget\n", stranger=True)
            self._tokens = min(self._capacity, self._tokens + (now - self._filled) * self.per_s)
            self._filled = now
            if self._tokens < 1:
                return _refusal((1 - self._tokens) / self.per_s, b"over the budget\n")
            self._tokens -= 1
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    self._stranger_until = now + STRANGER_S
            return None


class Upstream(ThreadingHTTPServer):
    """The server with its corpus, budget and log."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, files: tuple[SourceFile, ...], *, budget: Budget, log: Path, slow_s: float = SLOW_S) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.files = {file.path: file for file in files}
        self.slow_s = slow_s
        self._listing = [{"path": f.path, "size_bytes": f.location.stat().st_size} for f in files]
        self.budget = budget
        self._failed_once: set[str] = set()
        self._lock = threading.Lock()
        self._log = log.open("a", buffering=1, encoding="utf-8")

    def reply_to_page(self, page: int) -> Reply:
        """One page of the listing."""
        pages = max(1, -(-len(self._listing) // PER_PAGE))
        if not 1 <= page <= pages:
            return Reply(404, b"no such page\n")
        body = {
            "files": self._listing[(page - 1) * PER_PAGE : page * PER_PAGE],
            "pages": pages,
            "next": page + 1 if page < pages else None,
        }
        return Reply(200, json.dumps(body).encode(), "application/json")

    def reply_to_file(self, path: str) -> Reply:
        """The source of a file, as its fate has it."""
        file = self.files.get(path)
        if file is None or file.fate is Fate.GONE:
            return Reply(404, b"no such file\n")
        if file.fate is Fate.FLAKY and self._fails_now(path):
            return Reply(500, b"something went wrong\n")
        if file.fate is Fate.SLOW:
            time.sleep(self.slow_s)
        return Reply(200, file.location.read_bytes())

    def write_down(self, answered: Answered) -> None:
        with self._lock:
            self._log.write(json.dumps(asdict(answered)) + "\n")

    def server_close(self) -> None:
        super().server_close()
        self._log.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed does not wait for its answer; anything else is told on stderr."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def _fails_now(self, path: str) -> bool:
        with self._lock:
            first = path not in self._failed_once
            self._failed_once.add(path)
            return first


class _Request(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path).removeprefix("/files").removeprefix("/")
        page = 0 if path else _whole(parse_qs(address.query).get("page", ["1"])[0])
        reply = self.server.budget.spend() or (
            self.server.reply_to_file(path) if path else self.server.reply_to_page(page)
        )
        self.server.write_down(
            Answered(
                at=time.time(),
                path=path,
                page=page,
                status=reply.status,
                job_id=self.headers.get(JOB_HEADER, ""),
                fence=_whole(self.headers.get(FENCE_HEADER, "0")),
                attempt=_whole(self.headers.get(ATTEMPT_HEADER, "0")),
                stranger=reply.stranger,
            )
        )
        self._send(reply)

    def log_message(self, format: str, *args: object) -> None:
        """The log of the demo is `write_down`."""

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        if reply.retry_after_s is not None:
            self.send_header("Retry-After", str(reply.retry_after_s))
        self.end_headers()
        self.wfile.write(reply.body)


def read_log(path: Path, offset: int = 0) -> tuple[list[Answered], int]:
    """The complete lines from `offset` on, and the offset behind them."""
    with path.open("rb") as log:
        log.seek(offset)
        text = log.read()
    whole = text[: text.rfind(b"\n") + 1]
    return [Answered(**json.loads(line)) for line in whole.splitlines()], offset + len(whole)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="forge_jobs.demo.upstream")
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--budget", type=int, required=True)
    parser.add_argument("--stranger-after", type=int)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    budget = Budget(options.budget, options.stranger_after)
    server = Upstream(choose(options.items, options.seed), budget=budget, log=options.log)
    threading.Thread(target=server.serve_forever, name="upstream", daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    try:
        while os.read(0, 1):
            pass
    except KeyboardInterrupt:
        pass
    server.shutdown()
    server.server_close()


def _refusal(wait_s: float, body: bytes, *, stranger: bool = False) -> Reply:
    return Reply(429, body, retry_after_s=math.ceil(wait_s), stranger=stranger)


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


if __name__ == "__main__":
    main()
