//! Faults on demand: rules that admin calls add and requests run into.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// Which side of the emulator a request came in at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plane {
    /// The signed API.
    Control,
    /// `api.{domain}`.
    E2b,
    /// A port of an instance.
    Data,
}

/// What happens to a request that a rule matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// Waits (real time) before anything else.
    Latency { ms: u64 },
    /// Waits (real time) after the effect, before the answer.
    DelayResponse { ms: u64 },
    /// `RequestLimitExceeded`, or HTTP 429 where there is no such envelope.
    Throttle,
    /// An AGS error code; HTTP 500 where there is no such envelope.
    Error {
        code: String,
        #[serde(default)]
        message: Option<String>,
    },
    /// A bare HTTP answer, as from a proxy in between.
    Http {
        status: u16,
        #[serde(default)]
        body: Option<String>,
    },
    /// The connection is dropped before the request was looked at; reset on arrival when the rule matches
    /// everything.
    Refuse,
    /// The connection is dropped after the request was read, without effect.
    Cut,
    /// The effect happens, then the connection is dropped.
    LoseResponse,
    /// The answer's body breaks off after this many bytes.
    CutStreamAfterBytes { bytes: u64 },
    /// Every token issued so far for the instance (all instances when unknown) stops working.
    ExpireTokens,
    /// A tool created by this request ends FAILED.
    FailTool {
        #[serde(default)]
        reason: Option<String>,
    },
    /// An instance started by this request ends STARTING_FAILED, paused PAUSE_FAILED, resumed
    /// RESUME_FAILED, stopped STOPPING_FAILED.
    FailInstance,
}

/// What a rule looks at; absent fields match everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    pub plane: Option<Plane>,
    /// An action name of the signed API.
    pub action: Option<String>,
    /// A prefix of the request's path.
    pub path: Option<String>,
    pub method: Option<String>,
    pub port: Option<u16>,
    /// An instance id, where the request names one.
    pub instance: Option<String>,
}

/// A rule as an admin sends it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct NewRule {
    #[serde(default, rename = "match")]
    pub matches: Match,
    #[serde(flatten)]
    pub kind: Kind,
    /// How often it strikes before it is spent; unlimited when absent.
    #[serde(default)]
    pub times: Option<u64>,
    /// How many matching requests it lets pass first.
    #[serde(default)]
    pub skip: u64,
    /// Chance that it strikes a matching request, 0 to 1.
    #[serde(default = "certain")]
    pub probability: f64,
}

fn certain() -> f64 {
    1.0
}

/// A rule as it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    pub id: u64,
    #[serde(rename = "match")]
    pub matches: Match,
    #[serde(flatten)]
    pub kind: Kind,
    pub times: Option<u64>,
    pub skip: u64,
    pub probability: f64,
    /// Requests struck.
    pub hits: u64,
}

/// A request as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub plane: Plane,
    pub action: Option<&'a str>,
    pub path: &'a str,
    pub method: &'a str,
    pub port: Option<u16>,
    pub instance: Option<&'a str>,
}

impl Match {
    fn covers(&self, subject: &Subject<'_>) -> bool {
        fn same<T: PartialEq>(wanted: Option<T>, actual: Option<T>) -> bool {
            wanted.is_none() || wanted == actual
        }
        same(self.plane, Some(subject.plane))
            && same(self.action.as_deref(), subject.action)
            && same(self.port, subject.port)
            && same(self.instance.as_deref(), subject.instance)
            && self.method.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(subject.method))
            && self.path.as_deref().is_none_or(|p| subject.path.starts_with(p))
    }
}

impl Rule {
    /// Whether it strikes the next request that it matches; counts it.
    fn strikes(&mut self) -> bool {
        if self.times.is_some_and(|times| self.hits >= times) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.probability < 1.0 && rand::rng().random::<f64>() >= self.probability {
            return false;
        }
        self.hits += 1;
        true
    }
}

/// All rules.
#[derive(Default)]
pub struct Faults {
    rules: Mutex<Vec<Rule>>,
    last_id: AtomicU64,
}

impl Faults {
    fn with<T>(&self, f: impl FnOnce(&mut Vec<Rule>) -> T) -> T {
        f(&mut self.rules.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Adds a rule and returns it with its id.
    pub fn add(&self, new: NewRule) -> Rule {
        let NewRule { matches, kind, times, skip, probability } = new;
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let rule = Rule { id, matches, kind, times, skip, probability, hits: 0 };
        self.with(|rules| rules.push(rule.clone()));
        rule
    }

    /// All rules, spent ones included.
    pub fn list(&self) -> Vec<Rule> {
        self.with(|rules| rules.clone())
    }

    /// Removes one rule; whether it was there.
    pub fn remove(&self, id: u64) -> bool {
        self.with(|rules| {
            let before = rules.len();
            rules.retain(|rule| rule.id != id);
            rules.len() < before
        })
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.with(Vec::clear);
    }

    /// Whether a connection is to be reset before a request was read: a `refuse` rule that matches everything.
    pub fn refuses_connections(&self) -> bool {
        self.with(|rules| {
            rules
                .iter_mut()
                .filter(|rule| rule.kind == Kind::Refuse && rule.matches == Match::default())
                .any(Rule::strikes)
        })
    }

    /// The faults that strike this request, in the order in which they were added.
    pub fn strike(&self, subject: &Subject<'_>) -> Struck {
        let mut kinds = Vec::new();
        self.with(|rules| {
            for rule in rules.iter_mut().filter(|rule| rule.matches.covers(subject)) {
                if rule.strikes() {
                    kinds.push(rule.kind.clone());
                }
            }
        });
        Struck { kinds }
    }
}

/// What strikes one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Struck {
    kinds: Vec<Kind>,
}

/// What to do instead of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instead {
    /// Close the connection without a word.
    Drop,
    /// An error of the plane's own kind: an AGS code and a text.
    Error { code: String, message: String },
    /// A bare HTTP answer.
    Http { status: u16, body: String },
}

