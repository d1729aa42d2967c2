-- One-use tickets with which a browser opens a WebSocket (it cannot send an Authorization header there).
CREATE TABLE tickets (
    digest      bytea PRIMARY KEY,
    team_id     text NOT NULL REFERENCES teams (id),
    key_id      text NOT NULL REFERENCES api_keys (id),
    instance_id text NOT NULL,
    exec_id     text,
    scopes      text[] NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);
CREATE INDEX tickets_expiry ON tickets (expires_at);
