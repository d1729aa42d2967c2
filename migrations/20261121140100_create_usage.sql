-- What teams used. It outlives instances, tools and keys.
--
-- A run is the time that an instance was RUNNING without a pause, until it was paused or had ended.
CREATE TABLE usage_runs (
    instance_id text NOT NULL,
    team_id     text NOT NULL,
    tool_id     text NOT NULL,
    -- The key that created the instance.
    key_id      text NOT NULL,
    resumed     boolean NOT NULL,
    started_at  timestamptz NOT NULL,
    ended_at    timestamptz,
    PRIMARY KEY (instance_id, started_at)
);
CREATE UNIQUE INDEX usage_runs_open ON usage_runs (instance_id) WHERE ended_at IS NULL;
CREATE INDEX usage_runs_team ON usage_runs (team_id, started_at);
CREATE INDEX usage_runs_ended ON usage_runs (ended_at);

-- Commands and code, counted by the hour.
CREATE TABLE usage_hours (
    hour    timestamptz NOT NULL,
    team_id text NOT NULL,
    tool_id text NOT NULL,
    -- The key that ran them.
    key_id  text NOT NULL,
    execs   bigint NOT NULL DEFAULT 0,
    exec_ms bigint NOT NULL DEFAULT 0,
    bytes   bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (hour, team_id, tool_id, key_id)
);

-- A trigger, so that no way in which an instance comes to run or to its end can be forgotten: whoever writes the row
-- (a start, the reaper, the reconciler, an older version of the gateway) writes the run with it.
CREATE FUNCTION count_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'RUNNING' AND NEW.stopped_at IS NULL THEN
        INSERT INTO usage_runs (instance_id, team_id, tool_id, key_id, resumed, started_at)
        SELECT NEW.id, NEW.team_id, NEW.tool_id, NEW.created_by, OLD.started_at IS NOT NULL, clock_timestamp()
        WHERE NOT EXISTS (SELECT FROM usage_runs WHERE instance_id = NEW.id AND ended_at IS NULL);
    ELSIF NEW.status = 'PAUSED' OR NEW.stopped_at IS NOT NULL THEN
        UPDATE usage_runs SET ended_at = greatest(started_at, clock_timestamp())
        WHERE instance_id = NEW.id AND ended_at IS NULL;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER instances_count_run AFTER UPDATE ON instances
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION count_run();

INSERT INTO usage_runs (instance_id, team_id, tool_id, key_id, resumed, started_at, ended_at)
SELECT id, team_id, tool_id, created_by, false, started_at,
       CASE WHEN stopped_at IS NOT NULL THEN greatest(started_at, stopped_at)
            WHEN status = 'PAUSED' THEN greatest(started_at, updated_at) END
FROM instances WHERE started_at IS NOT NULL;
