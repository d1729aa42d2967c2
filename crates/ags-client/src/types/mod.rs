//! The objects of the AGS API v2025-09-20, exactly as on the wire.
//!
//! Both sides use them: the client serialises requests and reads responses, the emulator the reverse.
//!
//! - A field that the API calls optional is an `Option`, left out when `None`; `null` reads as `None`. So
//!   "omitted" and "empty list" stay distinct in requests.
//! - Name/value pairs are the exception: their parts are plain strings, empty when omitted.
//! - `RequestId` belongs to the envelope ([`crate::envelope`]), not to the responses.
//! - An enum keeps a value it does not know as `Unknown`, and writes it back unchanged.
//! - Reading ignores unknown fields, as a newer cloud may send them; [`crate::request::decode`] is the strict
//!   reader for the server side.

mod config;
mod enums;
mod instance;
mod keys;
mod secret;
mod storage;
mod tool;
mod wire;

pub use config::*;
pub use enums::*;
pub use instance::*;
pub use keys::*;
pub use secret::WireSecret;
pub use storage::*;
pub use tool::*;
