//! A running subscription and its handle.

use std::sync::Arc;
use std::time::Duration;

use crate::api::Subscription;
use crate::api::handler::Work;
use crate::api::subscription::{Running, SubscriptionReport};
use crate::bus::Setup;
use crate::domain::{BoxFuture, Error, TopicSettings};
use crate::store::{Member, Opened, Opening};
use crate::worker::core::{Core, SettledCount, Settlements};
use crate::worker::fault::Fault;
use crate::worker::handle::batch::{self, Batches};
use crate::worker::handle::{pipeline, suspects};
use crate::worker::intake::{fetch, reclaim};
use crate::worker::services::dead_letter_janitor::DeadLetterJanitor;
use crate::worker::services::janitor::Janitor;
use crate::worker::services::promoter::{Due, Promoter};
use crate::worker::settle::Settler;
use crate::worker::shutdown;
use crate::worker::tasks::Tasks;

/// Creates the topic and the group if they are missing, and begins to read.
pub(crate) fn start(setup: Setup) -> BoxFuture<'static, Result<Subscription, Error>> {
    Box::pin(begin(setup))
}

async fn begin(setup: Setup) -> Result<Subscription, Error> {
    let Setup {
        store,
        member,
        work,
        options,
        limits,
        ended,
    } = setup;
    let topics = store.topics();
    let settings = topics
        .ensure_topic(member.topic(), TopicSettings::default())
        .await?;
    topics.create_group(&member.at, options.start).await?;
    let opened = store.open(&Opening::of(&member)).await?;

    let (core, settlements) = Core::new(store, member, options, limits, settings, &work);
    core.lease.set(&*core.store, &core.member).await?;
    let core = Arc::new(core);
    let tasks = spawn(&core, opened, work, settlements);
    tracing::info!(subscription = %core.member, consumer = %core.member.consumer, "subscribed");

    let running = RunningSubscription {
        core,
        stage: tokio::sync::Mutex::new(Stage::Running(Box::new((tasks, ended)))),
    };
    Ok(Subscription::new(Arc::new(running)))
}

/// Spawns the tasks of a subscription.
fn spawn(core: &Arc<Core>, opened: Opened, work: Work, settlements: Settlements) -> Tasks {
    let mut tasks = Tasks::default();
    tasks.intake.spawn(fetch::run(Arc::clone(core), opened));
    tasks.intake.spawn(reclaim::run(Arc::clone(core)));

    let concurrency = core.options.concurrency;
    tasks
        .workers
        .spawn(suspects::run(Arc::clone(core), work.clone()));
    match work {
        Work::Each(handler) => {
            for _ in 0..concurrency {
                let (core, handler) = (Arc::clone(core), Arc::clone(&handler));
                tasks.workers.spawn(pipeline::run(core, handler));
            }
        }
        Work::Batches(handler) => {
            let batches = Arc::new(Batches::new(handler));
            for _ in 0..concurrency {
                let (core, batches) = (Arc::clone(core), Arc::clone(&batches));
                tasks.workers.spawn(batch::run(core, batches));
            }
        }
    }

    let (settled, due) = (SettledCount::default(), Arc::<Due>::default());
    let settler = |fault: &Fault| Settler {
        lease: Arc::clone(&core.lease),
        store: Arc::clone(&core.store),
        member: Arc::clone(&core.member),
        in_flight: Arc::clone(&core.in_flight),
        meters: Arc::clone(&core.meters),
        settled: Arc::clone(&settled),
        fault: fault.clone(),
    };
    let acknowledging = settler(&core.faults.acknowledging).acknowledge(settlements.acks);
    let writing = settler(&core.faults.settling).write(settlements.writes, Arc::clone(&due));
    tasks.settlers.spawn(acknowledging);
    tasks.settlers.spawn(writing);

    let keeper = Arc::clone(&core.lease_keeper);
    tasks.services.spawn(keeper.run(core.halt.clone()));
    let promoter = Promoter {
        store: Arc::clone(&core.store),
        member: Arc::clone(&core.member),
        due,
        fault: core.faults.promoting.clone(),
    };
    tasks.services.spawn(promoter.run(core.halt.clone()));
    let janitor = Janitor {
        store: Arc::clone(&core.store),
        member: Arc::clone(&core.member),
        meters: Arc::clone(&core.meters),
        settled,
    };
    tasks.services.spawn(janitor.run(core.halt.clone()));
    if !core.options.dead_letter_retention.is_forever() {
        let janitor = DeadLetterJanitor {
            store: Arc::clone(&core.store),
            member: Arc::clone(&core.member),
            meters: Arc::clone(&core.meters),
            retention: core.options.dead_letter_retention,
        };
        tasks.services.spawn(janitor.run(core.halt.clone()));
    }
    tasks
}

enum Stage {
    Running(Box<(Tasks, Box<dyn FnOnce() + Send>)>),
    Ended(SubscriptionReport),
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
        self.core.faults.problem()
    }

    fn stop(&self) {
        self.core.stop.cancel();
    }

    fn end(self: Arc<Self>, grace: Duration) -> BoxFuture<'static, SubscriptionReport> {
        Box::pin(async move {
            let mut stage = self.stage.lock().await;
            if let Stage::Ended(report) = &*stage {
                return report.clone();
            }
            let last = std::mem::replace(&mut *stage, Stage::Ended(SubscriptionReport::default()));
            let Stage::Running(parts) = last else {
                return SubscriptionReport::default();
            };
            let (tasks, ended) = *parts;
            let report = shutdown::run(&self.core, tasks, grace).await;
            *stage = Stage::Ended(report.clone());
            ended();
            report
        })
    }
}
