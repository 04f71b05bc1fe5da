"""A worker of a pool, as good or bad as each payload asks: `{"do": …}`. Standard library only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any


def say(**fields: Any) -> None:
    write(json.dumps(fields) + "\n")


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def note(path: str, line: str) -> None:
    """A file tells the test what happened here."""
    with open(path, "a") as file:
        file.write(line + "\n")


def ok(job: str) -> None:
    say(id=job, status="ok")


def main() -> None:
    if "--banner" in sys.argv:
        write("hello, I am a worker\n")
    if "--dies-at-once" in sys.argv:
        sys.exit(9)
    while line := sys.stdin.readline():
        request = json.loads(line)
        if request.get("event") != "cancel":
            work(request["id"], request, request["payload"] or {})


def work(job: str, request: dict[str, Any], wish: dict[str, Any]) -> None:
    what = wish.get("do", "ok")
    if "note" in wish:
        note(wish["note"], f"{os.getpid()} {json.dumps(request)}")
    match what:
        case "ok":
            ok(job)
        case "say":  # whatever the test wants to have said, with the id put in
            for said in wish["lines"]:
                write(json.dumps(said).replace("<id>", job) + "\n")
        case "raw":
            sys.stdout.buffer.write(wish["text"].encode("latin-1").replace(b"<id>", job.encode()))
            sys.stdout.flush()
        case "twice":
            say(id=job, status="ok")
            time.sleep(wish.get("pause", 0))
            say(id=job, status="ok")
        case "long line":
            write("x" * (2 * 1024 * 1024 + 10))
            time.sleep(60)
        case "flood":
            chunk = "y" * 65536 if wish["on"] == "stderr" else None
            for _ in range(wish["mib"] * 16):
                if chunk is not None:
                    sys.stderr.write(chunk if wish.get("one_line") else "\n".join(["z" * 63] * 1024) + "\n")
                else:
                    progress = json.dumps({"id": job, "event": "progress", "current": 1, "message": "m" * 400}) + "\n"
                    write(progress * (65536 // len(progress)))
            ok(job)
        case "exit":
            print("my last words", file=sys.stderr, flush=True)
            os._exit(wish["code"])
        case "kill":
            os.kill(os.getpid(), wish["signal"])
        case "answer and exit":
            ok(job)
            sys.exit(0)
        case "ok, then exit":  # while it is idle
            ok(job)
            time.sleep(wish["pause"])
            os._exit(3)
        case "close output":
            os.close(1)
            time.sleep(60)
        case "silence":
            time.sleep(60)
        case "deaf":  # to SIGTERM too
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        case "listen":  # to a cancel, and answer as asked
            told = sys.stdin.readline()
            note(wish["heard"], told.strip())
            if wish["answer"] is not None:
                say(id=job, **wish["answer"])
        case "leave a child":
            subprocess.Popen(["sleep", "60"])
            os._exit(4)
        case "sleep":
            time.sleep(wish["seconds"])
            ok(job)
        case "grow":
            kept.append(bytearray(os.urandom(1024)) * (1024 * wish["mib"]))
            ok(job)


kept: list[bytearray] = []

if __name__ == "__main__":
    main()
