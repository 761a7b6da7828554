//! Which server holds a key, and how a call gets there.

mod ask;
pub(super) mod attempts;
pub(super) mod bell;
mod conversation;
mod durable;
pub(super) mod ear;
mod gate;
pub(super) mod node;
pub(super) mod nodes;
pub(super) mod pause;
mod publish;
pub(super) mod reader;
mod repeat;
mod repeated;
mod sentinels;
pub(super) mod slots;
