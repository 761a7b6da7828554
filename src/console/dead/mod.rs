//! Pages of dead letters.

pub(super) mod causes;
pub(super) mod export;
pub(super) mod filter;
pub(super) mod letter;
pub(super) mod list;
pub(super) mod payload;
mod rows;
pub(super) mod search;
