-- Who waits in line for an instance. Ids sort by time: whoever came first is first in its team's line.
CREATE TABLE instance_queue (
    id         text PRIMARY KEY,
    team_id    text NOT NULL REFERENCES teams (id),
    upstream   text NOT NULL,
    -- Whoever waits says so again; one that does not has left.
    seen_until timestamptz NOT NULL
);
CREATE INDEX instance_queue_team ON instance_queue (team_id, id);

-- How many live instances an account of the cloud had when it said that it takes no more.
CREATE TABLE account_limits (
    upstream  text PRIMARY KEY,
    instances bigint NOT NULL,
    seen_at   timestamptz NOT NULL DEFAULT now()
);

-- Says on a channel that there is room for an instance, to those who wait for it on whatever replica.
CREATE FUNCTION notify_capacity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('ags_gateway_capacity', NEW.upstream);
    RETURN NULL;
END $$;
CREATE TRIGGER instances_notify_capacity AFTER UPDATE ON instances FOR EACH ROW
    WHEN ((OLD.stopped_at IS NULL AND NEW.stopped_at IS NOT NULL) OR (OLD.status <> 'PAUSED' AND NEW.status = 'PAUSED'))
    EXECUTE FUNCTION notify_capacity();

-- For what a team has used today.
CREATE INDEX usage_runs_team_ended ON usage_runs (team_id, ended_at);
