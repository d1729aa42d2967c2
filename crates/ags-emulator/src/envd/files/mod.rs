//! `/files` and `/files/compose`: whole files over plain HTTP, as streams (`PROTOCOLS` D.8).

mod compose;
mod conditions;
mod content;
mod download;
mod encoding;
mod gunzip;
mod query;
mod upload;
mod writer;

pub use compose::compose;
pub use download::download;
pub use query::same;
pub use upload::upload;
