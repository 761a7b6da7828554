//! The Redis adapter. Nothing outside this folder sees a type of the redis crate.

mod adapter;
mod bells;
mod clocks;
mod dead_letters;
mod deliveries;
mod effects;
mod inspect;
mod keys;
mod later;
mod later_bells;
mod log;
mod migrate;
mod net;
mod owners;
mod resp;
mod schedule;
mod scripts;
mod slot_tags;
mod topics;
mod unplaced;
mod values;

pub use migrate::Migrations;
pub use net::TlsSettings;
pub(crate) use net::{Access, address_of};
pub(crate) use unplaced::{connect, unplaced};
#[cfg(feature = "testing")]
pub(crate) use {net::check_url, resp::read_reply};
