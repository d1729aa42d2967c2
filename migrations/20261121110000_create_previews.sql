-- Leave for a browser to see one port of one instance. The link is signed and good for one exchange; what the browser gets
-- for it is a cookie, of which only a peppered digest is kept.
CREATE TABLE previews (
    id            text PRIMARY KEY,
    team_id       text NOT NULL REFERENCES teams (id),
    key_id        text NOT NULL REFERENCES api_keys (id),
    instance_id   text NOT NULL,
    port          integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
    cookie_digest bytea,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    opened_at     timestamptz,
    revoked_at    timestamptz
);
CREATE UNIQUE INDEX previews_cookie ON previews (cookie_digest) WHERE cookie_digest IS NOT NULL;
CREATE INDEX previews_instance_page ON previews (team_id, instance_id, id DESC);
CREATE INDEX previews_expiry ON previews (expires_at);
