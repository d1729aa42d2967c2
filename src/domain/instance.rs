//! Instances: running sandboxes, and those that ran.

use std::{collections::BTreeMap, convert::Infallible, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    error::SandboxRef,
    ids::{InstanceId, KeyId, TeamId, ToolId},
};

macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($variant,)*
            /// One that this version does not know, kept as it came.
            Unknown(String),
        }

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Unknown(text) => text,
                }
            }
        }

        impl FromStr for $name {
            type Err = Infallible;
            fn from_str(text: &str) -> Result<Self, Infallible> {
                Ok(match text {
                    $($text => Self::$variant,)*
                    other => Self::Unknown(other.to_owned()),
                })
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                match text.as_str() {
                    $($text => Self::$variant,)*
                    _ => Self::Unknown(text),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some(concat!("One of", $(" `", $text, "`",)* "; unknown ones are passed on.")))
                    .examples([$($text),*])
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
        }
    };
}

open_enum! {
    /// Where an instance is in its life.
    InstanceStatus {
        Starting = "STARTING",
        Running = "RUNNING",
        Pausing = "PAUSING",
        Paused = "PAUSED",
        Resuming = "RESUMING",
        Stopping = "STOPPING",
        Stopped = "STOPPED",
        Failed = "FAILED",
    }
}

open_enum! {
    /// Why an instance ended, or is ending.
    StopReason {
        Manual = "manual",
        Timeout = "timeout",
        Idle = "idle",
        Quota = "quota",
        Error = "error",
        System = "system",
        Orphan = "orphan",
    }
}

impl InstanceStatus {
    /// Nothing will change any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }
}

/// An instance as the gateway knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub id: InstanceId,
    pub team_id: TeamId,
    pub tool_id: ToolId,
    pub tool_name: String,
    pub tool_type: String,
    pub upstream: String,
    pub upstream_id: Option<String>,
    pub client_token: String,
    pub status: InstanceStatus,
    pub status_reason: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// Added to every command and code run in it.
    pub env: BTreeMap<String, String>,
    pub auth_mode: String,
    pub timeout_seconds: u32,
    pub idle: Option<Idle>,
    pub created_by: KeyId,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub expires_at: DateTime<Utc>,
    pub upstream_expires_at: Option<DateTime<Utc>>,
    pub last_active_at: Option<DateTime<Utc>>,
    pub stopping_at: Option<DateTime<Utc>>,
    pub stopped_at: Option<DateTime<Utc>>,
    pub stop_reason: Option<StopReason>,
}

/// What happens to an instance that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    pub after_seconds: u32,
    /// `pause` or `stop`.
    pub action: String,
}

impl Instance {
    /// How errors refer to it.
    #[must_use]
    pub fn reference(&self) -> SandboxRef {
        SandboxRef {
            id: self.id.to_string(),
            status: self.status.to_string(),
            stop_reason: self.stop_reason.as_ref().map(ToString::to_string),
            stopped_at: self.stopped_at,
        }
    }
}
