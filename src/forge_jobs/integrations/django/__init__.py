"""Jobs in a Django site: enqueue in your transaction, a worker as a management command, and a backend for tasks.

    INSTALLED_APPS = [..., "forge_jobs.integrations.django"]

    from forge_jobs.integrations.django import enqueue, handlers      # shop/jobs.py

    @handlers.handler("receipt_send")
    async def receipt_send(ctx, payload): ...

`manage.py migrate` makes the tables of forge-jobs too, `manage.py forge_worker` runs the jobs. `enqueue` and
`enqueue_bulk` need neither the app nor its settings; see `transaction.py`. The settings are in `site.py`.
"""

from forge_jobs.integrations.django.site import handlers, queue
from forge_jobs.integrations.django.transaction import enqueue, enqueue_bulk

__all__ = ["enqueue", "enqueue_bulk", "handlers", "queue"]
