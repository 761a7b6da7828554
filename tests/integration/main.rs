//! Each part on a real server.

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod bus;
mod cloud_events;
mod connect;
mod crash;
mod cuts;
mod dead_letters;
mod effects;
mod effects_crashes;
mod effects_cuts;
mod effects_words;
mod foreign;
mod health;
mod kv;
mod later;
mod links;
mod lua;
mod meters;
mod metrics_page;
mod middleware;
mod migrations;
mod order;
mod outages;
mod owned;
mod placements;
mod poison;
mod removed;
mod retention;
mod retries;
mod roles;
mod runtimes;
mod secrets;
mod sent_again;
mod shared;
mod shutdown;
mod signals;
mod stale;
mod tls;
mod wrong_types;
