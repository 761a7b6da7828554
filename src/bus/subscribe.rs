//! Subscriptions: one per topic and group in a container.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::StoreBus;
use super::pace::Pace;
use super::publish::{Publishing, closed};
use crate::api::overrides::Override;
use crate::api::propagator::Telemetry;
use crate::api::{SubscribeOptions, Subscription, Work};
use crate::domain::{BoxFuture, ConsumerName, Error, ErrorKind, Group, Topic};
use crate::store::{Member, Store};
use crate::wire::Decoder;

/// The parts that a subscription starts from.
pub(crate) struct Setup {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Member,
    pub(crate) work: Work,
    pub(crate) options: SubscribeOptions,
    pub(crate) decoder: Decoder,
    pub(crate) telemetry: Option<Arc<Telemetry>>,
    pub(crate) pace: Arc<Pace>,
    /// Publishes for handlers.
    pub(crate) publishing: Arc<Publishing>,
    /// Called once, when the subscription has ended.
    pub(crate) ended: Box<dyn FnOnce() + Send>,
}

/// Starts a subscription. The container passes the runtime's function in, so that the bus does not
/// import the runtime.
pub(crate) type Start = fn(Setup) -> BoxFuture<'static, Result<Subscription, Error>>;

/// The container's subscriptions, by topic and group.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    closed: bool,
    /// How many subscriptions have started; their number orders them.
    started: u64,
    /// `None` while the subscription starts.
    subscriptions: BTreeMap<(Topic, Group), Option<(u64, Subscription)>>,
}

impl Subscriptions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves the name before the first await, so that exactly one of concurrent calls wins. Also
    /// returns the dead subscription that had the name.
    fn reserve(
        self: &Arc<Self>,
        topic: &Topic,
        group: &Group,
    ) -> Result<(Reservation, Option<Subscription>), Error> {
        let mut table = self.table();
        if table.closed {
            return Err(closed(topic));
        }
        let name = (topic.clone(), group.clone());
        let known = table.subscriptions.get(&name);
        let dead = known.and_then(|known| known.as_ref().filter(|(_, one)| one.is_dead()));
        let dead = dead.map(|(_, dead)| dead.clone());
        if known.is_some() && dead.is_none() {
            let rule = "this container already has a subscription under this group; name another \
                        group to see every message twice, or raise the concurrency for more handlers";
            return Err(Error::new(ErrorKind::AlreadySubscribed, "subscribe", rule)
                .on(format!("{topic}/{group}")));
        }
        table.subscriptions.insert(name.clone(), None);
        let reservation = Reservation {
            subscriptions: Arc::clone(self),
            name: Some(name),
        };
        Ok((reservation, dead))
    }

    pub(super) fn running(&self) -> Vec<Subscription> {
        let table = self.table();
        let mut running: Vec<_> = table.subscriptions.values().flatten().cloned().collect();
        running.sort_by_key(|(number, _)| *number);
        running.into_iter().map(|(_, running)| running).collect()
    }

    pub(super) fn close(&self) {
        self.table().closed = true;
    }
}

/// A reserved name. Dropping it frees the name, unless a subscription fills it first.
struct Reservation {
    subscriptions: Arc<Subscriptions>,
    name: Option<(Topic, Group)>,
}

impl Reservation {
    /// Enters the subscription. Returns whether the container is still open.
    fn fill(mut self, subscription: &Subscription) -> bool {
        let mut table = self.subscriptions.table();
        table.started += 1;
        let number = table.started;
        if let Some(name) = self.name.take() {
            let entry = Some((number, subscription.clone()));
            table.subscriptions.insert(name, entry);
        }
        !table.closed
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.subscriptions.table().subscriptions.remove(&name);
        }
    }
}

/// The error of options that break a rule. The rule alone would send an operator to the code.
fn refused(broken: Error, overrides: &[Override]) -> Error {
    if overrides.is_empty() {
        return broken;
    }
    let list: Vec<String> = overrides
        .iter()
        .map(|one| format!("{} = {} by {}", one.setting, one.value, one.source))
        .collect();
    let rule = format!(
        "the options break a rule; operators set {}",
        list.join(", ")
    );
    Error::new(ErrorKind::Invalid, "subscribe", rule).because(broken)
}

