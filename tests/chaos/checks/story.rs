//! Histories in the making.

use std::time::Duration;

use crate::checker::{Promise, Rules, check};
use crate::history::{End, Event, Fate, Letter, Line};

/// Messages from here on may not become dead letters.
pub(crate) const LIVES: u64 = 100;
/// The message that replaces the shared value.
pub(crate) const SHARED: u64 = 4;

pub(crate) fn rules() -> Rules {
    Rules {
        max_attempts: |_| 3,
        may_die: |_, n| n < LIVES,
        gives_back: |fault| fault == "a restart",
        takes_back: |fault| fault == "a failover",
        may_be_lost: |n| n % 2 == 1,
        ordered: vec!["ordered".to_owned()],
        key: |n| Some(format!("key {}", n % 10)),
        aftermath: Duration::from_micros(10),
        drains_within: Duration::from_secs(1),
        stages: 1,
        is_shared: |n| n == SHARED,
    }
}

/// A history in the making: each event a hundred microseconds after the one before.
pub(crate) struct Story(pub(crate) Vec<Line>);

impl Story {
    pub(crate) fn new() -> Self {
        Self::of(false)
    }

    /// A history of an owned group.
    pub(crate) fn owned() -> Self {
        Self::of(true)
    }

    fn of(owned: bool) -> Self {
        let mut story = Self(Vec::new());
        for topic in ["orders", "ordered"] {
            let (topic, group) = (topic.to_owned(), "billing".to_owned());
            story.add(Event::Group {
                topic,
                group,
                owned,
            });
        }
        story
    }

    pub(crate) fn add(&mut self, event: Event) -> &mut Self {
        let at = self.0.len() as u64 * 100;
        let by = "a test".to_owned();
        self.0.push(Line { at, by, event });
        self
    }

    pub(crate) fn published(&mut self, n: u64, fate: Fate) -> &mut Self {
        let topic = "orders".to_owned();
        self.add(Event::Publish {
            topic: topic.clone(),
            n,
        });
        self.add(Event::Published { topic, n, fate })
    }

    pub(crate) fn begun(&mut self, topic: &str, n: u64, entry: &str, attempt: u32) -> &mut Self {
        self.add(Event::Begun {
            topic: topic.to_owned(),
            group: "billing".to_owned(),
            n,
            entry: entry.to_owned(),
            consumer: "one".to_owned(),
            attempt,
            token: None,
        })
    }

    pub(crate) fn ended(&mut self, n: u64, attempt: u32, end: End) -> &mut Self {
        self.add(Event::Returned {
            topic: "orders".to_owned(),
            group: "billing".to_owned(),
            n,
            consumer: "one".to_owned(),
            attempt,
            end,
        })
    }

    pub(crate) fn handled(&mut self, n: u64, attempt: u32, end: End) -> &mut Self {
        let entry = format!("{n}-0");
        self.begun("orders", n, &entry, attempt)
            .ended(n, attempt, end)
    }

    pub(crate) fn dead_lettered(
        &mut self,
        n: Option<u64>,
        record: &str,
        attempts: u32,
    ) -> &mut Self {
        self.dead_as("crashed", n, record, attempts)
    }

    pub(crate) fn dead_as(
        &mut self,
        reason: &str,
        n: Option<u64>,
        record: &str,
        attempts: u32,
    ) -> &mut Self {
        self.add(Event::DeadLettered {
            topic: "orders".to_owned(),
            group: "billing".to_owned(),
            letter: letter(reason, n, record, attempts),
        })
    }

    pub(crate) fn redrive(&mut self, call: u64, n: u64, done: Option<bool>) -> &mut Self {
        self.add(Event::Redrive {
            topic: "orders".to_owned(),
            group: "billing".to_owned(),
            call,
            records: vec![("1-0".to_owned(), n)],
        });
        let done = done.map(|done| vec!["1-0".to_owned(); usize::from(done)]);
        self.add(Event::Moved { call, done })
    }

    pub(crate) fn listed(&mut self, n: u64) -> &mut Self {
        let since = self.0.len() as u64 * 100;
        self.listed_since(since, Some(n))
    }

    pub(crate) fn listed_since(&mut self, since: u64, n: Option<u64>) -> &mut Self {
        self.add(Event::Listed {
            topic: "orders".to_owned(),
            group: "billing".to_owned(),
            since,
            letters: vec![letter("rejected", n, "1-0", 1)],
        })
    }

    pub(crate) fn fault(&mut self, name: &str, loses_data: bool) -> &mut Self {
        let name = name.to_owned();
        self.add(Event::Fault {
            name,
            loses_data,
            topic: None,
        })
    }

    pub(crate) fn fault_of(&mut self, topic: &str, name: &str) -> &mut Self {
        self.add(Event::Fault {
            name: name.to_owned(),
            loses_data: false,
            topic: Some(topic.to_owned()),
        })
    }

    pub(crate) fn healed(&mut self, name: &str) -> &mut Self {
        let name = name.to_owned();
        self.add(Event::Healed { name })
    }

    pub(crate) fn drained(&mut self, millis: u64) -> &mut Self {
        for topic in ["orders", "ordered"] {
            self.add(Event::Drained {
                topic: topic.to_owned(),
                group: "billing".to_owned(),
                millis,
            });
        }
        self
    }

    pub(crate) fn broken(&mut self) -> Vec<Promise> {
        self.drained(5);
        check(&self.0, &rules()).broken()
    }
}

pub(crate) fn letter(reason: &str, n: Option<u64>, record: &str, attempts: u32) -> Letter {
    Letter {
        record: record.to_owned(),
        n,
        entry: "9-9".to_owned(),
        reason: reason.to_owned(),
        attempts,
        redriven: 0,
    }
}
