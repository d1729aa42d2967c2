-- How many commands and runs of code of a team each replica may follow: together never more than the team may have. Not
-- logged: after a crash replicas ask anew for what they need.
CREATE UNLOGGED TABLE exec_slots (
    team_id     text NOT NULL,
    replica     text NOT NULL,
    slots       bigint NOT NULL,
    lease_until timestamptz NOT NULL,
    PRIMARY KEY (team_id, replica)
) WITH (fillfactor = 50);
