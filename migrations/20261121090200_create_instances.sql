-- Every sandbox the gateway ever asked for, live or ended.
CREATE TABLE instances (
    id                  text PRIMARY KEY,
    team_id             text NOT NULL REFERENCES teams (id),
    tool_id             text NOT NULL REFERENCES tools (id),
    tool_name           text NOT NULL,
    tool_type           text NOT NULL,
    upstream            text NOT NULL,
    upstream_id         text,
    client_token        text NOT NULL,
    status              text NOT NULL,
    status_reason       text,
    spec                jsonb NOT NULL,
    metadata            jsonb NOT NULL,
    env                 jsonb NOT NULL,
    auth_mode           text NOT NULL,
    timeout_seconds     integer NOT NULL CHECK (timeout_seconds > 0),
    idle                jsonb,
    created_by          text NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    -- The gateway's own end of life; the cloud's is later (upstream_expires_at), as a backstop.
    expires_at          timestamptz NOT NULL,
    upstream_expires_at timestamptz,
    last_active_at      timestamptz,
    stopping_at         timestamptz,
    stopped_at          timestamptz,
    stop_reason         text,
    -- Who is working on the row now (start, stop) and until when the others leave it alone.
    claimed_until       timestamptz,
    attempts            integer NOT NULL DEFAULT 0,
    last_error          text,
    upstream_request_id text,
    -- Since when the cloud does not list what should be running there.
    missing_since       timestamptz
);
CREATE UNIQUE INDEX instances_upstream ON instances (upstream, upstream_id) WHERE upstream_id IS NOT NULL;
CREATE INDEX instances_team_page ON instances (team_id, id DESC);
CREATE INDEX instances_expiry ON instances (expires_at) WHERE stopped_at IS NULL;
CREATE INDEX instances_stopping ON instances (claimed_until) WHERE status = 'STOPPING';
CREATE INDEX instances_tool_live ON instances (tool_id) WHERE stopped_at IS NULL;
CREATE INDEX instances_team_live ON instances (team_id) WHERE stopped_at IS NULL;
