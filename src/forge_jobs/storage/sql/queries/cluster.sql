-- Leases of background loops, and the shares of queues among processes.

-- name: list_shares
SELECT queue, host_id, share, open FROM forge_shares ORDER BY queue, host_id

-- name: open_elsewhere
SELECT coalesce(sum(open), 0) FROM forge_shares WHERE queue = :queue AND host_id <> :host

-- name: write_share
-- Only for a process on the list, and only where it differs: an unchanged row is not written.
INSERT INTO forge_shares (queue, host_id, share, open)
SELECT CAST(:queue AS text), host_id, CAST(:share AS integer), 0 FROM forge_processes WHERE host_id = :host
ON CONFLICT (queue, host_id) DO UPDATE SET share = excluded.share
WHERE coalesce(forge_shares.share, -1) <> coalesce(excluded.share, -1)

-- name: write_open
INSERT INTO forge_shares (queue, host_id, share, open)
SELECT CAST(:queue AS text), host_id, NULL, CAST(:open AS integer) FROM forge_processes WHERE host_id = :host
ON CONFLICT (queue, host_id) DO UPDATE SET open = excluded.open WHERE forge_shares.open <> excluded.open

-- name: delete_shares_of_queue
DELETE FROM forge_shares WHERE queue = :name

-- name: remove_shares_of_process
DELETE FROM forge_shares WHERE host_id = :host

-- name: remove_shares_of_the_gone
DELETE FROM forge_shares WHERE host_id NOT IN (SELECT host_id FROM forge_processes)
