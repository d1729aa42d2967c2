-- Secrets with which clients sign requests (TC3). They are needed in the clear to check a signature: sealed under a key of the
-- configuration, bound to their id.
CREATE TABLE signing_secrets (
    secret_id  text PRIMARY KEY,
    key_id     text NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
CREATE INDEX signing_secrets_key ON signing_secrets (key_id);
