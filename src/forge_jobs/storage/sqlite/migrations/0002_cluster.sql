-- Which process runs each background loop of the cluster, and how many slots of a queue each process may open.

-- One row per loop, kept when nobody holds it, so that `token` only ever grows: it is raised with every change of
-- holder. From when until when the lease holds is measured on the host's boot-time clock, as heartbeats are;
-- `expires_at` is what people are shown.
CREATE TABLE forge_leases (
  name TEXT NOT NULL PRIMARY KEY,
  holder TEXT,
  token INTEGER NOT NULL,
  taken_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  from_us INTEGER NOT NULL,
  until_us INTEGER NOT NULL,
  boot INTEGER NOT NULL
) WITHOUT ROWID;

-- `share` is what the rebalancer gives the process, null while it gives nothing (the queue has no total, or the
-- rebalancer has not seen the process yet). `open` is how many slots the process may have open at this moment: it
-- raises it before it opens one and lowers it after one has closed, so the truth is never above it.
CREATE TABLE forge_shares (
  queue TEXT NOT NULL,
  host_id TEXT NOT NULL,
  share INTEGER,
  open INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (queue, host_id)
) WITHOUT ROWID;
