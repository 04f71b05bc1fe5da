"""Whether a worker process makes progress, not whether it exists.

One whose heartbeats are refused, or that has not asked for jobs for long though its slots are idle, is of no use.
"""

from __future__ import annotations

from typing import Any

from forge_jobs.runtime.env import RuntimeEnv


def readiness(env: RuntimeEnv | None, loop_time: float) -> dict[str, Any]:
    """Whether a worker process is ready, what keeps it from its work, its heartbeat and its loops, for programs.

    `env` is None before the start. May be called as `not_ready` is.
    """
    if env is None:
        return {"status": "not_ready", "problems": ["it was not started yet"], "heartbeat": None, "loops": {}}
    problems = not_ready(env, loop_time)
    return {
        "status": "not_ready" if problems else "ok",
        "problems": problems,
        "heartbeat": {"age_s": round(env.silent_us() / 1e6, 1), "fenced": env.health.fenced},
        "loops": {
            name: {"last_success_us": one.last_success_us, "errors": one.errors, "leading": one.leading}
            for name, one in list(env.health.loops.items())
        },
    }


def not_ready(env: RuntimeEnv, loop_time: float) -> list[str]:
    """What keeps the process from its work; empty if nothing does. `loop_time` is the event loop's clock.

    Reads plain numbers only, so it may be called from any thread, also while a handler blocks the event loop.
    """
    config, health = env.config, env.health
    if not health.beats:
        return ["no heartbeat was accepted yet"]
    found: list[str] = []
    if health.fatal is not None:
        found.append(f"the store cannot be used any more: {health.fatal}")
    if env.stopping.is_set():
        found.append("it is shutting down")
    silent_s = env.silent_us() / 1e6
    if silent_s >= config.stale_s:
        found.append(f"no heartbeat was accepted for {silent_s:.0f} s")
    elif health.fenced or health.claims_stopped:
        found.append(f"it stopped claiming, as no heartbeat was accepted for {silent_s:.0f} s")
    for line in list(env.exchanger.lines.values()):
        waited_s = line.waits_since(loop_time)
        if waited_s >= config.stale_s + config.poll_ms / 1000:
            found.append(f"it has not asked for jobs of queue {line.queue} for {waited_s:.0f} s, though slots are idle")
    return found
