//! What a file is, by its name or else by how it begins.

use std::path::Path;

/// Bytes at the beginning that are looked at.
pub const SNIFFED: usize = 512;

/// Beginnings of formats that have no need of an extension.
const SIGNATURES: [(&[u8], &str); 12] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
    (b"OggS\x00", "application/ogg"),
    (b"\x00asm", "application/wasm"),
    (b"<!DOCTYPE HTML", "text/html; charset=utf-8"),
    (b"<?xml", "text/xml; charset=utf-8"),
];

/// The `Content-Type` of a file.
#[must_use]
pub fn content_type(path: &Path, beginning: &[u8]) -> String {
    match mime_guess::from_path(path).first() {
        Some(guess) if guess.type_() == "text" => format!("{guess}; charset=utf-8"),
        Some(guess) => guess.to_string(),
        None => sniff(beginning).to_owned(),
    }
}

fn sniff(beginning: &[u8]) -> &'static str {
    let known = SIGNATURES.iter().find(|(signature, _)| {
        beginning.get(..signature.len()).is_some_and(|start| start.eq_ignore_ascii_case(signature))
    });
    match known {
        Some((_, kind)) => kind,
        None if is_text(beginning) => "text/plain; charset=utf-8",
        None => "application/octet-stream",
    }
}

/// No control characters besides those of text; a character may be cut at the end.
fn is_text(beginning: &[u8]) -> bool {
    let control = |byte: &u8| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    !beginning.iter().any(control)
}

/// `Content-Disposition` that shows the file under its name.
#[must_use]
pub fn disposition(name: &str) -> String {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.is_empty() && name.bytes().all(token) {
        format!("inline; filename={name}")
    } else if name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        format!("inline; filename=\"{quoted}\"")
    } else {
        let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        format!("inline; filename*=utf-8''{encoded}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_before_the_content() {
        assert_eq!(content_type(Path::new("a.json"), b"\x89PNG\r\n\x1a\n"), "application/json");
        assert_eq!(content_type(Path::new("a.txt"), b""), "text/plain; charset=utf-8");
        assert_eq!(content_type(Path::new("a"), b"\x89PNG\r\n\x1a\nrest"), "image/png");
        assert_eq!(content_type(Path::new("a"), "Grüße".as_bytes()), "text/plain; charset=utf-8");
        assert_eq!(content_type(Path::new("a"), b"\x00\x01"), "application/octet-stream");
    }

    #[test]
    fn names_are_quoted_as_needed() {
        assert_eq!(disposition("a.txt"), "inline; filename=a.txt");
        assert_eq!(disposition("a \"b\".txt"), "inline; filename=\"a \\\"b\\\".txt\"");
        assert_eq!(disposition("ä"), "inline; filename*=utf-8''%C3%A4");
    }
}
