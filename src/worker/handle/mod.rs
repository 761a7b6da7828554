//! The pipeline of one delivery, and of a batch.

pub(crate) mod batch;
pub(crate) mod execute;
