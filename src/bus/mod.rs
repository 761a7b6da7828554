//! The bus on a store: the publish pipeline behind the backlog limit, and the subscriptions.

mod backlog;
mod deduplicate;
mod draft;
mod due;
mod due_watch;
mod effects;
mod gate;
mod later;
mod later_desk;
mod outside;
mod pace;
mod publish;
mod subscribe;

use std::sync::{Arc, OnceLock};

use crate::api::observe::Observer;
use crate::api::overrides::Overrides;
use crate::api::{Committed, MessageBus, PublishOptions, Published, Rehearsal};
use crate::api::{RawBatchHandler, RawHandler, SubscribeOptions, Subscription, Work};
use crate::domain::BoxFuture;
use crate::domain::{
    Effects, Envelope, Error, Group, ScheduleId, ScheduleOptions, Scheduled, Timestamp, Topic, When,
};
use crate::store::{Partition, Store};
use crate::wire::foreign::Foreign;
use crate::wire::{Decoder, Limits};

pub(crate) use due::Due;
pub(crate) use effects::{Admission, Prepared, committed, refused};
use outside::OutsideCommits;
pub(crate) use pace::Pace;
pub(crate) use publish::Publishing;
pub(crate) use subscribe::Setup;
use subscribe::{Start, Subscriptions};

/// The message bus on a store.
#[derive(Debug)]
pub(crate) struct StoreBus {
    store: Arc<dyn Store>,
    service: Group,
    decoder: Decoder,
    publishing: Arc<Publishing>,
    overrides: Overrides,
    outside: OutsideCommits,
    subscriptions: Arc<Subscriptions>,
    pace: Arc<Pace>,
    start: Start,
    /// Sees how each delivery ends; tests set one.
    observer: OnceLock<Arc<dyn Observer>>,
}

impl StoreBus {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        service: Group,
        limits: Limits,
        publishing: Publishing,
        start: Start,
    ) -> Self {
        Self {
            outside: OutsideCommits::new(Arc::clone(&store)),
            store,
            service,
            decoder: Decoder::new(limits),
            publishing: Arc::new(publishing),
            subscriptions: Arc::default(),
            pace: Arc::default(),
            start,
            overrides: Overrides::default(),
            observer: OnceLock::new(),
        }
    }

    /// Sets the operators' settings of subscriptions.
    pub(crate) fn with_overrides(mut self, overrides: Overrides) -> Self {
        self.overrides = overrides;
        self
    }

    /// Sets the readers of foreign entries.
    pub(crate) fn with_foreign(mut self, foreign: Foreign) -> Self {
        self.decoder = self.decoder.with_foreign(foreign);
        self
    }

    /// Lets an observer see how each delivery ends, in subscriptions from now on.
    #[cfg(feature = "testing")]
    pub(crate) fn observe(&self, observer: Arc<dyn Observer>) {
        let _ = self.observer.set(observer);
    }

    /// Commits effects without a delivery.
    pub(crate) async fn commit(&self, effects: &Effects) -> Result<Committed, Error> {
        let prepared = self.publishing.prepare(effects)?;
        let admitted = self.publishing.admit_all(&prepared).await;
        let admission = admitted.inspect_err(|error| self.publishing.fail(&prepared, error))?;
        let fate = self.outside.commit(prepared.effects().to_vec()).await;
        let done = fate.and_then(|fate| committed(prepared.effects(), fate));
        self.publishing.finish(&prepared, admission, &done);
        done
    }

    /// Says what a commit of effects would do now.
    pub(crate) async fn rehearse(&self, effects: &Effects) -> Result<Rehearsal, Error> {
        self.publishing.rehearse(effects).await
    }

    /// The publish pipeline. No two containers share one.
    pub(crate) fn publishing(&self) -> &Arc<Publishing> {
        &self.publishing
    }

    /// The running subscriptions, in the order in which they started.
    pub(crate) fn running(&self) -> Vec<Subscription> {
        self.subscriptions.running()
    }

    /// Refuses further subscriptions with `Closed`. Running handlers can still publish.
    pub(crate) fn close_subscribing(&self) {
        self.subscriptions.close();
    }

    /// Refuses further subscriptions and publishes with `Closed`.
    pub(crate) fn close(&self) {
        self.subscriptions.close();
        self.publishing.close();
    }
}

impl MessageBus for StoreBus {
    fn publish<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
    ) -> BoxFuture<'a, Result<Published, Error>> {
        Box::pin(
            self.publishing
                .publish_one(topic, envelope, PublishOptions::new()),
        )
    }

    fn publish_with<'a>(
        &'a self,
        topic: &'a Topic,
        envelope: &'a Envelope,
        options: PublishOptions,
    ) -> BoxFuture<'a, Result<Published, Error>> {
        Box::pin(self.publishing.publish_one(topic, envelope, options))
    }

    fn publish_all<'a>(
        &'a self,
        topic: &'a Topic,
        envelopes: &'a [Envelope],
    ) -> BoxFuture<'a, Vec<Result<Published, Error>>> {
        Box::pin(
            self.publishing
                .publish_many(topic, envelopes, PublishOptions::new()),
        )
    }

    fn publish_all_with<'a>(
        &'a self,
        topic: &'a Topic,
        envelopes: &'a [Envelope],
        options: PublishOptions,
    ) -> BoxFuture<'a, Vec<Result<Published, Error>>> {
        Box::pin(self.publishing.publish_many(topic, envelopes, options))
    }

    fn publish_later<'a>(
        &'a self,
        topic: &'a Topic,
        envelopes: &'a [Envelope],
        due: When,
        options: &'a ScheduleOptions,
    ) -> BoxFuture<'a, Vec<Result<Scheduled, Error>>> {
        Box::pin(self.publishing.schedule(topic, envelopes, due, options))
    }

    fn cancel<'a>(
        &'a self,
        topic: &'a Topic,
        id: &'a ScheduleId,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.publishing.cancel(topic, id))
    }

    fn reschedule<'a>(
        &'a self,
        at: &'a Partition,
        id: &'a ScheduleId,
        due: When,
    ) -> BoxFuture<'a, Result<Vec<Timestamp>, Error>> {
        Box::pin(self.publishing.reschedule(at, id, due))
    }

    fn configured(&self, topic: &Topic, options: SubscribeOptions) -> SubscribeOptions {
        let group = options.group.clone();
        let group = group.unwrap_or_else(|| self.service.clone());
        self.overrides.apply(topic, &group, options).0
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
