//! The bus: publishing through a backlog gate, and subscriptions that exclude each other.

mod backlog;
mod deduplicate;
mod publish;
mod subscribe;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::api::{MessageBus, PublishOptions, Published};
use crate::api::{RawBatchHandler, RawHandler, SubscribeOptions, Subscription, Work};
use crate::domain::BoxFuture;
use crate::domain::{Codec, Envelope, Error, Group, Topic};
use crate::store::Store;
use crate::wire::Limits;

use backlog::Backlog;
use subscribe::Subscriptions;

/// The message bus on a backend.
#[derive(Debug)]
pub(crate) struct StoreBus {
    store: Arc<dyn Store>,
    service: Group,
    codec: Codec,
    limits: Limits,
    /// How long a message is recognised by its id, where a publish does not say.
    deduplication: Option<Duration>,
    backlog: Backlog,
    subscriptions: Arc<Subscriptions>,
    closed: AtomicBool,
}

impl StoreBus {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        service: Group,
        codec: Codec,
        limits: Limits,
        deduplication: Option<Duration>,
    ) -> Self {
        Self {
            backlog: Backlog::new(Arc::clone(&store)),
            store,
            service,
            codec,
            limits,
            deduplication,
            subscriptions: Arc::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Running subscriptions, in the order in which they were made.
    pub(crate) fn running(&self) -> Vec<Subscription> {
        self.subscriptions.running()
    }

    /// From now on subscribing fails with `Closed`. Handlers that finish may still publish.
    pub(crate) fn close_subscribing(&self) {
        self.subscriptions.close();
    }

    /// From now on publishing fails with `Closed`, too.
    pub(crate) fn close(&self) {
        self.subscriptions.close();
        self.closed.store(true, Ordering::Release);
    }
}

impl MessageBus for StoreBus {
    fn publish<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
    ) -> BoxFuture<'a, Result<Published, Error>> {
        Box::pin(self.publish_one(topic, envelope, PublishOptions::new()))
    }

    fn publish_with<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
        options: PublishOptions,
    ) -> BoxFuture<'a, Result<Published, Error>> {
        Box::pin(self.publish_one(topic, envelope, options))
    }

    fn publish_all<'a>(
        &'a self,
        topic: &'a Topic,
        envelopes: &'a [Envelope],
    ) -> BoxFuture<'a, Vec<Result<Published, Error>>> {
        Box::pin(self.publish_many(topic, envelopes, PublishOptions::new()))
    }

    fn publish_all_with<'a>(
        &'a self,
        topic: &'a Topic,
        envelopes: &'a [Envelope],
        options: PublishOptions,
    ) -> BoxFuture<'a, Vec<Result<Published, Error>>> {
        Box::pin(self.publish_many(topic, envelopes, options))
    }

    fn subscribe_raw<'a>(
        &'a self,
        topic: &'a Topic,
        options: SubscribeOptions,
        handler: Arc<dyn RawHandler>,
    ) -> BoxFuture<'a, Result<Subscription, Error>> {
        Box::pin(self.subscribe(topic, options, Work::Each(handler)))
    }

    fn subscribe_batch_raw<'a>(
        &'a self,
        topic: &'a Topic,
        options: SubscribeOptions,
        handler: Arc<dyn RawBatchHandler>,
    ) -> BoxFuture<'a, Result<Subscription, Error>> {
        Box::pin(self.subscribe(topic, options, Work::Batches(handler)))
    }
}
