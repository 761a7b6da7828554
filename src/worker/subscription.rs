//! A running subscription and its handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::Subscription;
use crate::api::handler::Work;
use crate::api::options::SubscribeOptions;
use crate::api::subscription::{Running, SubscriptionReport};
use crate::domain::{BoxFuture, Error, TopicSettings};
use crate::store::{MAX_BATCH, Member, Store};
use crate::wire::Limits;
use crate::worker::core::{Core, Due, Fault};
use crate::worker::handle::batch::{self, Batches};
use crate::worker::handle::execute;
use crate::worker::intake::capacity::Capacity;
use crate::worker::intake::in_flight::InFlight;
use crate::worker::intake::queue::Queue;
use crate::worker::intake::{fetch, reclaim};
use crate::worker::meters::Meters;
use crate::worker::services::{dead_letter_janitor, janitor, lease_keeper, promoter};
use crate::worker::{settle, shutdown};

/// What a subscription is started with.
pub(crate) struct Setup {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Member,
    pub(crate) work: Work,
    pub(crate) options: SubscribeOptions,
    pub(crate) limits: Limits,
    /// Called once, when the subscription has ended.
    pub(crate) ended: Box<dyn FnOnce() + Send>,
}

/// The tasks of a running subscription.
#[derive(Debug)]
pub(crate) struct Tasks {
    /// The fetcher and the reclaimer: whatever takes deliveries.
    pub(crate) takers: JoinSet<()>,
    pub(crate) workers: JoinSet<()>,
    pub(crate) settlers: JoinSet<()>,
    pub(crate) keepers: JoinSet<()>,
}

/// Creates topic and group where they are missing, and begins to read.
pub(crate) async fn start(setup: Setup) -> Result<Subscription, Error> {
    let Setup {
        store,
        member,
        work,
        options,
        limits,
        ended,
    } = setup;
    let settings = store
        .ensure_topic(&member.topic, TopicSettings::default())
        .await?;
    store
        .create_group(&member.topic, &member.group, options.start)
        .await?;
    let opened = store.open(&member).await?;

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
        room: Capacity::new(concurrency * work.most_at_once(&options), options.prefetch),
        store,
        member: Arc::new(member),
        options,
        limits,
        held: InFlight::default(),
        queue: Queue::default(),
        settings,
        stranded: AtomicBool::new(false),
        promoting: Fault::default(),
        keeping: Fault::default(),
        acks,
        writes,
        stop: CancellationToken::new(),
        halt: CancellationToken::new(),
        claiming: tokio::sync::Mutex::new(()),
        due: Due::default(),
        acknowledged: AtomicU64::new(0),
        reading: Fault::default(),
        writing: Fault::default(),
        acknowledging: Fault::default(),
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
    tasks.keepers.spawn(lease_keeper::run(Arc::clone(&core)));
    tasks.keepers.spawn(promoter::run(Arc::clone(&core)));
    tasks.keepers.spawn(janitor::run(Arc::clone(&core)));
    if !core.options.dead_letter_retention.is_forever() {
        tasks
            .keepers
            .spawn(dead_letter_janitor::run(Arc::clone(&core)));
    }
    tracing::info!(subscription = %core.member, consumer = %core.member.consumer, "subscribed");

    let running = RunningSubscription {
        core,
        stage: tokio::sync::Mutex::new(Stage::Running(Box::new((tasks, ended)))),
    };
    Ok(Subscription::new(Arc::new(running)))
}

enum Stage {
    Running(Box<(Tasks, Box<dyn FnOnce() + Send>)>),
    SweepEnd(SubscriptionReport),
}

struct RunningSubscription {
    core: Arc<Core>,
    stage: tokio::sync::Mutex<Stage>,
}

impl Running for RunningSubscription {
    fn member(&self) -> &Member {
        &self.core.member
    }

    fn problem(&self) -> Option<String> {
        self.core.trouble()
    }

    fn stop(&self) {
        self.core.stop.cancel();
    }

    fn end(self: Arc<Self>, deadline: Duration) -> BoxFuture<'static, SubscriptionReport> {
        Box::pin(async move {
            let mut stage = self.stage.lock().await;
            if let Stage::SweepEnd(report) = &*stage {
                return report.clone();
            }
            let before =
                std::mem::replace(&mut *stage, Stage::SweepEnd(SubscriptionReport::default()));
            let Stage::Running(parts) = before else {
                return SubscriptionReport::default();
            };
            let (tasks, ended) = *parts;
            let report = shutdown::run(&self.core, tasks, deadline).await;
            *stage = Stage::SweepEnd(report.clone());
            ended();
            report
        })
    }
}
