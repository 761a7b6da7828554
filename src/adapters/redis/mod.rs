//! The Redis adapter. Nothing outside this folder sees a type of the redis crate.

mod adapter;
mod append_once;
mod counts;
mod dead_letters;
mod denial;
mod error;
mod facts;
mod group;
mod journal;
mod keys;
mod kv;
mod lease;
mod link;
mod migrate;
mod pool;
mod promote;
mod publish;
mod read;
mod reply;
mod resp;
mod retain;
mod schedule;
mod scripts;
mod search;
mod server;
mod settle;
mod socket;
mod status;
mod stream;
mod take;
mod tls;

pub(crate) use adapter::RedisAdapter;
pub(crate) use kv::RedisKv;
pub use migrate::Migrations;
pub use tls::TlsSettings;
#[cfg(feature = "testing")]
pub(crate) use {resp::read_reply, server::check_url};
