//! One measurement for all visitors of a moment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::container::Container;
use crate::domain::{Error, Group, Timestamp, Topic, describe};
use crate::operate::doctor::{Doctor, DoctorReport};
use crate::operate::gauges::TopicGauges;

/// The time limit of a measurement.
const LIMIT: Duration = Duration::from_secs(5);

/// How long the figures stay good for another visitor.
const FRESH: Duration = Duration::from_millis(900);

/// How long the doctor's report stays good.
const EXAMINED: Duration = Duration::from_secs(15);

/// Between two points of a sparkline, and how many it has: 15 minutes.
const POINT: Duration = Duration::from_secs(15);
const POINTS: usize = 60;

/// A topic and a group.
pub(super) type Pair = (Topic, Group);

/// The figures of one moment.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// By the store's clock.
    pub(super) at: Timestamp,
    pub(super) topics: Vec<TopicGauges>,
    /// Died in the current hour, by the count of that hour.
    pub(super) died: BTreeMap<Pair, u64>,
}

/// The newest figures, and why they are not of now.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) figures: Option<Arc<Figures>>,
    /// The age of the figures and the reason, where the newest measurement failed.
    pub(super) stale: Option<(Duration, String)>,
    /// How long the newest measurement took.
    pub(super) took: Duration,
}

#[derive(Default)]
struct State {
    latest: Option<(Instant, Arc<Figures>)>,
    failed: Option<(Instant, String)>,
    took: Duration,
}

/// Measures for visitors, and keeps the result for a moment.
pub(super) struct Poll {
    container: Container,
    doctor: Doctor,
    state: tokio::sync::Mutex<State>,
    report: tokio::sync::Mutex<Option<(Instant, Arc<DoctorReport>)>>,
    history: Mutex<History>,
}

/// A group at one of the last moments, 15 seconds or more apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Point {
    pub(super) lag: u64,
    /// Entries delivered a minute since the point before; `None` where the store does not know.
    pub(super) delivered: Option<u64>,
    /// The age of the oldest undelivered entry, in seconds.
    pub(super) oldest: u64,
}

/// The points of each group, and its newest counter of delivered entries.
#[derive(Default)]
struct History {
    last: Option<Instant>,
    points: BTreeMap<Pair, (VecDeque<Point>, Option<u64>)>,
}

impl History {
    /// Adds a point to each group, if the last one is old enough.
    fn remember(&mut self, figures: &Figures, now: Instant) {
        let apart = self.last.map(|last| now - last);
        if apart.is_some_and(|apart| apart < POINT) {
            return;
        }
        self.last = Some(now);
        let mut all = BTreeMap::new();
        for topic in &figures.topics {
            for group in &topic.groups {
                let pair = (topic.topic.clone(), group.group.clone());
                let (mut points, before) = self.points.remove(&pair).unwrap_or_default();
                // A counter that fell was reset, and says nothing.
                let grown = || group.delivered?.checked_sub(before?);
                let per_minute = |grown: u64| {
                    let seconds = apart.unwrap_or(POINT).as_secs_f64();
                    (grown as f64 * 60.0 / seconds).round() as u64
                };
                if points.len() == POINTS {
                    points.pop_front();
                }
                points.push_back(Point {
                    lag: group.lag,
                    delivered: grown().map(per_minute),
                    oldest: group.oldest_undelivered.map_or(0, |age| age.as_secs()),
                });
                all.insert(pair, (points, group.delivered));
            }
        }
        // Groups that no longer exist leave with the old map.
        self.points = all;
    }
}

impl Poll {
    pub(super) fn new(container: Container, doctor: Doctor) -> Self {
        Self {
            container,
            doctor,
            state: tokio::sync::Mutex::default(),
            report: tokio::sync::Mutex::default(),
            history: Mutex::default(),
        }
    }

