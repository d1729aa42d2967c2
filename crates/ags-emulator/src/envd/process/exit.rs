//! How a process ended, in envd's words.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

/// The end of a process (`process.ProcessEvent.EndEvent`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// −1 when it was killed by a signal.
    pub code: i32,
    /// False when it was killed by a signal.
    pub exited: bool,
    pub status: String,
    /// Same as the status, unless all went well.
    pub error: Option<String>,
}

impl Exit {
    /// An exit of its own accord.
    #[must_use]
    pub fn code(code: i32) -> Self {
        let status = format!("exit status {code}");
        Self { code, exited: true, error: (code != 0).then(|| status.clone()), status }
    }

    fn signal(signal: i32, core_dumped: bool) -> Self {
        let dump = if core_dumped { " (core dumped)" } else { "" };
        let status = format!("signal: {}{dump}", signal_text(signal));
        Self { code: -1, exited: false, error: Some(status.clone()), status }
    }

    /// When the status could not be learned.
    #[must_use]
    pub fn unknown(error: &std::io::Error) -> Self {
        let status = format!("wait: {error}");
        Self { code: -1, exited: false, error: Some(status.clone()), status }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::code(code),
            (None, signal) => Self::signal(signal.unwrap_or_default(), status.core_dumped()),
        }
    }
}

/// The texts of Go's `syscall.Signal`, which envd prints.
fn signal_text(signal: i32) -> String {
    let text = match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGUSR1 => "user defined signal 1",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGUSR2 => "user defined signal 2",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        other => return format!("signal {other}"),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_read_as_envd_writes_them() {
        let ok = Exit::from(ExitStatus::from_raw(0));
        assert_eq!((ok.code, ok.exited, ok.status.as_str(), ok.error), (0, true, "exit status 0", None));
        let failed = Exit::from(ExitStatus::from_raw(3 << 8));
        assert_eq!((failed.code, failed.error.as_deref()), (3, Some("exit status 3")));
        let killed = Exit::from(ExitStatus::from_raw(libc::SIGKILL));
        assert_eq!((killed.code, killed.exited, killed.status.as_str()), (-1, false, "signal: killed"));
        let dumped = Exit::from(ExitStatus::from_raw(libc::SIGSEGV | 0x80));
        assert_eq!(dumped.status, "signal: segmentation fault (core dumped)");
    }
}
