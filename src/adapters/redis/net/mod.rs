//! Servers and connections: how to reach a server, and whether a command certainly was not done.

mod denial;
pub(super) mod error;
mod link;
mod pool;
mod server;
mod socket;
mod stream;
mod tls;

pub(super) use link::Link;
pub(super) use pool::Pool;
pub(super) use server::Server;
#[cfg(feature = "testing")]
pub(crate) use server::check_url;
pub(super) use socket::{Socket, refusal_of, within};
pub use tls::TlsSettings;
