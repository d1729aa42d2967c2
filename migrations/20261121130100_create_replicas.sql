-- The gateways that run on this database. `host` and `url` together are one place: whoever starts there succeeds the last.
CREATE TABLE replicas (
    id      text PRIMARY KEY,
    host    text NOT NULL,
    url     text,
    seen_at timestamptz NOT NULL DEFAULT now()
);
