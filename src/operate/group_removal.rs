//! Removing a group: planned, confirmed, run.

use std::fmt;

use serde::Serialize;

use crate::domain::{Error, ErrorKind, Group, Topic};
use crate::operate::dead_letters::counted;
use crate::operate::plan::{Confirmed, Plan};
use crate::operate::topics::Topics;
use crate::store::{GroupAt, GroupRemoval, GroupStatus};

/// What a planned removal of a group will do. [`Display`](fmt::Display) says it in one line for
/// each fact.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedRemoval {
    /// The topic.
    pub topic: Topic,
    /// The group and the messages that it would lose.
    #[serde(flatten)]
    pub status: GroupStatus,
    /// Consumers that called the store within [`Topics::LIVE_WITHIN`].
    pub live_consumers: u64,
    /// Whether the removal goes on although the group is in use.
    pub force: bool,
    /// Whether the store will refuse: the group is in use, and `force` is not set.
    pub refused: bool,
}

impl fmt::Display for PlannedRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, status, .. } = self;
        let what = describe(status, self.live_consumers);
        write!(
            f,
            "will remove group {} of {topic} for good: {what}",
            status.group
        )?;
        if self.live_consumers > 0 {
            write!(
                f,
                "\nits live consumers will create it again and start at the oldest entry of the topic"
            )?;
        }
        Ok(())
    }
}

/// The messages and live consumers of a group, in words.
pub(super) fn describe(status: &GroupStatus, live_consumers: u64) -> String {
    let GroupStatus {
        lag,
        in_flight,
        scheduled,
        dead,
        ..
    } = status;
    let dead = counted(*dead, "dead letter", "dead letters");
    let live = counted(live_consumers, "live consumer", "live consumers");
    format!("{lag} not delivered, {in_flight} in flight, {scheduled} scheduled, {dead}, {live}")
}

pub(super) fn is_in_use(status: &GroupStatus, live_consumers: u64) -> bool {
    status.lag + status.in_flight + status.scheduled + status.dead + live_consumers > 0
}

impl Topics {
    /// Plans the removal of a group: its cursor, its unsettled messages, its retries and its dead
    /// letters. The operator confirms with the group's name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the topic or the group does not exist, and the kinds of the
    /// connection.
    pub async fn plan_group_removal(
        &self,
        topic: &Topic,
        group: &Group,
        force: bool,
    ) -> Result<Plan<PlannedRemoval>, Error> {
        let status = self.group(topic, group).await?;
        let consumers = self.consumers(topic, group).await?;
        let live = consumers
            .iter()
            .filter(|one| one.idle_for < Self::LIVE_WITHIN);
        let live_consumers = live.count() as u64;
        let planned = PlannedRemoval {
            topic: topic.clone(),
            refused: !force && is_in_use(&status, live_consumers),
            status,
            live_consumers,
            force,
        };
        Ok(Plan::new(planned, Some(group.to_string())))
    }

    /// Runs a confirmed removal, see [`remove_group`](Self::remove_group).
    ///
    /// # Errors
    ///
    /// As [`remove_group`](Self::remove_group).
    pub async fn run_group_removal(
        &self,
        plan: Confirmed<PlannedRemoval>,
    ) -> Result<GroupRemoval, Error> {
        let plan = plan.into_plan();
        self.remove_group(&plan.topic, &plan.status.group, plan.force)
            .await
    }

    /// Removes a group for good: its cursor, its unsettled messages, its retries and its dead
    /// letters. The topic's entries and the other groups stay.
    ///
    /// Without `force` the store leaves a group in place that has unsettled messages, retries,
    /// dead letters, or a consumer that called within [`LIVE_WITHIN`](Self::LIVE_WITHIN);
    /// [`GroupRemoval::removed`] tells. The store checks and removes in one step. With `force`,
    /// stop the group's consumers first: live ones create the group again and start at the oldest
    /// entry of the topic.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the group does not exist, and the kinds of the connection.
    ///
    /// # Cancel safety
    ///
    /// The group may be gone when the future is dropped.
    pub async fn remove_group(
        &self,
        topic: &Topic,
        group: &Group,
        force: bool,
    ) -> Result<GroupRemoval, Error> {
        let (topics, at) = (self.store.topics(), GroupAt::of(topic, group));
        let found = topics.remove_group(&at, Self::LIVE_WITHIN, force);
        let Some(removal) = found.await? else {
            let rule = "does not exist";
            let error = Error::new(ErrorKind::NotFound, "remove group", rule);
            return Err(error.on(format!("{topic}/{group}")));
        };
        if removal.removed {
            let GroupStatus {
                lag,
                in_flight,
                scheduled,
                dead,
                ..
            } = removal.status;
            tracing::warn!(%topic, %group, force, lag, in_flight, scheduled, dead, "group removed");
            metrics::counter!("redstart_groups_removed_total", "topic" => topic.to_string(), "group" => group.to_string())
                .increment(1);
        }
        Ok(removal)
    }
}

/// A removal in words.
impl fmt::Display for GroupRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = describe(&self.status, self.live_consumers);
        let group = &self.status.group;
        if self.removed {
            write!(f, "removed group {group}: {what}")
        } else {
            write!(f, "kept group {group}, which is in use: {what}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_in_use_with_messages_or_live_consumers() {
        let mut status = GroupStatus {
            group: Group::new("billing").unwrap(),
            lag: 0,
            in_flight: 0,
            scheduled: 0,
            dead: 0,
            consumers: 3,
            owned: false,
        };
        assert!(
            !is_in_use(&status, 0),
            "consumers that are gone do not count"
        );
        assert!(is_in_use(&status, 1));
        status.dead = 1;
        assert!(is_in_use(&status, 0));
        let planned = PlannedRemoval {
            topic: Topic::new("orders").unwrap(),
            status,
            live_consumers: 1,
            force: true,
            refused: false,
        };
        assert_eq!(
            planned.to_string(),
            "will remove group billing of orders for good: 0 not delivered, 0 in flight, \
             0 scheduled, 1 dead letter, 1 live consumer\n\
             its live consumers will create it again and start at the oldest entry of the topic"
        );
    }
}
