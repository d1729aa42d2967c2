-- First answers of creating calls, replayed when the call is repeated with the same Idempotency-Key.
CREATE TABLE idempotency_keys (
    team_id     text NOT NULL REFERENCES teams (id),
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    -- What the first call made, known before its answer is: after a crash the answer is found through it.
    resource    text,
    -- Null while the first call runs.
    status      integer,
    body        jsonb,
    created_at  timestamptz NOT NULL DEFAULT now(),
    locked_until timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (team_id, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);
