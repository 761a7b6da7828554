//! The consumers of a group, and the deliveries that each of them holds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::domain::{Error, Group, Timestamp, Topic};
use crate::operate::doctor::pending_for;
use crate::operate::gauges::{millis, of_group};
use crate::operate::topics::Topics;
use crate::store::{ConsumerStatus, DeliveryId, Partition, Unsettled};

/// A consumer of a group, with the deliveries that it holds.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ConsumerInFlight {
    /// The consumer, also one of another program.
    pub consumer: String,
    /// Entries delivered to it and unsettled.
    pub in_flight: u64,
    /// How long ago it was last active; `None` for a consumer of another program whose name Redstart
    /// does not accept.
    #[serde(rename = "idleForMs", serialize_with = "millis")]
    pub idle_for: Option<Duration>,
    /// Whether it called the store within [`Topics::LIVE_WITHIN`].
    pub live: bool,
    /// Its deliveries in flight, the longest held first. The store lists the oldest hundred of the
    /// log and of the redelivery stream of each partition for a whole group, so there can be fewer than
    /// `in_flight`; none for a user who may not look.
    pub deliveries: Vec<InFlightDelivery>,
}

/// A delivery that a consumer has and has not settled.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct InFlightDelivery {
    /// The delivery.
    pub id: DeliveryId,
    /// How long the consumer has held it at most: since its entry exists and the consumer runs.
    #[serde(rename = "heldForMs", serialize_with = "whole_millis")]
    pub held_for: Duration,
    /// How long ago its lease began or was extended; `None` when the consumer has given it back.
    #[serde(rename = "leaseAgeMs", serialize_with = "millis")]
    pub lease_age: Option<Duration>,
}

fn whole_millis<S: serde::Serializer>(one: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    millis(&Some(*one), serializer)
}

impl ConsumerInFlight {
    /// How long the longest of its deliveries has been held at most.
    #[must_use]
    pub fn longest(&self) -> Option<Duration> {
        self.deliveries.iter().map(|one| one.held_for).max()
    }
}

impl Topics {
    /// Lists the consumers of a group by name, live or not, with the deliveries that each of them
    /// holds, and for how long; none when the group does not exist. Changes nothing; the rights of a
    /// viewer are enough.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn in_flight(
        &self,
        topic: &Topic,
        group: &Group,
    ) -> Result<Vec<ConsumerInFlight>, Error> {
        let consumers = self.consumers(topic, group).await?;
        let progress = self.progress(&Partition::of(topic)).await?;
        let now = self.schedule(topic, group).await?.now;
        let unsettled = of_group(progress.as_ref(), group);
        let unsettled = unsettled.map_or(&[][..], |group| &group.unsettled);
        Ok(join(&consumers, unsettled, now))
    }
}

fn join(
    consumers: &[ConsumerStatus],
    unsettled: &[Unsettled],
    now: Timestamp,
) -> Vec<ConsumerInFlight> {
    let mut all: BTreeMap<&str, ConsumerInFlight> = BTreeMap::new();
    for status in consumers {
        let consumer = ConsumerInFlight {
            consumer: status.consumer.to_string(),
            in_flight: status.in_flight,
            idle_for: Some(status.idle_for),
            live: status.idle_for <= Topics::LIVE_WITHIN,
            deliveries: Vec::new(),
        };
        all.insert(status.consumer.as_str(), consumer);
    }
    for one in unsettled {
        let consumer = all
            .entry(&one.consumer)
            .or_insert_with(|| ConsumerInFlight {
                consumer: one.consumer.clone(),
                in_flight: 0,
                idle_for: None,
                live: false,
                deliveries: Vec::new(),
            });
        consumer.deliveries.push(InFlightDelivery {
            id: one.id,
            held_for: pending_for(one, now),
            lease_age: one.idle_for,
        });
    }
    let mut all: Vec<_> = all.into_values().collect();
    for consumer in &mut all {
        let seen = consumer.deliveries.len() as u64;
        consumer.in_flight = consumer.in_flight.max(seen);
        consumer
            .deliveries
            .sort_by_key(|one| std::cmp::Reverse(one.held_for));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ConsumerName, EntryId};
    use crate::store::Lane;

    fn held(consumer: &str, millis: u64, idle: Option<u64>) -> Unsettled {
        let id = EntryId::new(millis, 0);
        Unsettled {
            id: DeliveryId::new(Lane::Log, id),
            consumer: consumer.to_owned(),
            idle_for: idle.map(Duration::from_millis),
        }
    }

    #[test]
    fn each_consumer_has_its_own_deliveries_the_longest_held_first() {
        let mut one = ConsumerStatus::new(ConsumerName::new("one").unwrap());
        one.in_flight = 7;
        one.idle_for = Duration::from_secs(61);
        let two = ConsumerStatus::new(ConsumerName::new("two").unwrap());
        let unsettled = [
            held("one", 9_000, Some(5)),
            held("a b", 2_000, None),
            held("one", 4_000, Some(8)),
        ];
        let now = Timestamp::from_millis(10_000).unwrap();
        let all = join(&[one, two], &unsettled, now);
        let names: Vec<&str> = all.iter().map(|one| one.consumer.as_str()).collect();
        assert_eq!(names, ["a b", "one", "two"]);
        let counts = all.iter().map(|one| (one.in_flight, one.live));
        assert_eq!(
            counts.collect::<Vec<_>>(),
            [(1, false), (7, true), (0, true)]
        );
        let held: Vec<u128> = all[1]
            .deliveries
            .iter()
            .map(|one| one.held_for.as_millis())
            .collect();
        assert_eq!(held, [6_000, 1_000]);
        assert_eq!(all[1].longest(), Some(Duration::from_secs(6)));
        assert_eq!(all[2].longest(), None);
        assert_eq!(all[0].deliveries[0].lease_age, None);
    }
}
