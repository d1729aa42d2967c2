-- For the removal of instances that ended long ago, with their commands.
CREATE INDEX instances_ended ON instances (stopped_at) WHERE stopped_at IS NOT NULL;
