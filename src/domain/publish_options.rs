//! The settings of a publish.

use std::time::Duration;

use uuid::Uuid;

use super::durability::Durability;
use super::envelope::Envelope;
use super::error::{Error, ErrorKind};
use super::retry::RetryPolicy;

/// The settings of a publish.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct PublishOptions {
    /// `None`: the default of the bus.
    deduplication: Option<Option<Duration>>,
    /// The identity for deduplication; `None`: the envelope's id.
    instance: Option<Uuid>,
    /// `None`: the default of the bus.
    durability: Option<Durability>,
}

impl PublishOptions {
    /// The defaults of the bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Recognises repeats: if a message with the same envelope id was published to the topic with
    /// deduplication less than `window` ago, the publish adds nothing and returns the id of the first
    /// entry and `duplicate: true`. By default the setting of the
    /// [container](crate::container::ContainerBuilder::with_deduplication).
    ///
    /// The window is 1 millisecond to 30 days, in whole milliseconds of the server's clock. The
    /// server checks and adds in one atomic step, and remembers the id even after the entry has been
    /// settled and removed. Use one window for all publishers of a topic: a repeat is certainly
    /// recognised only within the shorter of the two windows.
    ///
    /// Because repeats are safe, the bus itself retries a publish whose outcome is unknown: up to 4
    /// times, after 0.1 s, 0.2 s, 0.4 s and 0.8 s, each jittered by half, within the first half of the
    /// window. If that does not help, the publish fails with
    /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown). Choose a window longer than the outages
    /// to survive: minutes.
    pub fn with_deduplication(mut self, window: Duration) -> Self {
        self.deduplication = Some(Some(window));
        self
    }

    /// Always adds the message, even if the container deduplicates.
    pub fn without_deduplication(mut self) -> Self {
        self.deduplication = Some(None);
        self
    }

    /// Sets what the message must survive before the publish counts as done; by default the setting of
    /// the [container](crate::container::ContainerBuilder::with_durability).
    ///
    /// A message that is in the topic and did not reach the level in time fails with
    /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown), and the error says so. With deduplication the
    /// bus asks again, as for every unknown outcome. A level that the server never can give fails with
    /// [`Unsupported`](crate::ErrorKind::Unsupported), and nothing is published.
    pub fn with_durability(mut self, level: Durability) -> Self {
        self.durability = Some(level);
        self
    }

    /// The level of durability, given the default of the bus.
    pub(crate) fn durability(self, default: Durability) -> Result<Durability, Error> {
        self.durability.unwrap_or(default).check()
    }

    /// Like [`with_deduplication`](Self::with_deduplication), but recognises repeats by `instance`
    /// instead of the envelope's id.
    pub(crate) fn with_instance(mut self, instance: Uuid, window: Duration) -> Self {
        self.instance = Some(instance);
        self.with_deduplication(window)
    }

    /// The identity by which a repeat is recognised.
    pub(crate) fn identity(self, envelope: &Envelope) -> Uuid {
        self.instance.unwrap_or_else(|| envelope.id())
    }

    /// The deduplication window, given the default of the bus.
    pub(crate) fn window(self, default: Option<Duration>) -> Result<Option<Duration>, Error> {
        let window = self.deduplication.unwrap_or(default);
        match window {
            Some(window)
                if !(Duration::from_millis(1)..=RetryPolicy::MAX_DELAY).contains(&window) =>
            {
                let rule =
                    format!("a deduplication window must be 1 ms to 30 days, not {window:?}");
                Err(Error::new(ErrorKind::Invalid, "publish", rule))
            }
            window => Ok(window),
        }
    }
}
