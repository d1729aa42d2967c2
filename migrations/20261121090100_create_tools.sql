-- Tools (AGS sandbox tools). A row is the intent first: it is committed before the cloud is called.
CREATE TABLE tools (
    id                  text PRIMARY KEY,
    team_id             text NOT NULL REFERENCES teams (id),
    upstream            text NOT NULL,
    upstream_id         text,
    client_token        text NOT NULL,
    name                text NOT NULL,
    type                text NOT NULL,
    spec                jsonb NOT NULL,
    status              text NOT NULL,
    status_reason       text,
    upstream_request_id text,
    created_by          text NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    deleted_at          timestamptz
);
CREATE UNIQUE INDEX tools_team_name ON tools (team_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX tools_upstream ON tools (upstream, upstream_id) WHERE upstream_id IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX tools_team_page ON tools (team_id, id DESC);
CREATE INDEX tools_unsettled ON tools (updated_at) WHERE status IN ('CREATING', 'DELETING');
