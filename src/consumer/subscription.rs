//! A running subscription and its handle.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::batch::{self, Batches};
use super::core::{Core, Due, Trouble};
use super::handler::Work;
use super::held::Held;
use super::meters::Meters;
use super::options::SubscribeOptions;
use super::queue::Queue;
use super::room::Room;
use super::{execute, fetch, lease, promote, reclaim, retain, retain_dead, settle, shutdown};
use crate::backend::{Backend, MAX_BATCH, Member};
use crate::codec::Limits;
use crate::domain::{ConsumerName, Error, Group, Topic, TopicSettings};

/// What a subscription is started with.
pub(crate) struct Setup {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) member: Member,
    pub(crate) work: Work,
    pub(crate) options: SubscribeOptions,
    pub(crate) limits: Limits,
    /// Called once, when the subscription has ended.
    pub(crate) ended: Box<dyn FnOnce() + Send>,
}

/// The tasks of a running subscription.
#[derive(Debug)]
pub(super) struct Tasks {
    /// The fetcher and the reclaimer: whatever takes deliveries.
    pub(super) takers: JoinSet<()>,
    pub(super) workers: JoinSet<()>,
    pub(super) settlers: JoinSet<()>,
    pub(super) keepers: JoinSet<()>,
}

/// Creates topic and group where they are missing, and begins to read.
pub(crate) async fn start(setup: Setup) -> Result<Subscription, Error> {
    let Setup {
        backend,
        member,
        work,
        options,
        limits,
        ended,
    } = setup;
    let settings = backend
        .ensure_topic(&member.topic, TopicSettings::default())
        .await?;
    backend
        .create_group(&member.topic, &member.group, options.start)
        .await?;
    let opened = backend.open(&member).await?;

    // A worker whose settlement finds no place waits: nothing grows without bound.
    let (acks, ack_queue) = mpsc::channel(2 * MAX_BATCH);
    let (writes, write_queue) = mpsc::channel(2 * MAX_BATCH);
    let concurrency = options.concurrency;
    let core = Arc::new(Core {
        meters: Meters::new(&member),
        handler_name: options
            .handler
            .clone()
            .unwrap_or_else(|| work.name().to_owned()),
        room: Room::new(concurrency * work.most_at_once(&options), options.prefetch),
        backend,
        member: Arc::new(member),
        options,
        limits,
        held: Held::default(),
        queue: Queue::default(),
        settings,
        stranded: AtomicBool::new(false),
        promoting: Trouble::default(),
        keeping: Trouble::default(),
        acks,
        writes,
        stop: CancellationToken::new(),
        halt: CancellationToken::new(),
        claiming: tokio::sync::Mutex::new(()),
        due: Due::default(),
        acknowledged: AtomicU64::new(0),
        reading: Trouble::default(),
        writing: Trouble::default(),
        acknowledging: Trouble::default(),
    });

    let mut tasks = Tasks {
        takers: JoinSet::new(),
        workers: JoinSet::new(),
        settlers: JoinSet::new(),
        keepers: JoinSet::new(),
    };
    tasks.takers.spawn(fetch::run(Arc::clone(&core), opened));
    tasks.takers.spawn(reclaim::run(Arc::clone(&core)));
    match work {
        Work::Each(handler) => {
            for _ in 0..concurrency {
                let (core, handler) = (Arc::clone(&core), Arc::clone(&handler));
                tasks.workers.spawn(execute::run(core, handler));
            }
        }
        Work::Batches(handler) => {
            let batches = Arc::new(Batches::new(handler));
            for _ in 0..concurrency {
                let (core, batches) = (Arc::clone(&core), Arc::clone(&batches));
                tasks.workers.spawn(batch::run(core, batches));
            }
        }
    }
    tasks
        .settlers
        .spawn(settle::acknowledge(Arc::clone(&core), ack_queue));
    tasks
        .settlers
        .spawn(settle::write(Arc::clone(&core), write_queue));
    tasks.keepers.spawn(lease::run(Arc::clone(&core)));
    tasks.keepers.spawn(promote::run(Arc::clone(&core)));
    tasks.keepers.spawn(retain::run(Arc::clone(&core)));
    if !core.options.dead_letter_retention.is_forever() {
        tasks.keepers.spawn(retain_dead::run(Arc::clone(&core)));
    }
    tracing::info!(subscription = %core.member, consumer = %core.member.consumer, "subscribed");

    let running = Running {
        core,
        stage: tokio::sync::Mutex::new(Stage::Running(Box::new((tasks, ended)))),
    };
    Ok(Subscription {
        running: Arc::new(running),
    })
}

