-- Tools (AGS sandbox tools). A row is the intent first: it is committed before the cloud is called.
CREATE TABLE tools (
    id                  text PRIMARY KEY,
    -- Null: a tool that every account of the cloud has, shared with all teams by configuration.
    team_id             text REFERENCES teams (id),
    upstream            text NOT NULL,
    upstream_id         text,
    client_token        text NOT NULL,
    name                text NOT NULL,
    type                text NOT NULL,
    spec                jsonb NOT NULL,
    status              text NOT NULL,
    status_reason       text,
    upstream_request_id text,
    created_by          text,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    deleted_at          timestamptz,
    -- Somebody works on the row; until then the others leave it alone.
    claimed_until       timestamptz,
    attempts            integer NOT NULL DEFAULT 0,
    last_error          text,
    -- It failed, and something of it may be left in the cloud.
    leftover            boolean NOT NULL DEFAULT false,
    CHECK ((team_id IS NULL) = (created_by IS NULL))
);
-- A tool that failed gives its name back.
CREATE UNIQUE INDEX tools_team_name ON tools (team_id, name) WHERE deleted_at IS NULL AND status <> 'FAILED';
CREATE UNIQUE INDEX tools_shared_name ON tools (upstream, name) WHERE team_id IS NULL AND deleted_at IS NULL;
CREATE UNIQUE INDEX tools_upstream ON tools (upstream, upstream_id) WHERE upstream_id IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX tools_team_page ON tools (team_id, id DESC);
CREATE INDEX tools_unsettled ON tools (claimed_until)
    WHERE deleted_at IS NULL AND (status IN ('CREATING', 'DELETING') OR leftover);
