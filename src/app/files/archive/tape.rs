//! Reads a tar archive member by member from a body, holding no more of it than a piece and the member's name.
//!
//! The formats are those of POSIX (ustar and pax) and GNU; a pax header's `path`, `linkpath`, `size` and `mtime` count.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tar::{EntryType, Header, PaxExtensions};
use tokio::time::timeout;

use super::{refused, unreadable};
use crate::{
    app::files::write::{broken_off, stalled, too_large},
    error::Result,
};

pub const BLOCK: usize = 512;
/// Of a long name, and of a pax header.
const MAX_EXTENSION: u64 = 64 << 10;

/// What is in an archive under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As the archive has it.
    pub name: String,
    pub kind: Kind,
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File { size: u64 },
    Directory,
    Symlink { target: String },
}

/// An archive that is being read.
pub struct Tape<B> {
    body: B,
    patience: Duration,
    limit: Option<u64>,
    /// Taken from the body so far.
    read: u64,
    /// Taken from the body and not yet looked at.
    piece: Bytes,
    /// Left of the present member, and of the block it ends in.
    content: u64,
    padding: u64,
}

/// What extension headers say of the member behind them.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<u64>,
}

impl<B> Tape<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    /// `limit`: of the whole archive in bytes. `patience`: how long the body may stand still.
    pub fn new(body: B, patience: Duration, limit: Option<u64>) -> Self {
        Self { body, patience, limit, read: 0, piece: Bytes::new(), content: 0, padding: 0 }
    }

    /// The next member, whatever is left of the present one passed over; `None` at the end of the archive.
    ///
    /// # Errors
    /// `invalid_request` for what is no archive or breaks off, `validation_failed` for a member of another kind,
    /// `body_too_large`.
    pub async fn member(&mut self) -> Result<Option<Member>> {
        let mut extensions = Extensions::default();
        loop {
            while self.content().await?.is_some() {}
            let Some(block) = self.block().await? else {
                return Err(unreadable("The archive breaks off: it has no end marker."));
            };
            if block.iter().all(|byte| *byte == 0) {
                self.rest().await?;
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            check_sum(header)?;
            let size = extensions.size.unwrap_or(header.entry_size().map_err(malformed)?);
            let whole = size.checked_next_multiple_of(BLOCK as u64);
            let whole = whole.ok_or_else(|| unreadable("A member of the archive is larger than any can be."))?;
            self.content = size;
            self.padding = whole - size;
            match header.entry_type() {
                EntryType::GNULongName => extensions.name = Some(self.long_name().await?),
                EntryType::GNULongLink => extensions.target = Some(self.long_name().await?),
                EntryType::XHeader => {
                    let text = self.extension().await?;
                    extensions.read_pax(&text)?;
                }
                // Of all members: a comment, as `git archive` writes it.
                EntryType::XGlobalHeader => {}
                kind => return self.described(header, kind, extensions).map(Some),
            }
        }
    }

    fn described(&mut self, header: &Header, kind: EntryType, extensions: Extensions) -> Result<Member> {
        let name = text(extensions.name.unwrap_or_else(|| header.path_bytes().into_owned()))?;
        let target = extensions.target.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let kind = match kind {
            // Archives older than POSIX tell directories by the slash.
            EntryType::Regular | EntryType::Continuous if !name.ends_with('/') => Kind::File { size: self.content },
            EntryType::Regular | EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink { target: text(target.unwrap_or_default())? },
            EntryType::Link => {
                return Err(refused(&name, "is a hard link: pack with `tar --hard-dereference`, or send a copy"));
            }
            EntryType::GNUSparse => return Err(refused(&name, "is a sparse file: pack without `--sparse`")),
            _ => return Err(refused(&name, "is a device, pipe or something unknown: leave it out")),
        };
        let mode = header.mode().map_err(malformed)?;
        let mtime = extensions.mtime.map_or_else(|| header.mtime().map_err(malformed), Ok)?;
        Ok(Member { name, kind, mode, mtime })
    }

    /// The next piece of the present member's content; `None` behind its last.
    ///
    /// # Errors
    /// As [`member`](Self::member).
    pub async fn content(&mut self) -> Result<Option<Bytes>> {
        if self.content > 0 {
            let piece = self.take(self.content).await?;
            self.content -= piece.len() as u64;
            return Ok(Some(piece));
        }
        while self.padding > 0 {
            self.padding -= self.take(self.padding).await?.len() as u64;
        }
        Ok(None)
    }

    async fn long_name(&mut self) -> Result<Vec<u8>> {
        let mut name = self.extension().await?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    async fn extension(&mut self) -> Result<Vec<u8>> {
        if self.content > MAX_EXTENSION {
            return Err(unreadable(format!("A name or header in the archive has more than {MAX_EXTENSION} bytes.")));
        }
        let mut all = Vec::new();
        while let Some(piece) = self.content().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    /// `None` where the body has ended.
    async fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            if !self.fill().await? {
                return if filled == 0 { Ok(None) } else { Err(cut()) };
            }
            let part = self.piece.split_to((BLOCK - filled).min(self.piece.len()));
            block[filled..filled + part.len()].copy_from_slice(&part);
            filled += part.len();
        }
        Ok(Some(block))
    }

    /// Up to `most` bytes, at least one.
    async fn take(&mut self, most: u64) -> Result<Bytes> {
        if !self.fill().await? {
            return Err(cut());
        }
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(self.piece.len());
        Ok(self.piece.split_to(length))
    }

    /// Sees to it that there is something to look at; false where the body has ended.
    async fn fill(&mut self) -> Result<bool> {
        while self.piece.is_empty() {
            let Some(frame) = timeout(self.patience, self.body.frame()).await.map_err(|_| stalled())? else {
                return Ok(false);
            };
            let Ok(piece) = frame.map_err(broken_off)?.into_data() else { continue };
            self.read += piece.len() as u64;
            if let Some(limit) = self.limit.filter(|limit| self.read > *limit) {
                return Err(too_large(limit, self.read));
            }
            self.piece = piece;
        }
        Ok(true)
    }

    /// What stands behind the end marker is padding.
    async fn rest(&mut self) -> Result<()> {
        while self.fill().await? {
            self.piece.clear();
        }
        Ok(())
    }
}

