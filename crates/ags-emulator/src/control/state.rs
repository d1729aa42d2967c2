//! Which operation an instance allows in which state (PROTOCOLS B.4, B.7).

use ags_client::types::InstanceStatus::{self, *};

/// What a caller wants of an existing instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Update,
    Pause,
    Resume,
    Stop,
    AcquireToken,
}

/// The machine's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Do it.
    Go,
    /// It is under way or done: success without a further effect.
    Already,
    /// Answer as though the instance had never been.
    NotFound,
    /// `UnsupportedOperation.SandboxInstance`.
    WrongState,
}

/// Judges an operation in a state.
pub fn judge(status: &InstanceStatus, operation: Operation) -> Verdict {
    use Operation::{AcquireToken, Pause, Resume, Stop, Update};
    match (status, operation) {
        (Stopped | StartingFailed | Failed | ForkFailed, _) => Verdict::NotFound,
        (Stopping, Stop) => Verdict::Already,
        (_, Stop) => Verdict::Go,
        (Stopping | StoppingFailed | StopFailed, _) => Verdict::WrongState,
        (Running | PauseFailed, Update | Pause) => Verdict::Go,
        (Pausing | Paused, Pause) => Verdict::Already,
        (Paused | ResumeFailed, Resume) => Verdict::Go,
        (Resuming, Resume) => Verdict::Already,
        (_, AcquireToken) => Verdict::Go,
        _ => Verdict::WrongState,
    }
}

/// Whether an instance in this state counts against the quota of running instances.
pub fn occupies_running(status: &InstanceStatus) -> bool {
    matches!(status, Starting | Running | Pausing | PauseFailed | Resuming | Stopping | StoppingFailed)
}

/// Whether it counts against the quota of paused instances.
pub fn occupies_paused(status: &InstanceStatus) -> bool {
    matches!(status, Paused | ResumeFailed)
}

/// Whether the instance is over for good.
pub fn is_final(status: &InstanceStatus) -> bool {
    matches!(status, Stopped | StartingFailed | Failed | ForkFailed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_instances_change() {
        for status in InstanceStatus::KNOWN {
            let go = judge(status, Operation::Update) == Verdict::Go;
            assert_eq!(go, matches!(status, Running | PauseFailed), "{status}");
        }
    }

    #[test]
    fn everything_alive_can_be_stopped_once() {
        for status in [Starting, Running, Pausing, Paused, Resuming, PauseFailed, ResumeFailed, StoppingFailed] {
            assert_eq!(judge(&status, Operation::Stop), Verdict::Go, "{status}");
        }
        assert_eq!(judge(&Stopping, Operation::Stop), Verdict::Already);
        assert_eq!(judge(&Stopped, Operation::Stop), Verdict::NotFound);
    }

    #[test]
    fn pause_and_resume_mirror_each_other() {
        assert_eq!(judge(&Running, Operation::Resume), Verdict::WrongState);
        assert_eq!(judge(&Paused, Operation::Resume), Verdict::Go);
        assert_eq!(judge(&Paused, Operation::Pause), Verdict::Already);
        assert_eq!(judge(&Starting, Operation::Pause), Verdict::WrongState);
    }

    #[test]
    fn a_state_occupies_at_most_one_quota() {
        for status in InstanceStatus::KNOWN {
            assert!(!(occupies_running(status) && occupies_paused(status)), "{status}");
            if is_final(status) {
                assert!(!occupies_running(status) && !occupies_paused(status), "{status}");
            }
        }
    }
}
