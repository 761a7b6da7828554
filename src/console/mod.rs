//! The operators' page: topics, groups, dead letters, retries and the doctor in a browser.
//!
//! The tool serves it with `redstart console`. [`service`] mounts the same pages into your own
//! service, behind your own log-in:
//!
//! ```
//! use redstart::Container;
//! use redstart::console::{Access, ConsoleOptions, service};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), redstart::Error> {
//! let container = Container::in_memory().await?;
//! let options = ConsoleOptions::with_access(|parts| {
//!     match parts.headers.get("x-user").and_then(|name| name.to_str().ok()) {
//!         Some(name) => Access::Operator(name.to_owned()),
//!         None => Access::Forbidden,
//!     }
//! });
//! let console = service(container, options.with_base_path("/redstart")?);
//! # let app: axum::Router =
//! axum::Router::new().nest_service("/redstart", console);
//! # Ok(())
//! # }
//! ```
//!
//! The pages work without JavaScript and load nothing from other hosts. Each page shows the
//! command of the tool that does the same.

mod access;
mod act;
mod api;
mod app;
mod assets;
mod dead;
mod failure;
mod headers;
mod live;
mod look;
mod options;
mod overview;
mod page;
mod poll;
mod regions;
mod server;
mod service;
mod state;
mod visit;

pub use access::{Access, Login, ProxyLogin, hash_password};
pub use options::ConsoleOptions;
pub use server::ConsoleServer;
pub use service::{ConsoleBody, ConsoleService, service};
