-- Who did what, from where, for whom, with what outcome. Nothing here refers to other rows: it outlives them all.
CREATE TABLE audit_events (
    id                  text PRIMARY KEY,
    at                  timestamptz NOT NULL,
    -- Whose things it was about.
    team_id             text NOT NULL,
    -- Null: whoever holds the database's credentials.
    key_id              text,
    key_prefix          text,
    on_behalf_of        text,
    client              text,
    request_id          text,
    action              text NOT NULL,
    instance_id         text,
    tool_id             text,
    exec_id             text,
    -- Anything else that it was about: a key, a team, a preview, a context.
    target_id           text,
    -- It started a command or code.
    runs                boolean NOT NULL,
    command             text,
    -- 'ok' or a code. Null: not known (yet).
    outcome             text,
    status              integer,
    reason              text,
    exit_code           integer,
    upstream_request_id text,
    duration_ms         bigint
);
CREATE INDEX audit_events_team_page ON audit_events (team_id, id DESC);
CREATE INDEX audit_events_instance_page ON audit_events (instance_id, id DESC) WHERE instance_id IS NOT NULL;
CREATE INDEX audit_events_run ON audit_events (exec_id) WHERE runs AND exec_id IS NOT NULL;
CREATE INDEX audit_events_at ON audit_events (at);
