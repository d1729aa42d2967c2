//! Files of an instance.

mod archive;
mod content;
mod dto;
mod entries;
mod form;
mod watch;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(
            content::get_file,
            content::head_file,
            content::put_file,
            entries::delete_file,
            form::put_files
        ))
        .routes(routes!(entries::list_files))
        .routes(routes!(entries::stat_file))
        .routes(routes!(entries::make_directory))
        .routes(routes!(entries::move_file))
        .routes(routes!(watch::watch_files))
        .routes(routes!(archive::get_archive, archive::put_archive))
}
