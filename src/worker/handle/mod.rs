//! The pipeline of one delivery: decode → count → begin → call → decide → commit.
//!
//! One file per step. `decode`, `count`, `decide` and the endings that `commit` builds are pure;
//! `pipeline` runs the steps for one delivery, `batch` for many, and `suspects` for one alone.

mod alone;
pub(crate) mod batch;
mod begin;
mod call;
mod commit;
mod count;
mod decide;
mod decode;
mod effects;
mod hold;
mod in_hand;
pub(crate) mod pipeline;
mod shadow;
pub(crate) mod suspects;
