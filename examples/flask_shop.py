"""A Flask shop that enqueues from its views; a worker of its own runs the jobs.

    pip install forge-jobs flask
    flask --app flask_shop run
    forge-jobs worker flask_shop:handlers --database sqlite:///shop.db
    curl -X POST http://127.0.0.1:5000/orders/7
    curl http://127.0.0.1:5000/jobs/<the job's id>

The same in any program without an event loop.
"""

import os
from pathlib import Path

from flask import Flask, abort

from forge_jobs import EnqueueRequest, HandlerRegistry, JobCtx, SyncQueue

handlers = HandlerRegistry()
queue = SyncQueue(os.environ.get("DATABASE_URL", "sqlite:///shop.db"), handlers=handlers)
app = Flask(__name__)


@handlers.handler("receipt_write", timeout=30)
async def receipt_write(ctx: JobCtx, payload: dict[str, int]) -> None:
    Path(f"receipt-{payload['order']}.txt").write_text(f"order {payload['order']}, attempt {ctx.attempt}\n")


@app.post("/orders/<int:number>")
def order(number: int) -> tuple[dict[str, str], int]:
    """Take an order. The job is durable when the answer is given; the file opens with the first request."""
    added = queue.enqueue(EnqueueRequest("receipt_write", {"order": number}, dedupe_key=f"receipt-{number}"))
    return {"job": added.id}, 202


@app.get("/jobs/<job_id>")
def job(job_id: str) -> dict[str, object]:
    found = queue.get(job_id)
    if found is None:
        abort(404)
    return {"status": found.row.status, "attempts": found.row.attempts, "error": found.row.last_error}
