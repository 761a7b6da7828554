//! The pipeline of one delivery: decode → count → call → decide → commit.
//!
//! One file per step. `decode`, `count`, `decide` and the endings that `commit` builds are pure;
//! `pipeline` runs the steps for one delivery and `batch` for many.

pub(crate) mod batch;
mod call;
mod commit;
mod count;
mod decide;
mod decode;
pub(crate) mod pipeline;
