-- Output that is in files in the sandbox too: where in them a piece begins. Its data may be left there.
ALTER TABLE exec_output
    ALTER COLUMN data DROP NOT NULL,
    ADD COLUMN stdout_at bigint,
    ADD COLUMN stderr_at bigint;
