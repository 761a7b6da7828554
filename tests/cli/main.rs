//! The command-line tool, as a user runs it.

#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod console_guide;
mod contexts;
mod dead;
mod dead_edit;
mod demo;
mod dialect;
mod doctor;
mod errors;
mod groups;
mod interop;
mod look;
mod metrics;
mod newest;
mod notes;
mod operate;
mod operators;
mod owned;
mod pair;
mod print;
mod printed;
mod production;
mod publish;
mod retries;
mod roles;
mod rules;
mod run;
mod schedules;
mod secrets;
mod terminal;
mod top;
mod topics;
mod work;
mod work_http;
