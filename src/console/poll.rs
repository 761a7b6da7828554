//! One measurement for all visitors of a moment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::container::Container;
use crate::domain::{CountBy, Error, Group, Timestamp, Topic, describe, hour_name};
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

#[derive(Default)]
struct History {
    last: Option<Instant>,
    lags: BTreeMap<Pair, VecDeque<u64>>,
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
        let (hour, dead) = (hour_name(hour), self.container.dead_letters());
        let mut died = BTreeMap::new();
        for topic in &topics {
            for group in topic.groups.iter().filter(|group| group.dead > 0) {
                let counts = dead
                    .counts(&topic.topic, &group.group, CountBy::Hour)
                    .await?;
                let count = counts.iter().find(|(name, _)| *name == hour);
                if let Some((_, count)) = count {
                    died.insert((topic.topic.clone(), group.group.clone()), *count);
                }
            }
        }
        Ok(Figures { at, topics, died })
    }

    fn remember(&self, figures: &Figures) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.last.is_some_and(|last| last.elapsed() < POINT) {
            return;
        }
        history.last = Some(Instant::now());
        let mut lags = BTreeMap::new();
        for topic in &figures.topics {
            for group in &topic.groups {
                let pair = (topic.topic.clone(), group.group.clone());
                let mut points = history.lags.remove(&pair).unwrap_or_default();
                if points.len() == POINTS {
                    points.pop_front();
                }
                points.push_back(group.lag);
                lags.insert(pair, points);
            }
        }
        // Groups that no longer exist leave with the old map.
        history.lags = lags;
    }

    /// The lags of a group, the oldest first, a point for each 15 seconds.
    pub(super) fn lags(&self, pair: &Pair) -> Vec<u64> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let points = history.lags.get(pair);
        points.map_or_else(Vec::new, |points| points.iter().copied().collect())
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
