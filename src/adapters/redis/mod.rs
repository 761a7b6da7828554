//! The Redis adapter. Nothing outside this folder sees a type of the redis crate.

mod append_once;
mod backend;
mod denial;
mod error;
mod facts;
mod graves;
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
mod tallies;
mod tls;

pub(crate) use backend::RedisBackend;
pub use kv::RedisKv;
pub use migrate::{AppliedMigration, MigrationState, Migrations};
pub use tls::TlsSettings;
#[cfg(feature = "testing")]
pub(crate) use {resp::read_reply, server::check_url};
