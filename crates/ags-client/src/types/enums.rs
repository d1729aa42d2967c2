//! Open enums: the documented values, and whatever else the cloud says.

/// Declares an enum over wire strings that keeps unknown ones. `Default` is `Unknown("")`, which is no value
/// the API knows.
macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $wire:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)+
            /// A value this version does not know, kept verbatim. Make one with `From`, which never puts
            /// a known value here.
            Unknown(String),
        }

        impl $name {
            /// The known values, in the order of the documentation.
            pub const KNOWN: &'static [$name] = &[$($name::$variant),+];

            /// The value on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $($name::$variant => $wire,)+
                    $name::Unknown(value) => value,
                }
            }

            /// Whether this is a documented value.
            pub fn is_known(&self) -> bool {
                !matches!(self, $name::Unknown(_))
            }
        }

        impl From<&str> for $name {
            fn from(value: &str) -> Self {
                match value {
                    $($wire => $name::$variant,)+
                    other => $name::Unknown(other.to_owned()),
                }
            }
        }

        impl From<String> for $name {
            fn from(value: String) -> Self {
                $name::from(value.as_str())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $name::Unknown(String::new())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map($name::from)
            }
        }
    };
}

open_enum! {
    /// Status of an instance. Transitions: STARTING → RUNNING | STARTING_FAILED; RUNNING → PAUSING →
    /// PAUSED | PAUSE_FAILED; PAUSED → RESUMING → RUNNING | RESUME_FAILED; RUNNING | PAUSED → STOPPING →
    /// STOPPED | STOPPING_FAILED.
    InstanceStatus {
        Starting = "STARTING",
        Running = "RUNNING",
        StartingFailed = "STARTING_FAILED",
        Pausing = "PAUSING",
        Paused = "PAUSED",
        PauseFailed = "PAUSE_FAILED",
        Resuming = "RESUMING",
        ResumeFailed = "RESUME_FAILED",
        ForkFailed = "FORK_FAILED",
        Stopping = "STOPPING",
        Stopped = "STOPPED",
        StoppingFailed = "STOPPING_FAILED",
        /// Older spelling of `STOPPING_FAILED`.
        StopFailed = "STOP_FAILED",
        Failed = "FAILED",
        /// Derived by the cloud from a running instance's probe, never stored.
        Unhealthy = "UNHEALTHY",
    }
}

open_enum! {
    /// Status of a tool: CREATING → ACTIVE | FAILED; ACTIVE → DELETING → gone.
    ToolStatus {
        Creating = "CREATING",
        Active = "ACTIVE",
        Failed = "FAILED",
        Deleting = "DELETING",
        Ready = "READY",
        Isolated = "ISOLATED",
    }
}

open_enum! {
    /// Kind of a tool.
    ToolType {
        Browser = "browser",
        CodeInterpreter = "code-interpreter",
        Mobile = "mobile",
        Osworld = "osworld",
        Custom = "custom",
        Swebench = "swebench",
        Aio = "aio",
        AndroidWorld = "android-world",
        Waa = "waa",
    }
}

open_enum! {
    /// Why an instance is STOPPED, STOPPING_FAILED or FAILED.
    StopReason {
        Manual = "manual",
        Timeout = "timeout",
        Error = "error",
        System = "system",
    }
}

open_enum! {
    /// Which ports of an instance ask for a token.
    AuthMode {
        /// The same as `TOKEN`.
        Default = "DEFAULT",
        /// Every port.
        Token = "TOKEN",
        /// No port.
        None = "NONE",
        /// Only envd's, 49983.
        Public = "PUBLIC",
    }
}

open_enum! {
    /// Network of a tool or an instance.
    NetworkMode {
        Public = "PUBLIC",
        Vpc = "VPC",
        /// No external network.
        Sandbox = "SANDBOX",
        /// Shown by instances, not accepted in requests.
        InternalService = "INTERNAL_SERVICE",
    }
}

open_enum! {
    /// Where an image comes from.
    ImageRegistryType {
        /// TCR.
        Enterprise = "enterprise",
        /// CCR.
        Personal = "personal",
        Custom = "custom",
        /// Shown for built-in images.
        System = "system",
    }
}

open_enum! {
    /// Status of an API key.
    ApiKeyStatus {
        Active = "API_KEY_STATUS_ACTIVE",
        Inactive = "API_KEY_STATUS_INACTIVE",
    }
}
