//! Members as they are handed to `tar`: checked names, plain modes, no owners. Long names are written the GNU way, which
//! every `tar` reads; that of BusyBox passes over pax headers.

use bytes::{BufMut, BytesMut};
use tar::{EntryType, Header};

use super::tape::{BLOCK, Kind, Member};

/// Permissions alone: neither setuid, setgid nor sticky.
const KEPT_MODE: u32 = 0o777;
const SHORT: usize = 100;

/// Writes the headers of a member under a name that was checked.
pub fn headers(member: &Member, name: &str, out: &mut BytesMut) {
    let mut name = name.to_owned();
    let (kind, size, target) = match &member.kind {
        Kind::File { size } => (EntryType::Regular, *size, ""),
        Kind::Directory => {
            name.push('/');
            (EntryType::Directory, 0, "")
        }
        Kind::Symlink { target } => (EntryType::Symlink, 0, target.as_str()),
    };
    long(EntryType::GNULongName, &name, out);
    long(EntryType::GNULongLink, target, out);
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(member.mode & KEPT_MODE);
    header.set_mtime(member.mtime);
    header.set_uid(0);
    header.set_gid(0);
    put(&mut header.as_old_mut().name, &name);
    put(&mut header.as_old_mut().linkname, target);
    header.set_cksum();
    out.put_slice(header.as_bytes());
}

/// What fills the last block of a member.
pub fn padding(size: u64, out: &mut BytesMut) {
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    if rest > 0 {
        out.put_bytes(0, BLOCK - rest);
    }
}

/// The end of an archive.
pub fn end(out: &mut BytesMut) {
    out.put_bytes(0, 2 * BLOCK);
}

fn long(kind: EntryType, text: &str, out: &mut BytesMut) {
    if text.len() <= SHORT {
        return;
    }
    let size = text.len() as u64 + 1;
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    put(&mut header.as_old_mut().name, "././@LongLink");
    header.set_cksum();
    out.put_slice(header.as_bytes());
    out.put_slice(text.as_bytes());
    out.put_u8(0);
    padding(size, out);
}

fn put(field: &mut [u8; SHORT], text: &str) {
    let length = text.len().min(SHORT);
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(kind: Kind) -> Member {
        Member { name: "not this one".into(), kind, mode: 0o6755, mtime: 1_000_000_000 }
    }

    proptest! {
        #[test]
        fn another_reader_finds_what_was_written(
            name in "[a-zä ]{1,20}(/[a-zä ]{1,90}){0,3}",
            target in "[a-zä/.]{1,220}",
            content in proptest::collection::vec(any::<u8>(), 0..1100),
        ) {
            let mut out = BytesMut::new();
            headers(&member(Kind::File { size: content.len() as u64 }), &name, &mut out);
            out.put_slice(&content);
            padding(content.len() as u64, &mut out);
            headers(&member(Kind::Directory), &name, &mut out);
            headers(&member(Kind::Symlink { target: target.clone() }), &name, &mut out);
            end(&mut out);
            prop_assert_eq!(out.len() % BLOCK, 0);

            let mut archive = tar::Archive::new(&out[..]);
            let mut entries = archive.entries().unwrap();
            let mut file = entries.next().unwrap().unwrap();
            prop_assert_eq!(file.path_bytes().into_owned(), name.as_bytes());
            prop_assert_eq!(file.header().mode().unwrap(), 0o755);
            prop_assert_eq!(file.header().mtime().unwrap(), 1_000_000_000);
            let mut read = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut read).unwrap();
            prop_assert_eq!(read, content);
            let directory = entries.next().unwrap().unwrap();
            prop_assert_eq!(directory.path_bytes().into_owned(), format!("{name}/").into_bytes());
            let link = entries.next().unwrap().unwrap();
            prop_assert_eq!(link.link_name_bytes().unwrap().into_owned(), target.as_bytes());
            prop_assert!(entries.next().is_none());
        }
    }
}
