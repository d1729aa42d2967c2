-- Who may call the gateway, and how much of the central credentials' power each team is lent.
CREATE TABLE teams (
    id                       text PRIMARY KEY,
    name                     text NOT NULL,
    max_instances            integer NOT NULL CHECK (max_instances >= 0),
    max_lifetime_seconds     integer NOT NULL CHECK (max_lifetime_seconds > 0),
    max_execs                integer NOT NULL CHECK (max_execs >= 0),
    requests_per_second      integer NOT NULL CHECK (requests_per_second > 0),
    instance_seconds_per_day bigint CHECK (instance_seconds_per_day >= 0),
    grants                   jsonb NOT NULL,
    created_at               timestamptz NOT NULL DEFAULT now(),
    updated_at               timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX teams_name ON teams (name);

CREATE TABLE api_keys (
    id           text PRIMARY KEY,
    team_id      text NOT NULL REFERENCES teams (id),
    name         text NOT NULL,
    kind         text NOT NULL,
    scopes       text[] NOT NULL,
    -- The key that minted this one; revoking it revokes this one too.
    issuer_id    text REFERENCES api_keys (id),
    -- Set: the key may touch this instance alone.
    instance_id  text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
CREATE INDEX api_keys_team ON api_keys (team_id, id);
CREATE INDEX api_keys_issuer ON api_keys (issuer_id) WHERE issuer_id IS NOT NULL;

-- A key has one secret, and two while it is being rotated. Only a peppered digest is kept.
CREATE TABLE api_key_secrets (
    digest     bytea PRIMARY KEY,
    key_id     text NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    prefix     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
CREATE INDEX api_key_secrets_key ON api_key_secrets (key_id);