impl Extensions {
    fn read_pax(&mut self, text: &[u8]) -> Result<()> {
        for extension in PaxExtensions::new(text) {
            let extension = extension.map_err(malformed)?;
            let value = extension.value_bytes();
            let number = || std::str::from_utf8(value).ok()?.split('.').next()?.parse::<u64>().ok();
            match extension.key_bytes() {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = Some(number().ok_or_else(|| unreadable("A size in the archive is no number."))?),
                // Before 1970: the header has it, or it does not matter.
                b"mtime" => self.mtime = number(),
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(unreadable("The archive has sparse files: pack without `--sparse`."));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn check_sum(header: &Header) -> Result<()> {
    let bytes = header.as_bytes();
    let blank = 8 * u32::from(b' ');
    let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum();
    if header.cksum().ok() != Some(sum + blank) {
        return Err(unreadable("The body is no tar archive, or a damaged one. Send it uncompressed."));
    }
    Ok(())
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        refused(&String::from_utf8_lossy(error.as_bytes()), "has a name that is not UTF-8: it cannot be spelled here")
    })
}

fn malformed(source: std::io::Error) -> crate::error::Error {
    unreadable("A header of the archive is damaged.").with_source(source)
}

fn cut() -> crate::error::Error {
    unreadable("The archive breaks off in the middle.")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use tar::Builder;

    use super::*;
    use crate::error::Code;

    /// Everything in an archive that arrives in pieces of that length.
    async fn read(archive: &[u8], piece: usize) -> Result<Vec<(Member, Vec<u8>)>> {
        let pieces: Vec<_> = archive
            .chunks(piece)
            .map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let body = StreamBody::new(futures_util::stream::iter(pieces));
        let mut tape = Tape::new(body, Duration::from_secs(5), None);
        let mut members = Vec::new();
        while let Some(member) = tape.member().await? {
            let mut content = Vec::new();
            while let Some(piece) = tape.content().await? {
                content.extend_from_slice(&piece);
            }
            members.push((member, content));
        }
        Ok(members)
    }

    fn file(name: &str, content: &[u8]) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        header.set_mtime(7);
        archive.append_data(&mut header, name, content).unwrap();
        archive.into_inner().unwrap()
    }

    fn of_type(kind: EntryType) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_mtime(0);
        archive.append_link(&mut header, "name", "target").unwrap();
        archive.into_inner().unwrap()
    }

