//! `[exec]`: commands and their output.

use std::time::Duration;

use super::section::Section;

#[derive(Clone, Debug)]
pub struct Exec {
    pub user: String,
    pub code_interpreter_user: String,
    pub timeout: Duration,
    pub max_timeout: Duration,
    /// Bytes kept per stream for a waiting JSON answer.
    pub output_limit: u64,
    pub max_output_limit: u64,
    /// Bytes kept per exec in memory.
    pub memory_window: u64,
    /// Bytes kept per exec in the database.
    pub stored_window: u64,
    /// How long the output of a command that has ended is kept.
    pub output_retention: Duration,
    /// Bytes that all commands together may hold in memory beyond `memory_window` while the database lags behind.
    pub memory_reserve: u64,
    /// Bytes of output held in memory for one team.
    pub team_memory: u64,
    /// Commands that may run in one instance.
    pub max_per_instance: u32,
    /// WebSockets that may be open: of one team, and to one instance.
    pub max_sockets_per_team: u32,
    pub max_sockets_per_instance: u32,
    pub keepalive: Duration,
}

impl Exec {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let exec = Self {
            user: section.text("user", "a user name"),
            code_interpreter_user: section.text("code_interpreter_user", "a user name"),
            timeout: section.duration("timeout"),
            max_timeout: section.duration("max_timeout"),
            output_limit: section.size("output_limit"),
            max_output_limit: section.size("max_output_limit"),
            memory_window: section.size("memory_window"),
            stored_window: section.size("stored_window"),
            output_retention: section.duration("output_retention"),
            memory_reserve: section.size("memory_reserve"),
            team_memory: section.size("team_memory"),
            max_per_instance: section.count("max_per_instance"),
            max_sockets_per_team: section.count("max_sockets_per_team"),
            max_sockets_per_instance: section.count("max_sockets_per_instance"),
            keepalive: section.duration("keepalive"),
        };
        if exec.output_limit > exec.max_output_limit {
            section.problem("output_limit", "is more than exec.max_output_limit");
        }
        if exec.timeout > exec.max_timeout {
            section.problem("timeout", "is more than exec.max_timeout");
        }
        section.finish();
        exec
    }
}
