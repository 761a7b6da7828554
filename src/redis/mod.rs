//! The Redis adapter. Nothing outside this folder sees a type of the redis crate.

mod error;
mod keys;
mod kv;
mod pool;
mod scripts;

pub use kv::RedisKv;
