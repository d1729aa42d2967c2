//! Tests of the wire types against the API file, and of the client against a server in this process.

mod api_file;
mod failures;
mod paging;
mod requests;
mod retries;
mod server;
mod signing;
mod values;
