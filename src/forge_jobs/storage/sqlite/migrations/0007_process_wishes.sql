-- What an operator asks of a worker process, which learns it with its next heartbeat: `quiet`, `stop`, or null. Older
-- programs go on without it.
ALTER TABLE forge_processes ADD COLUMN wish TEXT;