enum Stage {
    Running(Box<(Tasks, Box<dyn FnOnce() + Send>)>),
    Ended(SubscriptionReport),
}

struct Running {
    core: Arc<Core>,
    stage: tokio::sync::Mutex<Stage>,
}

/// A running subscription.
///
/// Dropping the handle leaves the subscription running until its container is shut down;
/// [`unsubscribe`](Self::unsubscribe) ends it. Cheap to clone.
#[derive(Clone)]
#[must_use = "dropping the handle leaves the subscription running"]
pub struct Subscription {
    running: Arc<Running>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topic", self.topic())
            .field("group", self.group())
            .field("consumer", self.consumer())
            .finish_non_exhaustive()
    }
}

/// What a subscription left when it ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct SubscriptionReport {
    /// `topic/group`.
    pub name: String,
    /// Deliveries that were given back because no handler had begun them: uncounted, and
    /// claimable at once.
    pub released: u64,
    /// Handlers that were cancelled at the deadline. Their deliveries were given back too.
    pub cancelled: u64,
    /// Deliveries that could not be settled or given back; they come back when their lease
    /// ends, and those that were handled are handled again.
    pub unsettled: u64,
}

impl SubscriptionReport {
    /// Whether every delivery that was begun was also finished and settled.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.cancelled == 0 && self.unsettled == 0
    }
}

impl Subscription {
    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.running.core.member.topic
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.running.core.member.group
    }

    /// This consumer's name within the group.
    #[must_use]
    pub fn consumer(&self) -> &ConsumerName {
        &self.running.core.member.consumer
    }

    /// Why it does not work at the moment, if it does not: reading, settling or acknowledging fails.
    /// Each is tried again until it works.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.running.core.trouble()
    }

    /// Begins nothing new from now on; [`unsubscribe`](Self::unsubscribe) does the rest.
    pub(crate) fn stop(&self) {
        self.running.core.stop.cancel();
    }

    /// Ends the subscription and reports what it left.
    ///
    /// Reading stops; what no handler has begun is given back, uncounted; running handlers may
    /// finish until `deadline` has passed; then their [`Delivery`](crate::Delivery) is cancelled
    /// and, a quarter of a second later, their future dropped. Settlements are written. The group and its
    /// messages stay. Calling it again returns the same report. A handler must not wait for the
    /// end of its own subscription: it would wait for itself until the deadline.
    ///
    /// # Cancel safety
    ///
    /// The subscription ends even when the future is dropped.
    pub async fn unsubscribe(&self, deadline: Duration) -> SubscriptionReport {
        // From this moment on, also when another call waits for its turn.
        self.running.core.stop.cancel();
        let running = Arc::clone(&self.running);
        let name = running.core.member.to_string();
        let ending = tokio::spawn(async move {
            let mut stage = running.stage.lock().await;
            if let Stage::Ended(report) = &*stage {
                return report.clone();
            }
            let before =
                std::mem::replace(&mut *stage, Stage::Ended(SubscriptionReport::default()));
            let Stage::Running(parts) = before else {
                return SubscriptionReport::default();
            };
            let (tasks, ended) = *parts;
            let report = shutdown::run(&running.core, tasks, deadline).await;
            *stage = Stage::Ended(report.clone());
            ended();
            report
        });
        // The task can only fail with the runtime that it runs on.
        ending.await.unwrap_or_else(|_| SubscriptionReport {
            name,
            ..SubscriptionReport::default()
        })
    }
}