impl Struck {
    fn find<T>(&self, f: impl Fn(&Kind) -> Option<T>) -> Option<T> {
        self.kinds.iter().find_map(f)
    }

    /// Waits out `latency` rules.
    pub async fn before(&self) {
        for kind in &self.kinds {
            if let Kind::Latency { ms } = kind {
                tokio::time::sleep(std::time::Duration::from_millis(*ms)).await;
            }
        }
    }

    /// Waits out `delay_response` rules.
    pub async fn after(&self) {
        for kind in &self.kinds {
            if let Kind::DelayResponse { ms } = kind {
                tokio::time::sleep(std::time::Duration::from_millis(*ms)).await;
            }
        }
    }

    /// What happens in place of the request's effect.
    pub fn instead(&self) -> Option<Instead> {
        self.find(|kind| match kind {
            Kind::Refuse | Kind::Cut => Some(Instead::Drop),
            Kind::Throttle => Some(Instead::Error {
                code: "RequestLimitExceeded".into(),
                message: "Too many requests (a fault rule).".into(),
            }),
            Kind::Error { code, message } => Some(Instead::Error {
                code: code.clone(),
                message: message.clone().unwrap_or_else(|| "A fault rule struck.".into()),
            }),
            Kind::Http { status, body } => {
                Some(Instead::Http { status: *status, body: body.clone().unwrap_or_default() })
            }
            _ => None,
        })
    }

    /// Whether the answer is thrown away.
    pub fn loses_response(&self) -> bool {
        self.kinds.contains(&Kind::LoseResponse)
    }

    /// After how many bytes the answer's body breaks off.
    pub fn cut_after(&self) -> Option<u64> {
        self.find(|kind| match kind {
            Kind::CutStreamAfterBytes { bytes } => Some(*bytes),
            _ => None,
        })
    }

    /// Whether tokens are to be expired first.
    pub fn expires_tokens(&self) -> bool {
        self.kinds.contains(&Kind::ExpireTokens)
    }

    /// Why the tool being created fails, if it does.
    pub fn fails_tool(&self) -> Option<String> {
        self.find(|kind| match kind {
            Kind::FailTool { reason } => Some(reason.clone().unwrap_or_else(|| "image pull failed".into())),
            _ => None,
        })
    }

    /// Whether the instance's transition fails.
    pub fn fails_instance(&self) -> bool {
        self.kinds.contains(&Kind::FailInstance)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subject(action: &'static str) -> Subject<'static> {
        Subject { plane: Plane::Control, action: Some(action), path: "/", method: "POST", port: None, instance: None }
    }

    fn add(faults: &Faults, rule: serde_json::Value) -> Rule {
        faults.add(serde_json::from_value(rule).unwrap())
    }

    #[test]
    fn a_rule_strikes_what_it_matches_as_often_as_told() {
        let faults = Faults::default();
        let rule = json!({"match": {"action": "Stop"}, "kind": "throttle", "times": 2, "skip": 1});
        let id = add(&faults, rule).id;
        let struck = |action| faults.strike(&subject(action)).instead().is_some();
        assert!(!struck("Start"));
        assert_eq!([struck("Stop"), struck("Stop"), struck("Stop"), struck("Stop")], [false, true, true, false]);
        assert_eq!(faults.list()[0].hits, 2);
        assert!(faults.remove(id));
        assert!(!faults.remove(id));
    }

    #[test]
    fn rules_add_up() {
        let faults = Faults::default();
        add(&faults, json!({"kind": "lose_response"}));
        add(&faults, json!({"kind": "cut_stream_after_bytes", "bytes": 7}));
        let struck = faults.strike(&subject("Start"));
        assert!(struck.loses_response());
        assert_eq!((struck.cut_after(), struck.instead()), (Some(7), None));
    }

    #[test]
    fn probability_zero_never_strikes() {
        let faults = Faults::default();
        add(&faults, json!({"kind": "cut", "probability": 0.0}));
        assert!((0..200).all(|_| faults.strike(&subject("Start")) == Struck::default()));
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        assert!(serde_json::from_value::<NewRule>(json!({"kind": "explode"})).is_err());
    }
}
