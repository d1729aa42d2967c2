//! What stands in the place of a secret in logs, errors and `Debug`.

use std::fmt;

/// The stand-in for a secret.
pub const REDACTED: &str = "[redacted]";

/// Shows how a credential begins and nothing more: enough to find the key in a list, useless to an attacker.
/// A text of 12 characters or fewer shows nothing.
pub struct Prefix<'a>(pub &'a str);

const SHOWN: usize = 10;
const SHORTEST: usize = 12;

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN) {
            Some((end, _)) if self.0.chars().count() > SHORTEST => write!(f, "{}…", &self.0[..end]),
            _ => f.write_str(REDACTED),
        }
    }
}

impl fmt::Debug for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_never_shows_a_short_text() {
        assert_eq!(Prefix("agsk_0123456789abcdef").to_string(), "agsk_01234…");
        for short in ["", "agsk_", "agsk_0123456", "ééééééééééé"] {
            assert_eq!(Prefix(short).to_string(), REDACTED, "{short:?}");
        }
    }
}
