-- What happened to instances, for those who follow them.
CREATE TABLE instance_events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance_id text NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- 'status' or 'expiring'
    type        text NOT NULL,
    status      text NOT NULL,
    stop_reason text,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX instance_events_page ON instance_events (instance_id, id);

-- A trigger, so that no way in which an instance changes its state can be forgotten, whichever version writes it.
CREATE FUNCTION note_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO instance_events (instance_id, type, status, stop_reason, expires_at)
    VALUES (NEW.id, 'status', NEW.status, NEW.stop_reason, NEW.expires_at);
    RETURN NULL;
END $$;
CREATE TRIGGER instances_note_creation AFTER INSERT ON instances FOR EACH ROW EXECUTE FUNCTION note_status();
CREATE TRIGGER instances_note_status AFTER UPDATE ON instances
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION note_status();

-- The end of life that a warning was given of.
ALTER TABLE instances ADD COLUMN warned_for timestamptz;
-- For the idle policy: instances that have one.
CREATE INDEX instances_idle ON instances (last_active_at) WHERE idle IS NOT NULL AND status = 'RUNNING';
-- A command that nobody waits for counts as activity all the same.
ALTER TABLE execs ADD COLUMN keep_alive boolean NOT NULL DEFAULT false;
CREATE INDEX execs_instance_running ON execs (instance_id) WHERE status = 'running';