impl StoreBus {
    pub(super) async fn subscribe(
        &self,
        topic: &Topic,
        options: SubscribeOptions,
        work: Work,
    ) -> Result<Subscription, Error> {
        let group = options
            .group
            .clone()
            .unwrap_or_else(|| self.service.clone());
        let (mut options, overrides) = self.overrides.apply(topic, &group, options);
        for one in &overrides {
            let (setting, value, source) = (one.setting, &*one.value, &*one.source);
            tracing::info!(%topic, %group, setting, value, source, "an operator's setting replaces the code's");
        }
        let checked = match work {
            Work::Each(_) => options.check(),
            Work::Batches(_) => options.check_batches(),
        };
        checked.map_err(|broken| refused(broken, &overrides).on(topic.as_str()))?;
        let (reservation, dead) = self.subscriptions.reserve(topic, &group)?;
        if let Some(dead) = dead {
            // Releases its deliveries, so that they need not wait for the end of their lease.
            let _ = dead.unsubscribe(std::time::Duration::ZERO).await;
        }
        let work = match self.observer.get() {
            Some(observer) => {
                // Such a test goes from retry to retry, which it finds in the store.
                options.hold_back = std::time::Duration::ZERO;
                work.observed(Arc::clone(observer))
            }
            None => work,
        };
        let name = (topic.clone(), group.clone());
        let subscriptions = Arc::clone(&self.subscriptions);
        let consumer = fresh_name(&self.service)?;
        let own = consumer.clone();
        let subscription = (self.start)(Setup {
            store: Arc::clone(&self.store),
            member: Member::of(topic, &group, consumer),
            work,
            options,
            decoder: self.decoder.clone(),
            telemetry: self.publishing.telemetry.clone(),
            publishing: Arc::clone(&self.publishing),
            pace: Arc::clone(&self.pace),
            ended: Box::new(move || {
                let mut table = subscriptions.table();
                // Another subscription may have the name of a dead one by now.
                let current = table.subscriptions.get(&name).and_then(Option::as_ref);
                if current.is_some_and(|(_, current)| *current.consumer() == own) {
                    table.subscriptions.remove(&name);
                }
            }),
        })
        .await?;
        if !reservation.fill(&subscription) {
            // The container was shut down while the subscription started, so it does not end it.
            let _ = subscription.unsubscribe(std::time::Duration::ZERO).await;
            return Err(closed(topic));
        }
        Ok(subscription)
    }
}

/// Makes a consumer name that no process has used before. A name made of host and process id
/// returns after a restart, and the new process would take over the old one's deliveries as its own.
fn fresh_name(service: &Group) -> Result<ConsumerName, Error> {
    let service: String = service.as_str().chars().take(90).collect();
    ConsumerName::new(format!("{service}-{}", Uuid::now_v7().simple()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (Topic, Group) {
        (
            Topic::new("orders").unwrap(),
            Group::new("billing").unwrap(),
        )
    }

    #[test]
    fn a_name_is_reserved_once_and_freed_when_the_start_fails() {
        let subscriptions = Arc::<Subscriptions>::default();
        let (topic, group) = names();
        let kind = |result: Result<(Reservation, Option<Subscription>), Error>| {
            result.err().map(|error| error.kind())
        };
        let first = subscriptions.reserve(&topic, &group).unwrap();
        let second = kind(subscriptions.reserve(&topic, &group));
        assert_eq!(second, Some(ErrorKind::AlreadySubscribed));
        assert!(subscriptions.running().is_empty(), "it has not started");
        drop(first);
        assert_eq!(kind(subscriptions.reserve(&topic, &group)), None);
        subscriptions.close();
        let closed = kind(subscriptions.reserve(&topic, &group));
        assert_eq!(closed, Some(ErrorKind::Closed));
    }

    #[test]
    fn consumer_names_never_repeat_and_fit_a_long_service_name() {
        let service = Group::new("s".repeat(128)).unwrap();
        assert_ne!(fresh_name(&service).unwrap(), fresh_name(&service).unwrap());
    }
}
