//! What differs between versions of the daemon that is imitated (`PROTOCOLS` C.3 and D.10).

/// Behaviour of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Output of a process that nobody listens to is thrown away; before, it stalls the process.
    pub discard_unheard_output: bool,
    /// Watch events may carry the entry.
    pub watch_entry: bool,
    /// `Connect` within 30 s of a process's end still tells how it ended.
    pub late_connect: bool,
}

impl Features {
    /// Of a version such as `0.5.14`; parts that are no numbers count as 0.
    #[must_use]
    pub fn of(version: &str) -> Self {
        let version = parse(version);
        Self {
            discard_unheard_output: version >= (0, 5, 19),
            watch_entry: version >= (0, 6, 3),
            late_connect: version >= (0, 6, 12),
        }
    }
}

fn parse(version: &str) -> (u32, u32, u32) {
    let mut parts = version.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::Features;

    #[test]
    fn versions_compare_by_number() {
        assert!(!Features::of("0.5.14").discard_unheard_output);
        assert!(Features::of("0.5.19").discard_unheard_output);
        assert!(Features::of("v0.6.3").watch_entry && !Features::of("0.6.2").watch_entry);
        assert!(Features::of("99.99.99").late_connect);
        assert!(!Features::of("nonsense").discard_unheard_output);
    }
}
