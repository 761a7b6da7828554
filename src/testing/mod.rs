//! For tests: of handlers, and of adapters. Behind feature `testing`.

pub mod conformance;
mod forward;

#[doc(hidden)]
pub use bytes::Bytes;
