//! What can happen, in words that a failure is read by.

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

/// How many idempotency keys there are, each for one instance.
pub const KEYS: u8 = 4;

/// Which gateway is asked: the first is part of the test, the second a program that can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    First,
    Second,
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    Start {
        key: u8,
        by: By,
    },
    /// At both gateways at the same time.
    StartAtBoth {
        key: u8,
    },
    /// The client hangs up before there is an answer.
    StartAndLeave {
        key: u8,
        by: By,
    },
    Stop {
        key: u8,
        by: By,
    },
    Pause {
        key: u8,
        by: By,
    },
    Resume {
        key: u8,
        by: By,
    },
    Extend {
        key: u8,
        by: By,
    },
    /// Its time is up.
    Expire {
        key: u8,
    },
    /// Somebody stops it in the cloud.
    StopInTheCloud {
        key: u8,
    },
    Cloud {
        action: Action,
        trouble: Trouble,
        times: u8,
    },
    Database(Outage),
    /// From now on every connection of the second gateway to the database breaks after so many bytes of what it says: a transaction
    /// may be committed and nobody be told.
    CutDatabase {
        bytes: u16,
    },
    /// The second gateway is killed, and started again.
    Kill,
    /// Cloud and database are well again.
    Heal,
}

#[derive(Clone, Copy, Debug)]
pub enum Action {
    Start,
    Stop,
    Pause,
    Resume,
    Describe,
    Any,
}

#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// Has its effect, and no answer.
    LosesAnswers,
    /// Has no effect, and no answer.
    Cuts,
    Refuses,
    Throttles,
    Fails,
    IsSlow,
}

#[derive(Clone, Copy, Debug)]
pub enum Outage {
    /// Every connection is cut once.
    Restarts,
    Gone,
    /// As after a failover to a server that follows another.
    ReadOnly,
}

impl Action {
    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Start => Some("StartSandboxInstance"),
            Self::Stop => Some("StopSandboxInstance"),
            Self::Pause => Some("PauseSandboxInstance"),
            Self::Resume => Some("ResumeSandboxInstance"),
            Self::Describe => Some("DescribeSandboxInstanceList"),
            Self::Any => None,
        }
    }
}

/// The emulator's rule.
pub fn rule(action: Action, trouble: Trouble, times: u8) -> Value {
    let mut rule = match trouble {
        Trouble::LosesAnswers => json!({"kind": "lose_response"}),
        Trouble::Cuts => json!({"kind": "cut"}),
        // Of everything it would be of the emulator's own port.
        Trouble::Refuses => json!({"kind": "http", "status": 503}),
        Trouble::Throttles => json!({"kind": "throttle"}),
        Trouble::Fails => json!({"kind": "error", "code": "InternalError"}),
        Trouble::IsSlow => json!({"kind": "latency", "ms": 300}),
    };
    rule["match"] = json!({"plane": "control"});
    if let Some(name) = action.name() {
        rule["match"]["action"] = json!(name);
    }
    rule["times"] = json!(times);
    rule
}

fn by() -> impl Strategy<Value = By> {
    prop_oneof![Just(By::First), Just(By::Second)]
}

fn action() -> impl Strategy<Value = Action> {
    use Action::{Any, Describe, Pause, Resume, Start, Stop};
    prop::sample::select(vec![Start, Start, Stop, Stop, Pause, Resume, Describe, Any])
}

fn trouble() -> impl Strategy<Value = Trouble> {
    use Trouble::{Cuts, Fails, IsSlow, LosesAnswers, Refuses, Throttles};
    prop::sample::select(vec![LosesAnswers, LosesAnswers, Cuts, Refuses, Throttles, Fails, IsSlow])
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    let keyed = || (key.clone(), by());
    prop_oneof![
        6 => keyed().prop_map(|(key, by)| Step::Start { key, by }),
        2 => key.clone().prop_map(|key| Step::StartAtBoth { key }),
        2 => keyed().prop_map(|(key, by)| Step::StartAndLeave { key, by }),
        3 => keyed().prop_map(|(key, by)| Step::Stop { key, by }),
        2 => keyed().prop_map(|(key, by)| Step::Pause { key, by }),
        2 => keyed().prop_map(|(key, by)| Step::Resume { key, by }),
        1 => keyed().prop_map(|(key, by)| Step::Extend { key, by }),
        1 => key.clone().prop_map(|key| Step::Expire { key }),
        1 => key.clone().prop_map(|key| Step::StopInTheCloud { key }),
        6 => (action(), trouble(), 1..5u8).prop_map(|(action, trouble, times)| Step::Cloud { action, trouble, times }),
        1 => prop::sample::select(vec![Outage::Restarts, Outage::Gone, Outage::ReadOnly]).prop_map(Step::Database),
        1 => (500..30_000_u16).prop_map(|bytes| Step::CutDatabase { bytes }),
        1 => Just(Step::Kill),
        2 => Just(Step::Heal),
    ]
}

/// What happens one after the other.
pub fn script() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..16)
}
