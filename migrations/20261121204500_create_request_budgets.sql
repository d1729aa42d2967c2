-- What each team has left of its requests per second: replicas report what they let through and read what is left, all in the
-- background. Not logged: after a crash everybody has a full budget, and writing it costs next to nothing.
CREATE UNLOGGED TABLE request_budgets (
    team_id    text PRIMARY KEY,
    -- Requests per second, and how many may come at once.
    rate       double precision NOT NULL,
    -- Below zero: more was let through than there was, and is made up for.
    tokens     double precision NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 50);
