//! Instances: their life, and the way into them.

mod target;

pub use target::{Target, running};
