-- Worker processes.

-- name: remove_process
DELETE FROM forge_processes WHERE host_id = :host

-- name: remove_pauses_of_the_gone
DELETE FROM forge_queue_pauses WHERE host_id <> '' AND host_id NOT IN (SELECT host_id FROM forge_processes)

-- name: remove_pauses_of_process
DELETE FROM forge_queue_pauses WHERE host_id = :host

-- name: wish_of_process
SELECT wish FROM forge_processes WHERE host_id = :host

-- name: ask_process
UPDATE forge_processes SET wish = :wish WHERE host_id = :host
