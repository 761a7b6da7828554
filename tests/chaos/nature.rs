//! How the handler treats a message: its number decides, so that every process agrees.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A message's payload.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Message {
    pub(crate) n: u64,
    pub(crate) filling: String,
}

impl Message {
    pub(crate) fn new(n: u64) -> Self {
        // Of some 100 to 400 bytes, and now and then a large one.
        let size = match mixed(n) % 200 {
            0 => 60_000,
            small => 50 + small as usize * 2,
        };
        Self {
            n,
            filling: "x".repeat(size),
        }
    }
}

/// What handling a message is like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Nature {
    Plain,
    /// Takes its time.
    Slow(Duration),
    /// Fails so many times.
    Flaky(u32),
    /// Panics the first time.
    Explosive,
    /// Is snoozed once.
    Sleepy,
    /// Fails until the cause is fixed, and so becomes a dead letter.
    Curable,
    /// Is rejected until the cause is fixed.
    Refused,
    /// Always fails.
    Hopeless,
}

impl Nature {
    pub(crate) fn of(n: u64) -> Self {
        let mixed = mixed(n);
        match mixed % 100 {
            0..=2 => Self::Slow(Duration::from_millis(20 + (mixed >> 32) % 400)),
            3..=6 => Self::Flaky(1 + (mixed >> 32) as u32 % 2),
            7 => Self::Explosive,
            8..=9 => Self::Sleepy,
            10..=11 => Self::Curable,
            12 => Self::Refused,
            13 => Self::Hopeless,
            _ => Self::Plain,
        }
    }
}

/// The finalizer of SplitMix64.
pub(crate) fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