    /// The figures of this moment. Visitors at once wait for the same measurement; after a failure
    /// they get the newest figures that exist, with the reason.
    pub(super) async fn look(&self) -> Seen {
        let mut state = self.state.lock().await;
        let at = state.latest.as_ref().map(|(at, _)| *at);
        let tried = at.max(state.failed.as_ref().map(|(at, _)| *at));
        if tried.is_none_or(|at| at.elapsed() >= FRESH) {
            let began = Instant::now();
            let measured = timeout(LIMIT, self.measure()).await;
            state.took = began.elapsed();
            match measured {
                Ok(Ok(figures)) => {
                    self.remember(&figures);
                    *state = State {
                        latest: Some((Instant::now(), Arc::new(figures))),
                        failed: None,
                        took: state.took,
                    };
                }
                Ok(Err(error)) => state.failed = Some((Instant::now(), describe(&error))),
                Err(_) => {
                    let why = format!("the server did not answer within {} s", LIMIT.as_secs());
                    state.failed = Some((Instant::now(), why));
                }
            }
        }
        let age = state.latest.as_ref().map(|(at, _)| at.elapsed());
        Seen {
            figures: state
                .latest
                .as_ref()
                .map(|(_, figures)| Arc::clone(figures)),
            stale: state
                .failed
                .as_ref()
                .map(|(_, why)| (age.unwrap_or_default(), why.clone())),
            took: state.took,
        }
    }

    async fn measure(&self) -> Result<Figures, Error> {
        let topics = self.container.topics().gauges().await?;
        let at = self.container.store().now();
        let hour = u64::try_from(at.as_millis()).unwrap_or(0) / 3_600_000;
        let dead = self.container.dead_letters();
        let mut died = BTreeMap::new();
        for topic in &topics {
            for group in topic.groups.iter().filter(|group| group.dead > 0) {
                let counts = dead.hours(&topic.topic, &group.group, &[hour]).await?;
                if let Some(count) = counts.first().filter(|count| **count > 0) {
                    died.insert((topic.topic.clone(), group.group.clone()), *count);
                }
            }
        }
        Ok(Figures { at, topics, died })
    }

    fn remember(&self, figures: &Figures) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.remember(figures, Instant::now());
    }

    /// The last 15 minutes of a group, the oldest first.
    pub(super) fn history(&self, pair: &Pair) -> Vec<Point> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let points = history.points.get(pair);
        points.map_or_else(Vec::new, |(points, _)| points.iter().copied().collect())
    }

    /// The doctor's report, at most 15 seconds old.
    pub(super) async fn examine(&self) -> Arc<DoctorReport> {
        let mut report = self.report.lock().await;
        if let Some((at, report)) = &*report
            && at.elapsed() < EXAMINED
        {
            return Arc::clone(report);
        }
        let examined = Arc::new(self.doctor.run().await);
        *report = Some((Instant::now(), Arc::clone(&examined)));
        examined
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::gauges::GroupGauges;

    fn figures(lag: u64, delivered: Option<u64>, oldest: Option<u64>) -> Figures {
        let group = GroupGauges {
            group: Group::from_static("billing"),
            lag,
            delivered,
            in_flight: 0,
            scheduled: 0,
            dead: 0,
            consumers: 1,
            oldest_undelivered: oldest.map(Duration::from_secs),
            oldest_in_flight: None,
            next_retry: None,
            held_back: None,
            ownerless: None,
        };
        Figures {
            at: Timestamp::from_millis(0).unwrap(),
            topics: vec![TopicGauges {
                topic: Topic::from_static("orders"),
                entries: 0,
                appended: None,
                backlog: 0,
                backlog_limit: None,
                groups: vec![group],
            }],
            died: BTreeMap::new(),
        }
    }

    #[test]
    fn a_history_has_lag_rate_and_age_of_the_last_moments() {
        let (mut history, begin) = (History::default(), Instant::now());
        let pair = (Topic::from_static("orders"), Group::from_static("billing"));
        for (second, figures) in [
            (0, figures(9, Some(100), Some(70))),
            // Too early for a point.
            (14, figures(1, Some(120), None)),
            (20, figures(4, Some(150), Some(5))),
            // The server was started anew.
            (40, figures(0, Some(3), None)),
            (60, figures(0, None, None)),
        ] {
            history.remember(&figures, begin + Duration::from_secs(second));
        }
        let point = |lag, delivered, oldest| Point {
            lag,
            delivered,
            oldest,
        };
        let expected = [
            point(9, None, 70),
            point(4, Some(150), 5),
            point(0, None, 0),
            point(0, None, 0),
        ];
        assert!(
            history.points[&pair].0.iter().eq(&expected),
            "{:?}",
            history.points
        );
        for n in 0..80 {
            let at = begin + Duration::from_secs(100 + n * 15);
            history.remember(&figures(n, None, None), at);
        }
        let (points, _) = &history.points[&pair];
        assert_eq!((points.len(), points[0].lag), (POINTS, 20));
        let mut none = figures(0, None, None);
        none.topics.clear();
        history.remember(&none, begin + Duration::from_secs(10_000));
        assert!(history.points.is_empty());
    }
}
