//! Reading a file as a stream.

use bytes::Bytes;
use envd_client::{Download, EnvdError};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Files;
use crate::{
    domain::file::{FileInfo, FileKind, FilePath},
    error::{Code, Error, Result},
};

/// File systems that do not tell the length of their files.
const UNSIZED: [&str; 2] = ["/proc/", "/sys/"];
const CONDITIONS: [header::HeaderName; 6] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// A file on its way to the caller.
pub struct Reading {
    /// 200, 206, 304, 412 or 416; of the last two there is no body that is worth reading.
    pub status: StatusCode,
    /// What the sandbox says of the content.
    pub headers: HeaderMap,
    pub body: BoxStream<'static, Result<Bytes, EnvdError>>,
    /// The name under which it was asked for.
    pub name: String,
}

impl Files {
    /// Opens a file, links followed. Of `conditions` Range and the `If-*` family count.
    ///
    /// # Errors
    /// `not_found`, `is_a_directory`, `not_a_file`.
    pub async fn read(&self, path: &FilePath, conditions: &HeaderMap) -> Result<Reading> {
        let info = self.regular(path).await?;
        let name = path.file().map(|(_, name)| name.to_owned()).unwrap_or_default();
        let whole = !CONDITIONS.iter().any(|name| conditions.contains_key(name));
        if is_unsized(&info) || (info.size == 0 && whole) {
            let download = self.download_unsized(path.as_str()).await?;
            return self.measured(download, name).await;
        }
        let Download { status, headers, body } = self.download(path.as_str(), conditions).await?;
        Ok(Reading { status, headers, body: body.boxed(), name })
    }

    /// Most files of which the file system says that they are empty are empty: looking tells their length after all.
    async fn measured(&self, download: Download, name: String) -> Result<Reading> {
        let Download { status, mut headers, mut body } = download;
        let mut first = body.next().await.transpose().map_err(|error| self.target.error(error))?;
        while first.as_ref().is_some_and(Bytes::is_empty) {
            first = body.next().await.transpose().map_err(|error| self.target.error(error))?;
        }
        if first.is_none() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        }
        Ok(Reading { status, headers, body: stream::iter(first.map(Ok)).chain(body).boxed(), name })
    }

    async fn regular(&self, path: &FilePath) -> Result<FileInfo> {
        let info = match self.stat(path).await? {
            info if info.kind != FileKind::Symlink => info,
            link => self
                .followed(&link.path)
                .await?
                .ok_or_else(|| Error::new(Code::NotFound, format!("The link {:?} leads nowhere.", link.path)))?,
        };
        match info.kind {
            FileKind::File => Ok(info),
            FileKind::Directory => {
                Err(Error::new(Code::IsADirectory, format!("{:?} is a directory. List it.", info.path)))
            }
            FileKind::Symlink | FileKind::Other => Err(super::not_a_file(&info.path)),
        }
    }

    async fn download(&self, path: &str, conditions: &HeaderMap) -> Result<Download> {
        let user = &*self.user;
        let opened = self.call(|envd| async move { envd.download(path, Some(user), conditions).await }).await;
        opened.map_err(|error| super::naming(path, error))
    }

    async fn download_unsized(&self, path: &str) -> Result<Download> {
        let user = &*self.user;
        let opened = self.call(|envd| async move { envd.download_unsized(path, Some(user)).await }).await;
        opened.map_err(|error| super::naming(path, error))
    }
}

fn is_unsized(info: &FileInfo) -> bool {
    UNSIZED.iter().any(|prefix| info.path.starts_with(prefix))
}
