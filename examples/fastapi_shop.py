"""A FastAPI shop whose receipts are written by jobs, in the web process itself.

pip install 'forge-jobs[fastapi,server]'
uvicorn fastapi_shop:app
curl -X POST 'http://127.0.0.1:8000/orders?number=7'
curl http://127.0.0.1:8000/orders/7
The dashboard is at http://127.0.0.1:8000/ops/
"""

import os
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Response

from forge_jobs import EnqueueRequest, HandlerRegistry, JobCtx
from forge_jobs.integrations.fastapi import AppQueue, Jobs

handlers = HandlerRegistry()


@handlers.handler("receipt_write", timeout=30)
async def receipt_write(ctx: JobCtx, payload: dict[str, int]) -> None:
    receipt(payload["order"]).write_text(f"order {payload['order']}, attempt {ctx.attempt}\n")


jobs = Jobs(os.environ.get("DATABASE_URL", "sqlite:///shop.db"), handlers)
app = FastAPI(lifespan=jobs.lifespan)
app.mount("/ops", jobs.dashboard())  # open to everybody who reaches this port: give it an ApiConfig with tokens
Queue = Annotated[AppQueue, Depends(jobs)]


@app.post("/orders", status_code=202)
async def order(number: int, queue: Queue) -> dict[str, str]:
    """Take an order. Its receipt is written after the answer, whatever becomes of this process."""
    added = await queue.enqueue(EnqueueRequest("receipt_write", {"order": number}, dedupe_key=f"receipt-{number}"))
    return {"job": added.id}


@app.get("/orders/{number}")
async def read(number: int) -> Response:
    if not receipt(number).exists():
        raise HTTPException(404, "there is no receipt yet")
    return Response(receipt(number).read_text(), media_type="text/plain")


@app.get("/healthz")
async def health() -> dict[str, bool]:
    return {"working": jobs.is_working}


def receipt(number: int) -> Path:
    return Path(f"receipt-{number}.txt")
