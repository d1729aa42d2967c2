//! Several files in one request.

use axum::extract::{
    FromRequest, Multipart, Request, State,
    multipart::{Field, MultipartError},
};
use futures_util::TryStreamExt;
use http::{HeaderMap, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use percent_encoding::percent_decode;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::dto::{self, WrittenDto};
use crate::{
    app::{
        App,
        files::{self, Announced, Files, Staged, parse_path},
    },
    domain::{file::join, scope::scope},
    error::{Code, Error, Result},
    http::{
        extract::{Authorized, FromQuery, Json, Path, Query, QueryReader},
        openapi::Failures,
    },
    ids::InstanceId,
};

const PART: &str = "file";
/// Files in one request.
const MAX_FILES: usize = 1000;

/// Where the files go, and whose they are.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FormQuery {
    /// The directory under which the parts' relative file names are. Default: the user's home.
    #[param(min_length = 1, max_length = 4095, example = "data")]
    pub path: Option<String>,
    /// The sandbox's user, whom the files shall belong to.
    #[param(example = "user")]
    pub user: Option<String>,
}

impl FromQuery for FormQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { path: query.text("path"), user: query.text("user") }
    }
}

/// A form with files.
#[derive(ToSchema)]
#[schema(as = FilesForm)]
#[allow(dead_code, reason = "documentation; the form is read as a stream")]
pub(super) struct FormDto {
    /// One part named `file` for each, whose `filename` is the path, directories included.
    #[schema(min_items = 1)]
    file: Vec<dto::Bytes>,
}

/// The files that were written, in the order of the parts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WrittenFiles {
    items: Vec<WrittenDto>,
}

/// Writes several files from a form: each part named `file` is one, its `filename` is the path, directories included.
///
/// All contents are received under temporary names first and moved into place when the form has come to its end, so that one
/// that breaks off writes no file at all.
#[utoipa::path(post, path = "/v1/instances/{id}/files", operation_id = "put_files", tag = "files",
    params(("id" = InstanceId, Path), FormQuery),
    request_body(content = FormDto, content_type = "multipart/form-data"),
    responses((status = 201, body = WrittenFiles), Failures))]
pub(super) async fn put_files(
    State(app): State<App>,
    caller: Authorized<scope::FilesWrite>,
    Path(id): Path<InstanceId>,
    Query(query): Query<FormQuery>,
    request: Request,
) -> Result<(StatusCode, Json<WrittenFiles>)> {
    let directory = query.path.as_deref().map(|path| parse_path("path", path)).transpose()?;
    let files = files::of(&app, &caller, &id, query.user.as_deref()).await?;
    let mut form = Multipart::from_request(request, &app).await.map_err(|rejection| {
        let detail = "Send the files as `multipart/form-data` with a boundary.";
        Error::new(Code::UnsupportedMediaType, detail).with_source(rejection)
    })?;
    let mut staged: Vec<Staged> = Vec::new();
    while let Some(part) = form.next_field().await.map_err(malformed)? {
        if staged.len() == MAX_FILES {
            let detail = format!("A form may have up to {MAX_FILES} files.");
            return Err(Error::new(Code::BodyTooLarge, detail).with_limit(
                "form_files",
                MAX_FILES as u64,
                MAX_FILES as u64,
            ));
        }
        staged.push(stage(&files, directory.as_ref().map(|path| path.as_str()), part, &staged).await?);
    }
    if staged.is_empty() {
        return Err(Error::field(PART, "must be there at least once"));
    }
    let items = Files::commit(staged).await?.into_iter().map(WrittenDto::from).collect();
    Ok((StatusCode::CREATED, Json(WrittenFiles { items })))
}

async fn stage(files: &Files, directory: Option<&str>, part: Field<'_>, before: &[Staged]) -> Result<Staged> {
    if part.name() != Some(PART) {
        return Err(Error::field(part.name().unwrap_or("part"), "unknown part; known: file"));
    }
    let name = file_name(part.headers()).or_else(|| part.file_name().map(str::to_owned));
    let name = name.ok_or_else(|| Error::field(PART, "needs a `filename`: the path to write to"))?;
    let path = match directory {
        Some(directory) if !name.starts_with(['/', '~']) => parse_path(PART, &join(directory, &name))?,
        _ => parse_path(PART, &name)?,
    };
    let content = part.map_ok(Frame::data);
    let staged = files.stage(&path, Announced::default(), &mut StreamBody::new(content)).await?;
    if before.iter().any(|other| other.destination() == staged.destination()) {
        return Err(Error::field(PART, format!("the path {:?} is given twice", staged.destination())));
    }
    Ok(staged)
}

/// The `filename*` of a part (RFC 8187), which some clients send for names that are not plain, although RFC 7578 tells
/// them not to.
fn file_name(headers: &HeaderMap) -> Option<String> {
    let disposition = headers.get(header::CONTENT_DISPOSITION)?.to_str().ok()?;
    let parameter = disposition.split(';').map(str::trim).find_map(|parameter| parameter.strip_prefix("filename*="))?;
    let encoded =
        parameter.get(..7).filter(|charset| charset.eq_ignore_ascii_case("utf-8''")).map(|_| &parameter[7..])?;
    percent_decode(encoded.as_bytes()).decode_utf8().ok().map(String::from)
}

fn malformed(error: MultipartError) -> Error {
    Error::new(Code::InvalidRequest, "The form is malformed, or broke off.").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_file_names_are_decoded() {
        let name = |disposition: &str| {
            let headers = [(header::CONTENT_DISPOSITION, disposition.parse().unwrap())].into_iter().collect();
            file_name(&headers)
        };
        let extended = "form-data; name=\"file\"; filename*=utf-8''a%20%22b%22%2Fgr%C3%BC%C3%9Fe";
        assert_eq!(name(extended).as_deref(), Some("a \"b\"/grüße"));
        assert_eq!(name("form-data; filename*=UTF-8''x; name=\"file\"").as_deref(), Some("x"));
        for other in ["form-data; filename=\"x\"", "form-data; filename*=latin1''x", "form-data; filename*=", "x"] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
