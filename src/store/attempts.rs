//! The attempts at an entry.

/// The attempts at an entry, as a store counts them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Attempts {
    /// How many were begun.
    pub begun: u32,
    /// How many of these are known to have failed. The process of each other one died, or still
    /// runs it.
    pub failed: u32,
}

impl Attempts {
    /// How many ended with their process, or still run.
    #[must_use]
    pub fn unexplained(self) -> u32 {
        self.begun.saturating_sub(self.failed)
    }
}

impl From<u32> for Attempts {
    /// Attempts of which none is known to have failed.
    fn from(begun: u32) -> Self {
        Self { begun, failed: 0 }
    }
}
