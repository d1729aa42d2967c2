-- What another gateway needs to know to follow a command that it did not start.
ALTER TABLE execs
    -- Ends with the request that started it.
    ADD COLUMN foreground boolean NOT NULL DEFAULT false,
    ADD COLUMN stdin      boolean NOT NULL DEFAULT false,
    ADD COLUMN durable    boolean NOT NULL DEFAULT false,
    -- Started by somebody else: found by its process id only.
    ADD COLUMN attached   boolean NOT NULL DEFAULT false,
    ADD COLUMN expires_at timestamptz,
    -- The place after the last of its output, by the last owner's counting.
    ADD COLUMN output_end bigint;
CREATE INDEX execs_ended ON execs (ended_at) WHERE status <> 'running';
