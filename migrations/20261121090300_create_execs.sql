-- Commands run in instances. Output is not here.
CREATE TABLE execs (
    id          text PRIMARY KEY,
    team_id     text NOT NULL REFERENCES teams (id),
    instance_id text NOT NULL REFERENCES instances (id),
    created_by  text NOT NULL,
    cmd         jsonb NOT NULL,
    tag         text,
    background  boolean NOT NULL,
    pty         boolean NOT NULL,
    status      text NOT NULL,
    pid         bigint,
    exit_code   integer,
    signal      text,
    reason      text,
    error       text,
    started_at  timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz
);
CREATE INDEX execs_instance_page ON execs (instance_id, id DESC);
CREATE INDEX execs_team_running ON execs (team_id) WHERE status = 'running';
