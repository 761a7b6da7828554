//! Resetting a group: moving its cursor, planned, confirmed, run.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use crate::domain::{EntryId, Error, ErrorKind, Group, Topic};
use crate::operate::dead_letters::{counted, reset_order};
use crate::operate::log_pages;
use crate::operate::plan::{Confirmed, Plan};
use crate::operate::topics::Topics;
use crate::store::{GroupAt, GroupReset, GroupStatus, Partition, ResetTo};

/// How many entries a plan counts at most. Each one travels from the store.
const MOST_COUNTED: u64 = 1000;

/// How many entries of a count travel at once.
const PAGE: usize = 100;

/// What a planned reset of a group will do. [`Display`](fmt::Display) says it in one line for each
/// fact.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedReset {
    /// The topic.
    pub topic: Topic,
    /// The group and its messages now.
    #[serde(flatten)]
    pub status: GroupStatus,
    /// Where the group will go on.
    pub to: ResetTo,
    /// How many entries the group will then get.
    pub next: u64,
    /// Whether there are more entries than `next`, which stops at 1,000 for an id.
    pub more: bool,
    /// Consumers that called the store within [`Topics::LIVE_WITHIN`].
    pub live_consumers: u64,
    /// Whether the store will refuse: the group has live consumers.
    pub refused: bool,
}

impl fmt::Display for PlannedReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, status, .. } = self;
        let next = counted(self.next, "entry", "entries");
        let least = if self.more { "at least " } else { "" };
        write!(
            f,
            "will reset group {} of {topic} to {}: {least}{next} to deliver, in place of {}",
            status.group, self.to, status.lag
        )?;
        if self.next > status.lag {
            write!(
                f,
                "\nthe group will handle messages again that it has handled before"
            )?;
        }
        if self.next <= status.lag && self.more {
            write!(
                f,
                "\nthe group may handle messages again that it has handled before, or skip some"
            )?;
        }
        if self.next < status.lag && !self.more {
            write!(
                f,
                "\nthe group will skip messages, and retention may then remove them for good"
            )?;
        }
        let (in_flight, scheduled) = (status.in_flight, status.scheduled);
        let dead = counted(status.dead, "dead letter", "dead letters");
        if in_flight + scheduled + status.dead > 0 {
            write!(
                f,
                "\n{in_flight} in flight, {scheduled} scheduled and {dead} stay as they are"
            )?;
        }
        if self.live_consumers > 0 {
            let live = counted(self.live_consumers, "live consumer", "live consumers");
            write!(f, "\n{live}")?;
        }
        Ok(())
    }
}

impl Topics {
    /// Plans to move a group's cursor, so that the group gets messages again or skips some. The
    /// operator confirms with the group's name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the topic or the group does not exist, and the kinds of the
    /// connection.
    pub async fn plan_group_reset(
        &self,
        topic: &Topic,
        group: &Group,
        to: ResetTo,
    ) -> Result<Plan<PlannedReset>, Error> {
        let status = self.group(topic, group).await?;
        let consumers = self.consumers(topic, group).await?;
        let live = consumers
            .iter()
            .filter(|one| one.idle_for < Self::LIVE_WITHIN);
        let live_consumers = live.count() as u64;
        let (next, more) = self.count_from(topic, to).await?;
        let planned = PlannedReset {
            topic: topic.clone(),
            status,
            to,
            next,
            more,
            live_consumers,
            refused: live_consumers > 0,
        };
        Ok(Plan::new(planned, Some(group.to_string())))
    }

    /// How many entries a topic holds from a place on, and whether there are more.
    async fn count_from(&self, topic: &Topic, to: ResetTo) -> Result<(u64, bool), Error> {
        let at = Partition::of(topic);
        let first = match to {
            ResetTo::End => return Ok((0, false)),
            ResetTo::Entry(id) => id.before_in_topic(),
            ResetTo::Beginning => None,
        };
        if first.is_none() {
            let status = self.store.inspect().status(&at).await?;
            return Ok((status.map_or(0, |status| status.entries), false));
        }
        let (mut counted, mut after) = (0, first);
        while counted < MOST_COUNTED {
            let page = log_pages::after(&*self.store, &at, after, PAGE).await?;
            counted += page.len() as u64;
            match page.last() {
                Some((last, _)) => after = Some(*last),
                None => return Ok((counted, false)),
            }
        }
        let rest = self.store.log().browse(&at, after, 1).await?;
        Ok((counted, !rest.is_empty()))
    }

