-- What the code of workers says of kinds of jobs. Older programs go on, but do not hide what is declared here.

-- `declaration` is JSON, as the worker with the host id `declared_by` told it last. `redact` (a JSON list of keys) and
-- `hidden` are the rules that apply: all that was ever declared, until an operator takes them back.
CREATE TABLE {schema}.kinds (
  kind text COLLATE "C" NOT NULL PRIMARY KEY,
  declaration text NOT NULL,
  redact text NOT NULL,
  hidden bigint NOT NULL,
  declared_at bigint NOT NULL,
  declared_by text NOT NULL
);
