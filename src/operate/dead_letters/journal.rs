//! The journal: what operators did to a group and its dead letters.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    DeadLetterFilter, EntryId, Error, Group, Selection, Sweep, SweepAction, Timestamp, Topic,
};
use crate::operate::dead_letters::handle::DeadLetters;
use crate::store::{GroupAt, JournalRow, ResetTo};

/// The journal leaves the ids of an operation out when there are more than this.
const MAX_IDS: usize = 1000;

/// One operation: who did what to which dead letters, and the result.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct JournalEntry {
    /// The operation's id.
    #[serde(rename = "operation")]
    pub id: Uuid,
    /// `redrive`, `publish`, `purge`, `edit`, `reset`, or `settings` for a change of the topic's
    /// settings, with the change as its note.
    pub action: String,
    /// The topic to which the operation published dead letters.
    pub to: Option<Topic>,
    /// Where a reset moved the group: `beginning`, `end` or an entry's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_to: Option<String>,
    /// Who ran the operation, as the caller named the operator.
    pub operator: String,
    /// The operator's note; empty without one.
    pub note: String,
    /// The dead letters that the operation selected; `None` for more than 1,000 ids.
    pub selection: Option<Selection>,
    /// When the operation began, by the clock of the process that began it.
    pub begun: Timestamp,
    /// The newest dead letter that the operation may take.
    pub until: Option<EntryId>,
    /// How many dead letters the operation took; the store counts each in the step that moves it.
    pub taken: u64,
    /// The last dead letter that the operation reached.
    pub cursor: Option<EntryId>,
    /// How the operation ended, in words; `None` while it runs and after an interruption.
    pub result: Option<String>,
}

impl DeadLetters {
    /// The newest hundred operations on a group's dead letters, oldest first.
    ///
    /// # Errors
    ///
    /// The kinds of the connection.
    pub async fn journal(&self, topic: &Topic, group: &Group) -> Result<Vec<JournalEntry>, Error> {
        let rows = self.port().journal(&GroupAt::of(topic, group)).await?;
        let mut entries: Vec<_> = rows.into_iter().filter_map(journal_entry).collect();
        let parts = self.parts(topic, group).await?;
        if parts.len() > 1 {
            // A sweep has a watermark on each partition: the newest of them is that of the whole.
            for at in &parts {
                for row in self.port().journal(at).await? {
                    let until = Order::decode(&row.order).and_then(|order| order.until());
                    if let Some(entry) = entries.iter_mut().find(|entry| entry.id == row.id) {
                        entry.until = entry.until.max(until);
                    }
                }
            }
        }
        Ok(entries)
    }
}

/// An order as the journal stores it. The field names are stored data.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Order {
    action: String,
    by: String,
    /// Milliseconds since 1970.
    begun: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<DeadLetterFilter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    #[serde(default)]
    ramp_millis: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "stopShare")]
    failure_limit: Option<f64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
}

impl Order {
    pub(super) fn of(sweep: &Sweep, until: Option<EntryId>, now: Timestamp) -> Self {
        let (filter, ids) = match &sweep.selection {
            Selection::Matching(filter) => (Some((**filter).clone()), None),
            Selection::Ids(ids) if ids.len() > MAX_IDS => (None, None),
            Selection::Ids(ids) => (None, Some(ids.iter().map(EntryId::to_string).collect())),
        };
        Self {
            action: sweep.action.to_string(),
            by: sweep.operator.clone(),
            begun: now.as_millis(),
            to: match &sweep.action {
                SweepAction::Publish(topic) => Some(topic.to_string()),
                SweepAction::Redrive | SweepAction::Purge => None,
            },
            filter,
            ids,
            until: until.map(|id| id.to_string()),
            reset_to: None,
            rate: sweep.rate.map(|(rate, _)| rate),
            ramp_millis: sweep.rate.map_or(0, |(_, ramp)| ramp.as_millis() as u64),
            failure_limit: sweep.failure_limit,
            note: sweep.note.clone(),
        }
    }

    pub(super) fn edit(id: EntryId, operator: &str, now: Timestamp) -> Self {
        let sweep = Sweep::redrive(id).with_operator(operator);
        Self {
            action: "edit".to_owned(),
            ..Self::of(&sweep, None, now)
        }
    }

