-- Teams that may start instances of another team's tool.
CREATE TABLE tool_shares (
    tool_id    text NOT NULL REFERENCES tools (id) ON DELETE CASCADE,
    team_id    text NOT NULL REFERENCES teams (id),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tool_id, team_id)
);
CREATE INDEX tool_shares_team ON tool_shares (team_id, tool_id);
