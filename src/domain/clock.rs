//! The clock, injected.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::timestamp::Timestamp;

/// A source of the current time. Inject another one to test time-dependent code without waiting.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The current time.
    fn now(&self) -> Timestamp;

    /// Completes when the clock is set forward after this call. By default never, because time
    /// passes by itself.
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