    /// Runs a confirmed reset: moves the group's cursor, and writes the operation into the group's
    /// journal under the operator's name.
    ///
    /// The store leaves a group in place that has a consumer which called within
    /// [`LIVE_WITHIN`](Self::LIVE_WITHIN); [`GroupReset::moved`] tells. It checks and moves in one
    /// step. Unsettled deliveries, scheduled retries and dead letters stay: the group can get such a
    /// message a second time.
    ///
    /// After a reset into the middle of more than 10,000 entries, the lag is an upper bound until the
    /// group has read to the end.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the group does not exist any more, and the kinds of the connection.
    ///
    /// # Cancel safety
    ///
    /// The cursor may have moved when the future is dropped. The journal then has an operation without
    /// a result.
    pub async fn run_group_reset(
        &self,
        plan: Confirmed<PlannedReset>,
        operator: &str,
    ) -> Result<GroupReset, Error> {
        let PlannedReset {
            topic, status, to, ..
        } = plan.into_plan();
        let (group, operation) = (status.group, Uuid::now_v7());
        let at = GroupAt::of(&topic, &group);
        let journal = self.store.dead_letters();
        let order = reset_order(to, operator, self.store.now());
        journal.begin_operation(&at, operation, &order).await?;
        let found = self
            .store
            .topics()
            .reset_group(&at, to, Self::LIVE_WITHIN)
            .await?;
        let result =
            found.map_or_else(|| "the group is gone".to_owned(), |reset| reset.to_string());
        tracing::warn!(%topic, %group, %operation, operator, %to, result, "group reset");
        let Some(reset) = found else {
            let error = Error::new(ErrorKind::NotFound, "reset group", "does not exist");
            return Err(error.on(format!("{topic}/{group}")));
        };
        journal.end_operation(&at, operation, &result).await?;
        Ok(reset)
    }
}

/// A reset in words.
impl fmt::Display for GroupReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.moved {
            let place = |id: EntryId| match id == EntryId::default() {
                true => "the beginning".to_owned(),
                // The last id of a millisecond, from a reset to a time.
                false if id.sequence == u64::MAX => {
                    format!("before {}-0", id.millis.saturating_add(1))
                }
                false => format!("after {id}"),
            };
            write!(
                f,
                "moved from {} to {}",
                place(self.before),
                place(self.after)
            )
        } else {
            let live = counted(self.live_consumers, "live consumer", "live consumers");
            write!(f, "not moved: {live}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_which_messages_come_again_and_which_do_not() {
        let mut status = GroupStatus::new(Group::new("billing").unwrap());
        (status.lag, status.dead) = (5, 1);
        let mut planned = PlannedReset {
            topic: Topic::new("orders").unwrap(),
            status,
            to: ResetTo::Beginning,
            next: 9,
            more: false,
            live_consumers: 0,
            refused: false,
        };
        assert_eq!(
            planned.to_string(),
            "will reset group billing of orders to beginning: 9 entries to deliver, in place of 5\n\
             the group will handle messages again that it has handled before\n\
             0 in flight, 0 scheduled and 1 dead letter stay as they are"
        );
        (planned.next, planned.more, planned.status.lag) = (1000, true, 2500);
        assert!(planned.to_string().contains("at least 1000"), "{planned}");
        assert!(planned.to_string().contains("may handle"), "{planned}");
        (planned.more, planned.status.lag) = (false, 5);
        (planned.to, planned.next, planned.status.dead) = (ResetTo::End, 0, 0);
        assert_eq!(
            planned.to_string(),
            "will reset group billing of orders to end: 0 entries to deliver, in place of 5\n\
             the group will skip messages, and retention may then remove them for good"
        );
    }

    #[test]
    fn a_reset_names_both_places() {
        let id = |text: &str| text.parse().unwrap();
        let mut reset = GroupReset::new(id("0-0"), 1);
        assert_eq!(reset.to_string(), "not moved: 1 live consumer");
        (reset.moved, reset.after) = (true, id("7-1"));
        assert_eq!(reset.to_string(), "moved from the beginning to after 7-1");
        (reset.before, reset.after) = (id("7-1"), id("4-18446744073709551615"));
        assert_eq!(reset.to_string(), "moved from after 7-1 to before 5-0");
    }
}
