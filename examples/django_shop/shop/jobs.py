"""The jobs of the shop. forge-jobs imports the module `jobs` of every installed app."""

from forge_jobs import JobCtx
from forge_jobs.integrations.django import handlers

from .models import Order


@handlers.handler("receipt_write", timeout=30)
async def receipt_write(ctx: JobCtx, payload: dict[str, int]) -> None:
    await Order.objects.filter(pk=payload["order"]).aupdate(receipt=f"order {payload['order']}, attempt {ctx.attempt}")
