//! Text inside JSON strings, written piece by piece where the whole is long or comes often.

/// What stands for control characters (RFC 8259, 7), `"` and `\`.
const SHORT: [(u8, &str); 7] =
    [(b'\n', "\\n"), (b'\r', "\\r"), (b'\t', "\\t"), (8, "\\b"), (12, "\\f"), (b'"', "\\\""), (b'\\', "\\\\")];
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bytes that are looked at together: output is mostly text that stands for itself.
const BLOCK: usize = 32;

/// Whether a byte cannot stand for itself.
const fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Where the first byte is that cannot stand for itself.
fn first_special(bytes: &[u8]) -> Option<usize> {
    let mut blocks = bytes.chunks_exact(BLOCK);
    // Without an early end, so that the compiler makes one comparison of the whole block.
    let hit = blocks.position(|block| block.iter().fold(false, |hit, byte| hit | is_special(*byte)));
    let from = hit.map_or(bytes.len() - bytes.len() % BLOCK, |block| block * BLOCK);
    bytes[from..].iter().position(|byte| is_special(*byte)).map(|at| from + at)
}

/// Gives `put` the pieces that a text is written as inside a JSON string.
pub fn escape<E>(text: &str, mut put: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
    let mut rest = text;
    while let Some(at) = first_special(rest.as_bytes()) {
        if at > 0 {
            put(&rest[..at])?;
        }
        let byte = rest.as_bytes()[at];
        match SHORT.iter().find(|(special, _)| *special == byte) {
            Some((_, escaped)) => put(escaped)?,
            None => {
                let digits = [b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                put(str::from_utf8(&digits).unwrap_or_default())?;
            }
        }
        rest = &rest[at + 1..];
    }
    if rest.is_empty() { Ok(()) } else { put(rest) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn escaped_text_reads_back(text in "(.|[a-z]{20}|[\"\\\\\u{0}-\u{1f}]){0,40}") {
            let mut out = String::from("\"");
            let put = |piece: &str| {
                out.push_str(piece);
                Ok::<_, Infallible>(())
            };
            prop_assert!(escape(&text, put).is_ok());
            out.push('"');
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }
}
