-- Runs: create an instance, upload, execute, collect, destroy, as one thing. The row is written together with the intent of
-- its instance, so that there is never one without the other.
CREATE TABLE runs (
    id              text PRIMARY KEY,
    team_id         text NOT NULL REFERENCES teams (id),
    created_by      text NOT NULL,
    tool_id         text NOT NULL,
    tool_name       text NOT NULL,
    -- They may be removed before the run is.
    instance_id     text NOT NULL,
    -- The command's, decided beforehand: whoever starts it starts this one, and so it is started once.
    exec_id         text NOT NULL,
    code            boolean NOT NULL,
    -- Where the request came from, for the history.
    origin          jsonb NOT NULL,
    status          text NOT NULL,
    timeout_seconds integer NOT NULL,
    -- What is to be run, with files and environment. Gone as soon as the run has ended: there may be secrets in it.
    input           bytea,
    -- What it printed and how it ended; what was collected. JSON, but with NUL characters where the run printed some.
    output          bytea,
    files           bytea,
    -- Why the run failed, or will have when its instance is stopped.
    failure         jsonb,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    cancelled_at    timestamptz,
    ended_at        timestamptz,
    -- Who drives it. The epoch counts the owners, and what an earlier one writes is refused.
    owner           text NOT NULL,
    epoch           integer NOT NULL DEFAULT 1,
    lease_until     timestamptz NOT NULL,
    CHECK ((ended_at IS NOT NULL) = (status IN ('done', 'failed'))),
    CHECK (ended_at IS NULL OR input IS NULL)
);
CREATE INDEX runs_team_page ON runs (team_id, id DESC);
CREATE INDEX runs_lease ON runs (lease_until) WHERE ended_at IS NULL;
CREATE INDEX runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;
