//! The stores that Redstart runs on. Each has one folder.

pub(crate) mod memory;
pub(crate) mod redis;
