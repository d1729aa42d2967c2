//! What a key may do.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! scopes {
    ($($variant:ident = $text:literal, $doc:literal;)*) => {
        /// A permission of a key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Scope {
            $(#[doc = $doc] #[serde(rename = $text)] $variant,)*
        }

        impl Scope {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        /// By hand: the derive does not see names that a macro hands on.
        impl utoipa::PartialSchema for Scope {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, Type};
                let values = Self::ALL.iter().map(|scope| scope.as_str());
                let schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values));
                schema.description(Some("A permission of a key.")).into()
            }
        }

        impl utoipa::ToSchema for Scope {}

        impl FromStr for Scope {
            type Err = UnknownScope;
            fn from_str(text: &str) -> Result<Self, UnknownScope> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(UnknownScope(text.to_owned())),
                }
            }
        }

        /// The scopes as types, so that a handler's signature names the permission it needs.
        pub mod scope {
            use super::Scope;
            $(
                #[derive(Clone, Copy, Debug)]
                pub struct $variant;
                impl super::Permission for $variant {
                    const ANY_OF: &'static [Scope] = &[Scope::$variant];
                }
            )*

            /// Seeing what commands do: whoever may run them, too.
            #[derive(Clone, Copy, Debug)]
            pub struct ExecOrExecRead;
            impl super::Permission for ExecOrExecRead {
                const ANY_OF: &'static [Scope] = &[Scope::Exec, Scope::ExecRead];
            }

            /// What can be done over a WebSocket.
            #[derive(Clone, Copy, Debug)]
            pub struct Sockets;
            impl super::Permission for Sockets {
                const ANY_OF: &'static [Scope] = &[Scope::Exec, Scope::ExecRead, Scope::FilesRead];
            }

            /// Seeing the history: one's own team's, or as an administrator everybody's.
            #[derive(Clone, Copy, Debug)]
            pub struct AuditOrAdmin;
            impl super::Permission for AuditOrAdmin {
                const ANY_OF: &'static [Scope] = &[Scope::AuditRead, Scope::Admin];
            }

            /// Managing keys: one's own team's, or as an administrator everybody's.
            #[derive(Clone, Copy, Debug)]
            pub struct KeysOrAdmin;
            impl super::Permission for KeysOrAdmin {
                const ANY_OF: &'static [Scope] = &[Scope::Keys, Scope::Admin];
            }
        }
    };
}

/// A permission at the type level.
pub trait Permission: Send + Sync + 'static {
    /// One of these scopes suffices. Never empty.
    const ANY_OF: &'static [Scope];
}

/// No such scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope {0:?}")]
pub struct UnknownScope(pub String);

scopes! {
    ToolsRead = "tools:read", "List and read tools.";
    ToolsWrite = "tools:write", "Create, change and delete tools.";
    InstancesRead = "instances:read", "List and read instances.";
    InstancesWrite = "instances:write", "Start, change, pause, resume and stop instances.";
    Exec = "exec", "Run commands and code, write to their input, signal them.";
    ExecRead = "exec:read", "List commands and read their output.";
    FilesRead = "files:read", "Read files and list directories in instances.";
    FilesWrite = "files:write", "Write, move and remove files in instances.";
    Ports = "ports", "Reach what listens on a port of an instance.";
    Tokens = "tokens", "Obtain the cloud's own access token of an instance.";
    Keys = "keys", "Mint, rotate and revoke keys of the own team.";
    AuditRead = "audit:read", "Read the team's history.";
    Admin = "admin", "Manage teams, their quotas and grants, and every team's keys.";
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// Every scope but `admin`: what a team's own key can hold.
    #[must_use]
    pub fn team() -> Self {
        Scope::ALL.iter().copied().filter(|scope| *scope != Scope::Admin).collect()
    }

    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    #[must_use]
    pub fn contains(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// The scopes in `self` that `other` does not have.
    pub fn beyond<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Scope> + 'a {
        self.0.difference(&other.0).copied()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Scope> + '_ {
        self.0.iter().copied()
    }

    /// As stored: the names, in a fixed order.
    #[must_use]
    pub fn to_names(&self) -> Vec<String> {
        self.iter().map(|scope| scope.as_str().to_owned()).collect()
    }

    /// From stored names; a name that this version does not know grants nothing.
    #[must_use]
    pub fn from_names<S: AsRef<str>>(names: &[S]) -> Self {
        names.iter().filter_map(|name| name.as_ref().parse().ok()).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(scopes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_names_grant_nothing() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(*scope));
        }
        let scopes = Scopes::from_names(&["exec", "fly"]);
        assert_eq!(scopes.to_names(), ["exec"]);
    }

    #[test]
    fn beyond_names_what_is_missing() {
        let wanted: Scopes = [Scope::Exec, Scope::Admin].into_iter().collect();
        assert_eq!(wanted.beyond(&Scopes::team()).collect::<Vec<_>>(), [Scope::Admin]);
    }
}
