-- A plain job table of 16 columns with two indexes, as one would write it first: for orientation beside ours.

-- name: create_table
CREATE TABLE jobs (
  id INTEGER PRIMARY KEY,
  queue TEXT NOT NULL,
  kind TEXT NOT NULL,
  payload TEXT NOT NULL,
  status TEXT NOT NULL DEFAULT 'pending',
  priority INTEGER NOT NULL DEFAULT 0,
  scheduled_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  max_attempts INTEGER NOT NULL DEFAULT 5,
  process_id TEXT,
  heartbeat_at INTEGER,
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  finished_at INTEGER,
  result TEXT,
  error TEXT
)

-- name: create_ready
CREATE INDEX jobs_ready ON jobs (queue, priority, scheduled_at, id) WHERE status = 'pending'

-- name: create_running
CREATE INDEX jobs_running ON jobs (heartbeat_at) WHERE status = 'running'

-- name: insert
INSERT INTO jobs (queue, kind, payload, scheduled_at, created_at) VALUES (?, ?, ?, ?, ?)

-- name: claim
UPDATE jobs SET status = 'running', attempts = attempts + 1, process_id = 'raw', heartbeat_at = ?, started_at = ?
WHERE id IN (
  SELECT id FROM jobs WHERE status = 'pending' AND queue = ? AND ? IS NOT NULL AND scheduled_at <= ?
  ORDER BY priority, scheduled_at, id LIMIT ?)
RETURNING id, kind, payload, attempts, max_attempts

-- name: finalize
UPDATE jobs SET status = 'done', finished_at = ?, heartbeat_at = NULL, process_id = NULL WHERE id = ?

-- name: finalize_batch
UPDATE jobs SET status = 'done', finished_at = ?, heartbeat_at = NULL, process_id = NULL
WHERE id IN (SELECT value FROM json_each(?))
