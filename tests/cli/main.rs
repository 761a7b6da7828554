//! The command-line tool, as a user runs it.

#![cfg(feature = "cli")]

#[path = "../support/mod.rs"]
mod support;

mod demo;
mod look;
mod publish;
mod run;
mod secrets;
