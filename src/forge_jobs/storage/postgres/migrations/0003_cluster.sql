-- Leases of background loops, and the shares of queues among processes.

CREATE TABLE {schema}.leases (
  name text COLLATE "C" NOT NULL PRIMARY KEY,
  holder text COLLATE "C",
  token bigint NOT NULL,
  taken_at bigint NOT NULL,
  expires_at bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE {schema}.shares (
  queue text COLLATE "C" NOT NULL,
  host_id text COLLATE "C" NOT NULL,
  share integer,
  open integer NOT NULL DEFAULT 0,
  PRIMARY KEY (queue, host_id)
) WITH (fillfactor = 50);
