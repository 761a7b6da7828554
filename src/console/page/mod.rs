//! What every page has: the frame, links, and the forms of numbers and times.

mod command;
mod format;
mod frame;
mod links;
mod picture;

pub(super) use command::Command;
pub(super) use format::{ago, counted, duration, excerpt, instant, number, person, safe};
pub(super) use frame::{Page, fact, facts, failed, live};
pub(super) use links::{Links, Query};
pub(super) use picture::{bars, meter, sparkline};
