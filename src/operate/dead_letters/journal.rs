//! What the journal holds of an operation, and reading it back.

use serde::{Deserialize, Serialize};

use crate::api::JournalEntry;
use crate::domain::{DeadLetterFilter, EntryId, Selection, Sweep, SweepAction, Timestamp, Topic};
use crate::store::JournalRow;

/// An operation of more ids than this is not kept whole.
const MOST_IDS: usize = 1000;

/// An order, as the journal keeps it.
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
    rate: Option<u32>,
    #[serde(default)]
    ramp_millis: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_share: Option<f64>,
}

impl Order {
    pub(super) fn of(sweep: &Sweep, until: Option<EntryId>, now: Timestamp) -> Self {
        let (filter, ids) = match &sweep.selection {
            Selection::Matching(filter) => (Some((**filter).clone()), None),
            Selection::Ids(ids) if ids.len() > MOST_IDS => (None, None),
            Selection::Ids(ids) => (None, Some(ids.iter().map(EntryId::to_string).collect())),
        };
        Self {
            action: sweep.action.to_string(),
            by: sweep.by.clone(),
            begun: now.as_millis(),
            to: match &sweep.action {
                SweepAction::Publish(topic) => Some(topic.to_string()),
                SweepAction::Redrive | SweepAction::Purge => None,
            },
            filter,
            ids,
            until: until.map(|id| id.to_string()),
            rate: sweep.rate.map(|(rate, _)| rate),
            ramp_millis: sweep.rate.map_or(0, |(_, ramp)| ramp.as_millis() as u64),
            stop_share: sweep.stop_share,
        }
    }

    pub(super) fn edit(id: EntryId, by: &str, now: Timestamp) -> Self {
        let sweep = Sweep::redrive(id).with_operator(by);
        Self {
            action: "edit".to_owned(),
            ..Self::of(&sweep, None, now)
        }
    }

    pub(super) fn encode(&self) -> String {
        // Text and numbers: no path of the serializer fails on them.
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

    /// The sweep that was ordered, where the journal has all of it.
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
            stop_share: self.stop_share,
            by: self.by.clone(),
        })
    }
}

/// A row of the journal; one that a newer version wrote in another form is left out.
pub(crate) fn operation(row: JournalRow) -> Option<JournalEntry> {
    let order = Order::decode(&row.order)?;
    Some(JournalEntry {
        id: row.id,
        selection: order.selection(),
        begun: Timestamp::from_millis(order.begun).ok()?,
        until: order.until(),
        to: order.to.as_deref().and_then(|to| Topic::new(to).ok()),
        action: order.action,
        by: order.by,
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
    fn a_sweep_comes_back_as_it_was_ordered() {
        let id = |text: &str| text.parse::<EntryId>().unwrap();
        let filter = DeadLetterFilter::default().with_tenant("acme");
        for sweep in [
            Sweep::redrive(filter.clone()).with_operator("ann"),
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
    fn an_edit_and_very_many_ids_cannot_be_resumed() {
        let now = Timestamp::from_millis(5).unwrap();
        let edit = Order::edit(EntryId::default(), "ann", now);
        assert_eq!(Order::decode(&edit.encode()).unwrap().sweep(), None);
        let many = (0..=MOST_IDS as u64).map(|millis| EntryId {
            millis,
            sequence: 0,
        });
        let many = Sweep::purge(many.collect::<Vec<_>>());
        let order = Order::of(&many, None, now);
        assert_eq!(Order::decode(&order.encode()).unwrap().sweep(), None);
        assert_eq!(Order::decode("{}"), None);
    }
}
