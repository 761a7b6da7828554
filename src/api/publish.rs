//! A publish: its options, its result, and the object-safe port of everything that publishes.

use std::fmt;

pub use crate::domain::PublishOptions;
use crate::domain::{BoxFuture, EntryId, Envelope, Error, Topic};

/// The result of publishing a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Published {
    /// The id of its entry in the topic.
    pub id: EntryId,
    /// Whether an earlier call, or an earlier try of this call, has already added the entry, so that
    /// nothing was added now. Always `false` without
    /// [deduplication](PublishOptions::with_deduplication).
    pub duplicate: bool,
}

/// The publishing side of a bus, without its subscriptions: a delivery holds it, and a subscription
/// must not keep the bus alive that it belongs to.
pub(crate) trait PublishPort: Send + Sync + fmt::Debug {
    fn publish_all_with<'a>(
        &'a self,
        topic: &'a Topic,
        envelopes: &'a [Envelope],
        options: PublishOptions,
    ) -> BoxFuture<'a, Vec<Result<Published, Error>>>;
}