    pub(super) fn encode(&self) -> String {
        // The serializer cannot fail on text and numbers.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    fn selection(&self) -> Option<Selection> {
        if let Some(filter) = &self.filter {
            return Some(filter.clone().into());
        }
        let ids = self.ids.as_ref()?;
        let ids: Option<Vec<EntryId>> = ids.iter().map(|id| id.parse().ok()).collect();
        ids.map(Selection::Ids)
    }

    pub(super) fn until(&self) -> Option<EntryId> {
        self.until.as_ref()?.parse().ok()
    }

    /// The sweep of the order; `None` where the journal keeps only a part of it.
    pub(super) fn sweep(&self) -> Option<Sweep> {
        let action = match (self.action.as_str(), &self.to) {
            ("redrive", _) => SweepAction::Redrive,
            ("purge", _) => SweepAction::Purge,
            ("publish", Some(to)) => SweepAction::Publish(Topic::new(to.as_str()).ok()?),
            _ => return None,
        };
        let ramp = std::time::Duration::from_millis(self.ramp_millis);
        Some(Sweep {
            action,
            selection: self.selection()?,
            rate: self.rate.map(|rate| (rate, ramp)),
            failure_limit: self.failure_limit,
            operator: self.by.clone(),
            watermark: None,
            newest: None,
            note: self.note.clone(),
        })
    }
}

/// The order of a reset, as the journal stores it.
pub(in crate::operate) fn reset_order(to: ResetTo, operator: &str, now: Timestamp) -> String {
    let sweep = Sweep::redrive(Vec::new()).with_operator(operator);
    let order = Order {
        action: "reset".to_owned(),
        ids: None,
        reset_to: Some(to.to_string()),
        ..Order::of(&sweep, None, now)
    };
    order.encode()
}

/// The order of a change of the topic's settings, as the journal stores it.
pub(in crate::operate) fn settings_order(change: &str, operator: &str, now: Timestamp) -> String {
    let sweep = Sweep::redrive(Vec::new())
        .with_operator(operator)
        .with_note(change);
    let order = Order {
        action: "settings".to_owned(),
        ids: None,
        ..Order::of(&sweep, None, now)
    };
    order.encode()
}

/// An entry from its stored row. `None` for a row that a newer version wrote in another form.
pub(crate) fn journal_entry(row: JournalRow) -> Option<JournalEntry> {
    let order = Order::decode(&row.order)?;
    Some(JournalEntry {
        id: row.id,
        selection: order.selection(),
        begun: Timestamp::from_millis(order.begun).ok()?,
        until: order.until(),
        to: order.to.as_deref().and_then(|to| Topic::new(to).ok()),
        reset_to: order.reset_to,
        action: order.action,
        operator: order.by,
        note: order.note,
        taken: row.taken,
        cursor: row.cursor,
        result: row.result,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_sweep_survives_the_round_trip_through_the_journal() {
        let id = |text: &str| text.parse::<EntryId>().unwrap();
        let filter = DeadLetterFilter::default().with_tenant("acme");
        for sweep in [
            Sweep::redrive(filter.clone())
                .with_operator("ann")
                .with_note("OPS-7"),
            Sweep::publish(Topic::new("other").unwrap(), filter.clone()),
            Sweep::purge(vec![id("1-2"), id("3-4")]),
            Sweep::redrive(filter)
                .with_rate(7, Duration::from_millis(1500))
                .with_failure_limit(0.25),
        ] {
            let now = Timestamp::from_millis(5).unwrap();
            let order = Order::of(&sweep, Some(id("9-9")), now);
            let again = Order::decode(&order.encode()).unwrap();
            assert_eq!(again.until(), Some(id("9-9")));
            assert_eq!(again.sweep(), Some(sweep));
        }
    }

    #[test]
    fn an_edit_a_reset_and_too_many_ids_cannot_be_resumed() {
        let now = Timestamp::from_millis(5).unwrap();
        let edit = Order::edit(EntryId::default(), "ann", now);
        assert_eq!(Order::decode(&edit.encode()).unwrap().sweep(), None);
        let reset = reset_order(ResetTo::End, "ann", now);
        assert_eq!(Order::decode(&reset).unwrap().sweep(), None);
        let many = (0..=MAX_IDS as u64).map(|millis| EntryId::new(millis, 0));
        let many = Sweep::purge(many.collect::<Vec<_>>());
        let order = Order::of(&many, None, now);
        assert_eq!(Order::decode(&order.encode()).unwrap().sweep(), None);
        assert_eq!(Order::decode("{}"), None);
    }
}
