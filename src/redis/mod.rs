//! The Redis adapter. Nothing outside this folder sees a type of the redis crate.

mod append_once;
mod backend;
mod dead;
mod denial;
mod error;
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
mod scripts;
mod server;
mod settle;
mod socket;
mod status;

pub(crate) use backend::RedisBackend;
pub use kv::RedisKv;
pub use migrate::{AppliedMigration, MigrationState, Migrations};
