//! The time, injected.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::timestamp::Timestamp;

/// Tells the time. Injected, so that what depends on it can be tested without waiting.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Completes when the clock has been set forward since this was called. Where time only
    /// passes by itself, as it does by default, never.
    fn set(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn set(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        (**self).set()
    }
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
