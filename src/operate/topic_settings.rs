//! Changing the settings of a topic: planned, confirmed, run.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use crate::domain::{Error, ErrorKind, Retention, Topic, TopicSettings};
use crate::operate::dead_letters::{counted, settings_order};
use crate::operate::doctor::Doctor;
use crate::operate::plan::{Confirmed, Plan};
use crate::operate::topics::Topics;
use crate::store::{GroupAt, Partition};

/// What a planned change of a topic's settings will do. [`Display`](fmt::Display) says it in one line
/// for each fact.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedSettings {
    /// The topic.
    pub topic: Topic,
    /// Its settings now.
    pub before: TopicSettings,
    /// Its settings afterwards.
    pub after: TopicSettings,
    /// Entries in its log.
    pub entries: u64,
    /// Unsettled messages that the topic keeps for its groups; at least this many.
    pub backlog: u64,
}

impl PlannedSettings {
    /// Whether the topic has these settings already.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.before == self.after
    }

    /// Whether retention may remove entries that it keeps now.
    fn removes(&self) -> bool {
        match (self.before.retention(), self.after.retention()) {
            (before, after) if before == after => false,
            (Retention::Count(before), Retention::Count(after)) => after < before,
            (Retention::Age(before), Retention::Age(after)) => after < before,
            (Retention::Settled, _) => false,
            _ => true,
        }
    }
}

/// The backlog limit in words.
fn limit(settings: &TopicSettings) -> String {
    match settings.backlog_limit() {
        u64::MAX => "none".to_owned(),
        limit => limit.to_string(),
    }
}

/// The change, setting by setting.
fn changes(before: &TopicSettings, after: &TopicSettings) -> String {
    let mut changes = Vec::new();
    if before.retention() != after.retention() {
        changes.push(format!(
            "retention from {} to {}",
            before.retention(),
            after.retention()
        ));
    }
    if before.backlog_limit() != after.backlog_limit() {
        changes.push(format!(
            "backlog limit from {} to {}",
            limit(before),
            limit(after)
        ));
    }
    changes.join(", ")
}

impl fmt::Display for PlannedSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topic,
            before,
            after,
            ..
        } = self;
        if self.is_empty() {
            return write!(f, "topic {topic} has these settings already");
        }
        write!(f, "will change topic {topic}: {}", changes(before, after))?;
        if self.removes() {
            let entries = counted(self.entries, "entry", "entries");
            write!(
                f,
                "\nretention can then remove settled entries for good; the topic has {entries}"
            )?;
        }
        if self.backlog >= after.backlog_limit() {
            write!(
                f,
                "\npublishing will fail until groups have settled some of the {} unsettled messages",
                self.backlog
            )?;
        }
        write!(
            f,
            "\na service that creates the topic with other settings will fail when it starts"
        )
    }
}

impl Topics {
    /// Plans to change the settings of a topic. The operator confirms with the topic's name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the topic does not exist, [`ErrorKind::Invalid`] when the settings
    /// have another number of partitions, and the kinds of the connection.
    pub async fn plan_settings(
        &self,
        topic: &Topic,
        after: TopicSettings,
    ) -> Result<Plan<PlannedSettings>, Error> {
        let at = Partition::of(topic);
        let status = self.existing(topic).await?;
        let partitions = status.settings.partitions();
        if after.partitions() != partitions {
            let count = counted(partitions.into(), "partition", "partitions");
            let rule = format!("has {count}; the number is fixed at its creation");
            let error = Error::new(ErrorKind::Invalid, "change topic settings", rule);
            return Err(error.on(topic.as_str()));
        }
        let progress = self.progress(&at).await?;
        let doctor = Doctor::new(self.store.clone());
        let backlog = doctor.backlog(&at, &status, progress.as_ref()).await?;
        let planned = PlannedSettings {
            topic: topic.clone(),
            before: status.settings,
            after,
            entries: status.entries,
            backlog,
        };
        let confirmation = (!planned.is_empty()).then(|| topic.to_string());
        Ok(Plan::new(planned, confirmation))
    }

    /// Runs a confirmed change of settings, and writes it into the journal of each group of the topic
    /// under the operator's name. Returns the settings before the change.
    ///
    /// Retention goes by the new settings at once, publishers within 30 seconds. `FLUSHALL` under
    /// running consumers brings back the settings that they found at their start.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when the topic does not exist any more, [`ErrorKind::Conflict`] when its
    /// settings have changed since the plan, and the kinds of the connection.
    ///
    /// # Cancel safety
    ///
    /// The settings may have changed when the future is dropped.
    pub async fn run_settings(
        &self,
        plan: Confirmed<PlannedSettings>,
        operator: &str,
    ) -> Result<TopicSettings, Error> {
        let PlannedSettings {
            topic,
            before,
            after,
            ..
        } = plan.into_plan();
        // Between the plan and its confirmation another operator may have changed them.
        let now = self.existing(&topic).await?.settings;
        if now != before {
            let rule = format!(
                "the settings have changed since the plan: {}",
                changes(&before, &now)
            );
            let error = Error::new(ErrorKind::Conflict, "change topic settings", rule);
            return Err(error.on(topic.as_str()));
        }
        let change = changes(&before, &after);
        let groups = self.groups(&topic).await?;
        let (journal, operation) = (self.store.dead_letters(), Uuid::now_v7());
        let order = settings_order(&change, operator, self.store.now());
        for status in &groups {
            let at = GroupAt::of(&topic, &status.group);
            journal.begin_operation(&at, operation, &order).await?;
        }
        let found = self.store.topics().change_settings(&topic, after).await?;
        let result = found.map_or("the topic is gone", |_| "changed");
        tracing::warn!(%topic, operator, change, result, "topic settings");
        for status in &groups {
            let at = GroupAt::of(&topic, &status.group);
            journal.end_operation(&at, operation, result).await?;
        }
        found.ok_or_else(|| {
            let error = Error::new(
                ErrorKind::NotFound,
                "change topic settings",
                "does not exist",
            );
            error.on(topic.as_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn planned(before: TopicSettings, after: TopicSettings) -> PlannedSettings {
        PlannedSettings {
            topic: Topic::new("orders").unwrap(),
            before,
            after,
            entries: 7,
            backlog: 5,
        }
    }

    #[test]
    fn a_plan_says_what_the_topic_can_lose() {
        let default = TopicSettings::default();
        let day = default.with_retention(Retention::Age(Duration::from_secs(86_400)));
        let told = planned(day, default.with_backlog_limit(5)).to_string();
        assert_eq!(
            told,
            "will change topic orders: retention from age:86400000 to settled, backlog limit from \
             1000000 to 5\n\
             retention can then remove settled entries for good; the topic has 7 entries\n\
             publishing will fail until groups have settled some of the 5 unsettled messages\n\
             a service that creates the topic with other settings will fail when it starts"
        );
        let told = planned(default, day).to_string();
        assert!(
            !told.contains("remove") && !told.contains("publishing"),
            "{told}"
        );
        assert!(planned(day, day).is_empty());
        let off = planned(default, default.with_backlog_limit(u64::MAX)).to_string();
        assert!(off.contains("from 1000000 to none"), "{off}");
    }
}
