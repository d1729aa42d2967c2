-- Which keys were given tokens of an instance's ports. The tokens themselves are derived from both and not kept; a signature
-- that was computed from one is checked against those of the keys named here.
CREATE TABLE passes (
    instance_id text NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    key_id      text NOT NULL REFERENCES api_keys (id),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (instance_id, key_id)
);
