//! The figures of groups, and their rates over the last seconds.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use redstart::topics::{GroupGauges, TopicGauges};

/// Over how long a rate is taken.
const WINDOW: Duration = Duration::from_secs(10);

/// A group, or a topic that has none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) topic: String,
    pub(super) group: Option<GroupGauges>,
    /// Entries published to the topic a second.
    pub(super) published: Option<f64>,
    /// Entries delivered to the group a second.
    pub(super) delivered: Option<f64>,
    /// Messages that died within the window.
    pub(super) died: u64,
}

impl Row {
    /// The group with its topic, in one word.
    pub(super) fn name(&self) -> String {
        match &self.group {
            Some(group) => format!("{}/{}", self.topic, group.group),
            None => self.topic.clone(),
        }
    }

    pub(super) fn lag(&self) -> u64 {
        self.group.as_ref().map_or(0, |group| group.lag)
    }
}

/// Counters of one moment.
#[derive(Debug)]
struct Sample {
    at: Instant,
    /// By the name of a topic.
    appended: HashMap<String, u64>,
    /// Delivered entries and dead letters, by the name of a row.
    groups: HashMap<String, (Option<u64>, u64)>,
}

/// The samples of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Figures {
    samples: VecDeque<Sample>,
}

impl Figures {
    /// Takes a measurement, and returns the rows.
    pub(super) fn take(&mut self, topics: Vec<TopicGauges>, now: Instant) -> Vec<Row> {
        let mut sample = Sample {
            at: now,
            appended: HashMap::new(),
            groups: HashMap::new(),
        };
        let mut rows = Vec::new();
        for gauges in topics {
            let topic = gauges.topic.to_string();
            if let Some(appended) = gauges.appended {
                sample.appended.insert(topic.clone(), appended);
            }
            let groups = gauges.groups.into_iter().map(Some);
            let mut groups: Vec<Option<GroupGauges>> = groups.collect();
            if groups.is_empty() {
                groups.push(None);
            }
            for group in groups {
                let mut row = Row {
                    topic: topic.clone(),
                    group,
                    published: None,
                    delivered: None,
                    died: 0,
                };
                if let Some(group) = &row.group {
                    let counts = (group.delivered, group.dead);
                    sample.groups.insert(row.name(), counts);
                }
                self.compare(&mut row, &sample);
                rows.push(row);
            }
        }
        self.samples.push_back(sample);
        // One sample from before the window stays: rates reach back to it.
        while self
            .samples
            .get(1)
            .is_some_and(|one| now - one.at >= WINDOW)
        {
            self.samples.pop_front();
        }
        rows
    }

    /// Fills the rates of a row, from the oldest sample that has it.
    fn compare(&self, row: &mut Row, now: &Sample) {
        let Some(then) = self.samples.front() else {
            return;
        };
        let seconds = (now.at - then.at).as_secs_f64();
        // A counter that fell was reset, and says nothing.
        let rate = |before: Option<u64>, after: Option<u64>| {
            let grown = after?.checked_sub(before?)?;
            (seconds > 0.0).then(|| grown as f64 / seconds)
        };
        let of_topic = |sample: &Sample| sample.appended.get(&row.topic).copied();
        row.published = rate(of_topic(then), of_topic(now));
        let name = row.name();
        if let (Some(then), Some(now)) = (then.groups.get(&name), now.groups.get(&name)) {
            row.delivered = rate(then.0, now.0);
            row.died = now.1.saturating_sub(then.1);
        }
    }
}

/// Topics as a server would measure them, for the tests of this folder.
#[cfg(test)]
pub(super) mod fixture {
    use redstart::memory::MemoryStore;
    use redstart::{Container, Group, Topic};

    use super::*;

    /// The gauges of an empty topic with groups.
    pub(in crate::commands::top) fn gauges(topic: &str, groups: &[&str]) -> TopicGauges {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let builder = Container::builder().with_memory(MemoryStore::new());
            let container = builder.connect().await.unwrap();
            let topic = Topic::new(topic).unwrap();
            let topics = container.topics();
            topics.create(&topic, Default::default()).await.unwrap();
            for group in groups {
                let at = redstart::store::GroupAt::of(&topic, &Group::new(*group).unwrap());
                let start = redstart::store::StartFrom::Beginning;
                container
                    .store()
                    .topics()
                    .create_group(&at, start)
                    .await
                    .unwrap();
            }
            topics.gauges().await.unwrap().remove(0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(appended: u64, delivered: u64, dead: u64) -> Vec<TopicGauges> {
        let mut topic = fixture::gauges("orders", &["billing"]);
        topic.appended = Some(appended);
        topic.groups[0].delivered = Some(delivered);
        topic.groups[0].dead = dead;
        vec![topic, fixture::gauges("empty", &[])]
    }

    #[test]
    fn rates_go_back_ten_seconds() {
        let (mut figures, begin) = (Figures::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let rows = figures.take(measured(100, 90, 1), at(0));
        assert_eq!(rows.len(), 2, "a topic without groups has a row");
        assert_eq!((rows[0].published, rows[0].died), (None, 0));
        let rows = figures.take(measured(120, 100, 4), at(10));
        assert_eq!(
            (rows[0].published, rows[0].delivered),
            (Some(2.0), Some(1.0))
        );
        assert_eq!((rows[0].died, rows[1].published), (3, None));
        // The first sample is older than the window now.
        let rows = figures.take(measured(120, 100, 4), at(20));
        let rows_then = figures.take(measured(120, 100, 4), at(21));
        assert_eq!(rows[0].published, Some(1.0));
        assert_eq!((rows_then[0].published, rows_then[0].died), (Some(0.0), 0));
        let reset = figures.take(measured(5, 100, 0), at(22));
        assert_eq!((reset[0].published, reset[0].died), (None, 0));
    }
}
