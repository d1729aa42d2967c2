//! An archive into a directory, streamed as it arrives.

use bytes::{Bytes, BytesMut};
use http_body::Body;

use super::{
    guard::Guard,
    helper::{Helper, Outcome, Stdin},
    tape::{Kind, Member, Tape},
    writer,
};
use crate::{
    app::files::{Files, write::too_large},
    domain::file::FilePath,
    error::{Error, Result},
};

/// Handed to the process at once; also what is held in memory.
const PIECE: usize = 256 << 10;

/// What came out of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// The directory, absolute.
    pub path: String,
    pub files: u64,
    pub directories: u64,
    pub links: u64,
    /// Of all files together.
    pub bytes: u64,
}

impl Files {
    /// Unpacks an archive below a directory, which is made if it is missing, as the call's user. What is in the way is
    /// replaced, but for directories. On a failure what was unpacked so far stays.
    ///
    /// # Errors
    /// `invalid_request` for what is no archive or breaks off; `validation_failed` for a member that would land elsewhere or is
    /// neither file, directory nor symbolic link; `permission_denied`, `no_space`, `program_missing`, `body_too_large`.
    pub async fn unpack<B>(&self, path: &FilePath, length: Option<u64>, body: &mut B) -> Result<Unpacked>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let limit = self.app.config.files.max_upload;
        if let Some((length, limit)) = length.zip(limit).filter(|(length, limit)| length > limit) {
            return Err(too_large(limit, length));
        }
        self.make_dir(path).await?;
        let (_, root) = self.directory(path).await?;
        // Without the archive's owners (-o), with its modes (-p).
        let helper = Helper::start(self, &self.user, &["-x", "-o", "-p", "-f", "-", "-C", &root], true).await?;
        let mut feed = Feed::new(helper.stdin());
        let tape = Tape::new(body, self.patience(), limit);
        // It must be listened to meanwhile: it says what it cannot do, and may end for it.
        let mut ending = std::pin::pin!(helper.ended());
        let outcome = tokio::select! {
            fed = feed.all(tape, Guard::new(self, &root)) => match fed {
                Err(Fault::Archive(error)) => return Err(error),
                // A process that takes no more has ended, and says why.
                Ok(()) | Err(Fault::Stdin) => ending.await?,
            },
            outcome = &mut ending => outcome?,
        };
        match outcome {
            Outcome { exit_code: 0, .. } if feed.complete => Ok(Unpacked { path: root, ..feed.unpacked }),
            outcome => Err(outcome.error()),
        }
    }
}

/// Which side failed.
enum Fault {
    Archive(Error),
    Stdin,
}

/// Hands members on.
struct Feed {
    stdin: Stdin,
    buffer: BytesMut,
    unpacked: Unpacked,
    /// The end of the archive was handed on.
    complete: bool,
}

impl Feed {
    fn new(stdin: Stdin) -> Self {
        Self { stdin, buffer: BytesMut::with_capacity(PIECE), unpacked: Unpacked::default(), complete: false }
    }

    async fn all<B>(&mut self, mut tape: Tape<B>, mut guard: Guard<'_>) -> Result<(), Fault>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        while let Some(member) = tape.member().await.map_err(Fault::Archive)? {
            let Some(name) = guard.admit(&member).await.map_err(Fault::Archive)? else { continue };
            self.count(&member);
            writer::headers(&member, &name, &mut self.buffer);
            if let Kind::File { size } = member.kind {
                while let Some(piece) = tape.content().await.map_err(Fault::Archive)? {
                    self.put(&piece).await?;
                }
                writer::padding(size, &mut self.buffer);
            }
        }
        writer::end(&mut self.buffer);
        self.flush().await?;
        self.complete = true;
        self.stdin.close().await.map_err(not_taken)
    }

    fn count(&mut self, member: &Member) {
        match member.kind {
            Kind::File { size } => {
                self.unpacked.files += 1;
                self.unpacked.bytes += size;
            }
            Kind::Directory => self.unpacked.directories += 1,
            Kind::Symlink { .. } => self.unpacked.links += 1,
        }
    }

    async fn put(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.buffer.extend_from_slice(piece);
        if self.buffer.len() >= PIECE { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        let full = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(PIECE));
        self.stdin.write(full.freeze()).await.map_err(not_taken)
    }
}

fn not_taken(error: Error) -> Fault {
    tracing::debug!(%error, "the input of a helper is closed");
    Fault::Stdin
}
