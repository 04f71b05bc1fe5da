"""`/metrics` in Prometheus' text format. Needs `prometheus-client`: `pip install 'forge-jobs[server]'`.

exposition = Exposition(storage, runtime)      # without a runtime: the store and this process's own enqueues
body = await exposition.render()               # bytes of CONTENT_TYPE
"""

from forge_jobs.prometheus.exposition import CONTENT_TYPE, Exposition

__all__ = ["CONTENT_TYPE", "Exposition"]
