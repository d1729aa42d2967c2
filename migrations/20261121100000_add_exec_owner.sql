-- Which gateway follows a command's output, and until when it says that it does: past that, its end was not seen.
-- The epoch counts the owners; places in the output of one owner mean nothing to the next.
ALTER TABLE execs
    ADD COLUMN user_name   text NOT NULL DEFAULT '',
    ADD COLUMN owner       text NOT NULL DEFAULT '',
    ADD COLUMN epoch       integer NOT NULL DEFAULT 1,
    ADD COLUMN lease_until timestamptz NOT NULL DEFAULT now();
CREATE INDEX execs_lease ON execs (lease_until) WHERE status = 'running';
