-- For the idle policy: what is paused may be stopped when it is not used for longer. `instances_idle` is still used by replicas of
-- the version before.
CREATE INDEX instances_unused ON instances (last_active_at) WHERE idle IS NOT NULL AND status IN ('RUNNING', 'PAUSED');
