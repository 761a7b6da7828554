//! Connections to one server, from its URL to a pool, a link and a reader.

pub(super) mod access;
mod address;
pub(super) mod connection;
mod handshake;
pub(super) mod link;
pub(super) mod natives;
pub(super) mod pool;
mod progress;
pub(super) mod server;
pub(super) mod socket;
pub(super) mod stream;
pub(super) mod tls;
pub(super) mod traffic;
pub(super) mod url;
