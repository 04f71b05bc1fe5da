"""Every limit on input, in one place: messages, documentation and checks read it here.

Sizes are bytes unless the name says otherwise; durations carry their unit last.
"""

from __future__ import annotations

from typing import Final

NAME_LENGTH: Final = 128
DEDUPE_KEY_LENGTH: Final = 255
PAYLOAD_MAX_BYTES: Final = 1024 * 1024
PAYLOAD_CEILING_BYTES: Final = 16 * 1024 * 1024
JSON_DEPTH: Final = 100
INTEGER_DIGITS: Final = 4300
TAGS: Final = 16
TAG_LENGTH: Final = 64
PRIORITY: Final = (-1000, 1000)
MAX_ATTEMPTS: Final = (1, 1000)
MAX_CRASHES: Final = (1, 100)
DELAY_S: Final = (0, 10 * 366 * 86_400)
UNIQUE_FOR_S: Final = (1, 366 * 86_400)
RUN_AT_YEARS: Final = (1970, 9999)
TIMEOUT_S: Final = (0.001, 115 * 86_400)
RETRY_AFTER_S: Final = (0, 7 * 86_400)
MAX_WORKERS: Final = (0, 10_000)
SLOTS_PER_PROCESS: Final = 2_000
SLOTS_PER_QUEUE_OF_A_TOTAL: Final = 1_000
BACKOFF_S: Final = (1, 86_400)
JITTER: Final = (0.0, 0.5)
RETENTION_DAYS: Final = (0, 36_500)
MAX_PENDING: Final = (1, 1_000_000_000)
ERROR_TEXT_BYTES: Final = 4 * 1024
TRACEBACK_BYTES: Final = 16 * 1024
ERROR_HISTORY: Final = 32
BULK_REQUESTS: Final = 10_000
BULK_PAYLOAD_BYTES: Final = 64 * 1024 * 1024
BULK_CHUNK: Final = 1_000
PAGE: Final = 1_000
SEARCH_S: Final = 2.0
PROGRESS_MESSAGE_LENGTH: Final = 500
LOG_LINES: Final = 500
LOG_LINE_BYTES: Final = 2 * 1024
LOG_BYTES: Final = 64 * 1024
LOG_BUFFER_BYTES: Final = 16 * 1024 * 1024
CHILD_LINE_BYTES: Final = 2 * 1024 * 1024
CHILD_LOG_LINE_BYTES: Final = 8 * 1024
CHILD_LOG_LINES_PER_S: Final = 200
CHILDREN_PER_POOL: Final = (1, 1_000)
EVENT_BUFFER: Final = 50_000
SERIES_BUCKETS: Final = 2_000
TRACE_BYTES: Final = 4 * 1024
RATE_CAPACITY: Final = 1_000_000_000
RATE_RETRY_S: Final = (0.05, 60.0)
CRON_EXPR_LENGTH: Final = 255
PREVIEW_FIRES: Final = 100
SCHEDULE_JITTER_S: Final = (0, 3600)
MISFIRE_GRACE_S: Final = (0, 366 * 86_400)
MISFIRE_ALL: Final = (1, 1_000)
URL_BYTES: Final = 8 * 1024
HEADERS_BYTES: Final = 32 * 1024
BODY_EXTRA_BYTES: Final = 64 * 1024
"""A request's body may be larger than its payload by this much."""
BULK_BODY_BYTES: Final = 16 * 1024 * 1024
BODY_S: Final = 30
HEADER_S: Final = 10
CONNECTIONS: Final = 200
STREAMS: Final = 100
REQUESTS_AT_ONCE: Final = 64
