//! The Redis adapter. Nothing outside this folder sees a type of the redis crate.

mod adapter;
mod append_once;
mod counts;
mod dead_letters;
mod facts;
mod group;
mod journal;
mod keys;
mod kv;
mod lease;
mod migrate;
mod net;
mod promote;
mod publish;
mod read;
mod resp;
mod retain;
mod roles;
mod schedule;
mod scripts;
mod search;
mod settle;
mod status;
mod take;

pub(crate) use adapter::RedisAdapter;
pub(crate) use kv::RedisKv;
pub use migrate::Migrations;
pub use net::TlsSettings;
#[cfg(feature = "testing")]
pub(crate) use {net::check_url, resp::read_reply};
