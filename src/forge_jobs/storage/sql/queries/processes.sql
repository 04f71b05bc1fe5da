-- Worker processes.

-- name: remove_process
DELETE FROM forge_processes WHERE host_id = :host

-- name: remove_pauses_of_process
DELETE FROM forge_queue_pauses WHERE host_id = :host