    #[tokio::test]
    async fn names_contents_and_links_are_read() {
        let long = format!("{}/ä b", "d".repeat(150));
        let mut all = Vec::new();
        for (name, content) in [("a", &b"x"[..]), (long.as_str(), &[7; 1025][..]), ("empty", b"")] {
            let archive = file(name, content);
            all.extend_from_slice(&archive[..archive.len() - 2 * BLOCK]);
        }
        all.write_all(&of_type(EntryType::Symlink)).unwrap();
        let members = read(&all, 100).await.unwrap();
        let seen: Vec<_> = members.iter().map(|(member, content)| (member.name.as_str(), content.len())).collect();
        assert_eq!(seen, [("a", 1), (long.as_str(), 1025), ("empty", 0), ("name", 0)]);
        assert_eq!(members[3].0.kind, Kind::Symlink { target: "target".into() });
        assert_eq!((members[0].0.mode, members[0].0.mtime), (0o640, 7));
    }

    #[tokio::test]
    async fn pax_headers_count_for_the_member_behind_them() {
        let mut archive = Builder::new(Vec::new());
        archive.append_pax_extensions([("path", &b"p\xc3\xa4th"[..]), ("mtime", b"12.5"), ("size", b"3")]).unwrap();
        let mut header = Header::new_ustar();
        header.set_path("short").unwrap();
        header.set_size(3);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        archive.append(&header, &b"abc"[..]).unwrap();
        let members = read(&archive.into_inner().unwrap(), 512).await.unwrap();
        assert_eq!(
            (members[0].0.name.as_str(), members[0].0.mtime, members[0].1.as_slice()),
            ("päth", 12, &b"abc"[..])
        );
    }

    #[tokio::test]
    async fn what_is_neither_file_directory_nor_link_is_refused() {
        for kind in [EntryType::Link, EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::new(b'?')] {
            let error = read(&of_type(kind), 512).await.unwrap_err();
            assert_eq!(error.code(), Code::ValidationFailed, "{kind:?}");
            assert!(error.detail().contains("\"name\""), "{error}");
        }
    }

    #[tokio::test]
    async fn a_long_name_has_a_limit() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_mode(0);
        header.set_mtime(0);
        header.set_cksum();
        assert_eq!(read(header.as_bytes(), 512).await.unwrap_err().code(), Code::InvalidRequest);
    }

    #[tokio::test]
    async fn a_size_that_no_member_can_have_is_refused() {
        let mut header = Header::new_gnu();
        header.set_path("huge").unwrap();
        header.set_size(u64::MAX);
        header.set_mode(0);
        header.set_mtime(0);
        header.set_cksum();
        assert_eq!(read(header.as_bytes(), 512).await.unwrap_err().code(), Code::InvalidRequest);
    }

    #[tokio::test]
    async fn a_cut_anywhere_is_seen() {
        let archive = file(&"n".repeat(120), &[1; 700]);
        // One of the two empty blocks at the end suffices.
        let end = archive.len() - BLOCK;
        for length in 0..end {
            assert!(read(&archive[..length], 333).await.is_err(), "{length} of {}", archive.len());
        }
        assert_eq!(read(&archive, 333).await.unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..2048), sums in any::<bool>()) {
            if sums {
                // Let half of them get past the first check.
                for block in bytes.chunks_exact_mut(BLOCK) {
                    let mut header = Header::new_old();
                    header.as_mut_bytes().copy_from_slice(block);
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _ = runtime.block_on(read(&bytes, 200));
        }
    }
}
