//! Subscriptions: one per topic and group in a container.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::StoreBus;
use super::publish::closed;
use crate::api::{SubscribeOptions, Subscription, Work};
use crate::domain::{ConsumerName, Error, ErrorKind, Group, Topic};
use crate::store::Member;
use crate::worker::{self, Setup};

/// What is subscribed, by topic and group.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    closed: bool,
    made: u64,
    /// `None` while the subscription is being made.
    places: BTreeMap<(Topic, Group), Option<(u64, Subscription)>>,
}

impl Subscriptions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a place before anything is awaited, so that of concurrent calls one wins.
    fn reserve(self: &Arc<Self>, topic: &Topic, group: &Group) -> Result<Place, Error> {
        let mut table = self.table();
        if table.closed {
            return Err(closed(topic));
        }
        let name = (topic.clone(), group.clone());
        if table.places.contains_key(&name) {
            let rule = "this container has a subscription under this group; to see every \
                        message twice name another group, for more handlers raise the concurrency";
            return Err(Error::new(ErrorKind::AlreadySubscribed, "subscribe", rule)
                .on(format!("{topic}/{group}")));
        }
        table.places.insert(name.clone(), None);
        Ok(Place {
            subscriptions: Arc::clone(self),
            name: Some(name),
        })
    }

    pub(super) fn running(&self) -> Vec<Subscription> {
        let table = self.table();
        let mut running: Vec<_> = table.places.values().flatten().cloned().collect();
        running.sort_by_key(|(made, _)| *made);
        running.into_iter().map(|(_, running)| running).collect()
    }

    pub(super) fn close(&self) {
        self.table().closed = true;
    }
}

/// A reserved place; given up when dropped before it is taken.
struct Place {
    subscriptions: Arc<Subscriptions>,
    name: Option<(Topic, Group)>,
}

impl Place {
    /// Whether the container is still open.
    fn take(mut self, subscription: &Subscription) -> bool {
        let mut table = self.subscriptions.table();
        table.made += 1;
        let made = table.made;
        if let Some(place) = self
            .name
            .take()
            .and_then(|name| table.places.get_mut(&name))
        {
            *place = Some((made, subscription.clone()));
        }
        !table.closed
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.subscriptions.table().places.remove(&name);
        }
    }
}

impl StoreBus {
    pub(super) async fn subscribe(
        &self,
        topic: &Topic,
        options: SubscribeOptions,
        work: Work,
    ) -> Result<Subscription, Error> {
        let checked = match work {
            Work::Each(_) => options.check(),
            Work::Batches(_) => options.check_batches(),
        };
        checked.map_err(|e| e.on(topic.as_str()))?;
        let group = options
            .group
            .clone()
            .unwrap_or_else(|| self.service.clone());
        let place = self.subscriptions.reserve(topic, &group)?;
        let name = (topic.clone(), group.clone());
        let subscriptions = Arc::clone(&self.subscriptions);
        let subscription = worker::start(Setup {
            store: Arc::clone(&self.store),
            member: Member {
                topic: topic.clone(),
                group,
                consumer: fresh_name(&self.service)?,
            },
            work,
            options,
            limits: self.limits,
            ended: Box::new(move || {
                subscriptions.table().places.remove(&name);
            }),
        })
        .await?;
        if !place.take(&subscription) {
            // The container was shut down meanwhile and does not know of this one.
            let _ = subscription.unsubscribe(std::time::Duration::ZERO).await;
            return Err(closed(topic));
        }
        Ok(subscription)
    }
}

/// A consumer name that no process had before: one made of host and process id comes back
/// after a restart, and the new process takes itself for the old.
fn fresh_name(service: &Group) -> Result<ConsumerName, Error> {
    let service: String = service.as_str().chars().take(90).collect();
    ConsumerName::new(format!("{service}-{}", Uuid::now_v7().simple()))
}
