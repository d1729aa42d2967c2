//! A directory as an archive, streamed as it is read.

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};

use super::helper::{Helper, Step};
use crate::{
    app::files::Files,
    domain::file::FilePath,
    error::{Error, Result},
};

/// Reading is not limited by a user here, as it is not for single files.
const READER: &str = "root";
/// So that what is packed here can be unpacked here. GNU's `tar` knows it, others do not and say so at once.
const NO_HARD_LINKS: &str = "--hard-dereference";

/// An archive on its way to the caller.
pub struct Packing {
    /// The directory's own name.
    pub name: String,
    /// Fails where the archive could not be made whole.
    pub body: BoxStream<'static, Result<Bytes>>,
}

impl Files {
    /// Packs what is in a directory, under names relative to it (`./a`). Links are kept as links.
    ///
    /// # Errors
    /// `not_found`, `not_a_directory`, `program_missing`.
    pub async fn pack(&self, path: &FilePath) -> Result<Packing> {
        let (named, directory) = self.directory(path).await?;
        let plain = ["-c", "-f", "-", "-C", directory.as_str(), "."];
        let with_copies = [&[NO_HARD_LINKS][..], &plain].concat();
        let mut helper = Helper::start(self, READER, &with_copies, false).await?;
        let first = match helper.next().await? {
            Step::Output(first) => first,
            // An archive is never empty: it did not come to packing.
            Step::Ended(_) => {
                helper = Helper::start(self, READER, &plain, false).await?;
                match helper.next().await? {
                    Step::Output(first) => first,
                    Step::Ended(outcome) => return Err(outcome.error()),
                }
            }
        };
        let rest = stream::try_unfold(helper, |mut helper| async move {
            match helper.next().await? {
                Step::Output(bytes) => Ok(Some((bytes, helper))),
                Step::Ended(outcome) if outcome.packed() => Ok(None),
                Step::Ended(outcome) => {
                    let error = outcome.error();
                    tracing::info!(%error, "an archive is cut short");
                    Err::<_, Error>(error)
                }
            }
        });
        Ok(Packing { name: named.name, body: stream::iter([Ok(first)]).chain(rest).boxed() })
    }
}
