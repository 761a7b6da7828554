//! Pages of dead letters.

pub(super) mod causes;
mod filter;
pub(super) mod letter;
pub(super) mod list;
pub(super) mod payload;
