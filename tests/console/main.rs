//! The console by HTTP, without a browser: on the memory adapter and on a Redis server.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod act;
mod api;
mod changes;
mod commands;
mod faulty;
mod heavy;
mod hostile;
mod live;
mod mount;
mod owned;
mod pages;
mod server;
mod site;
mod sweeps;
