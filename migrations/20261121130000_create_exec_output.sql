-- Output of commands that outlive their viewers, in pieces: `runs` says what `data` is made of. Places are counted anew by
-- each owner (epoch); a piece whose data was dropped to files in the sandbox keeps its runs.
CREATE TABLE exec_output (
    exec_id   text NOT NULL REFERENCES execs (id) ON DELETE CASCADE,
    epoch     integer NOT NULL,
    position  bigint NOT NULL,
    -- How many places it takes.
    length    bigint NOT NULL,
    runs      bytea NOT NULL,
    data      bytea NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (exec_id, epoch, position)
);
