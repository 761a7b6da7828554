//! A running subscription and its handle.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::try_join_all;

use crate::api::Subscription;
use crate::api::handler::Work;
use crate::api::subscription::{Running, SubscriptionReport};
use crate::api::supervise::log;
use crate::bus::Setup;
use crate::domain::{BoxFuture, Error, TopicSettings, panic_text_of};
use crate::store::{Member, Opened, Opening, Store};
use crate::worker::core::{Core, SettledCount, Settlements, may_have_one_attempt};
use crate::worker::fault::Fault;
use crate::worker::handle::batch::{self, Batches};
use crate::worker::handle::{pipeline, suspects};
use crate::worker::hold_back::note::{self, Notes};
use crate::worker::hold_back::timer;
use crate::worker::intake::{fetch, reclaim};
use crate::worker::ownership::{OwnedGroup, OwnedStore, flusher, membership};
use crate::worker::services::dead_letter_janitor::DeadLetterJanitor;
use crate::worker::services::gauges::Gauges;
use crate::worker::services::janitor::Janitor;
use crate::worker::services::promoter::Promoter;
use crate::worker::settle::{Batch, Settler};
use crate::worker::settle_effects::EffectCalls;
use crate::worker::shutdown;
use crate::worker::tasks::Tasks;
use crate::worker::tracks::Track;

/// Creates the topic and the group if they are missing, and begins to read.
pub(crate) fn start(setup: Setup) -> BoxFuture<'static, Result<Subscription, Error>> {
    Box::pin(begin(setup))
}

async fn begin(setup: Setup) -> Result<Subscription, Error> {
    let Setup {
        store,
        member,
        work,
        mut options,
        decoder,
        publishing,
        pace,
        telemetry,
        ended,
    } = setup;
    let topics = store.topics();
    let settings = topics
        .ensure_topic(member.topic(), TopicSettings::default())
        .await?;
    let owned = match &options.ownership {
        Some(ownership) => {
            let ways = (decoder.clone(), may_have_one_attempt(&options, &work));
            let member = Arc::new(member.clone());
            let owned = OwnedGroup::new(Arc::clone(&store), member, ownership, ways);
            owned.create(options.start).await?;
            // Every failure waits in its place or in the store.
            options.hold_back = Duration::ZERO;
            Some(Arc::new(owned))
        }
        None => {
            topics.create_group(&member.at, options.start).await?;
            None
        }
    };
    let store = match &owned {
        Some(owned) => {
            owned.listen().await?;
            Arc::new(OwnedStore(Arc::clone(owned))) as Arc<dyn Store>
        }
        None => store,
    };
    let (mut core, settlements) =
        Core::new(store, member, options, decoder, settings, &work, publishing);
    let openings: Vec<Opening> = core
        .tracks
        .iter()
        .map(|track| core.opening(track))
        .collect();
    let opened = try_join_all(openings.iter().map(|one| core.store.open(one))).await?;
    core.telemetry = telemetry;
    core.capacity.join(pace);
    core.owned = owned;
    if core.owned.is_none() {
        core.lease.set(&*core.store, &core.member).await?;
    }
    let core = Arc::new(core);
    let tasks = spawn(&core, opened, work, settlements);
    log(|| {
        let (subscription, consumer) = (&core.member, &core.member.consumer);
        tracing::info!(%subscription, %consumer, "subscribed");
    });

    let running = RunningSubscription {
        core,
        stage: tokio::sync::Mutex::new(Stage::Running(Box::new((tasks, ended)))),
    };
    Ok(Subscription::new(Arc::new(running)))
}

/// Spawns the tasks of a subscription, each under supervision.
fn spawn(
    core: &Arc<Core>,
    opened: Vec<Opened>,
    work: Work,
    settlements: Vec<Settlements>,
) -> Tasks {
    let mut tasks = Tasks::default();
    let watch = &core.faults.watch;
    let settled = SettledCount::default();
    for (track, opened) in core.tracks.iter().zip(opened) {
        spawn_intake(core, track, opened, &mut tasks);
    }
    for (track, settlements) in core.settling.iter().zip(settlements) {
        spawn_settlers(core, track, settlements, &settled, &mut tasks);
    }

    let concurrency = core.options.concurrency;
    let (alone, all) = (Arc::clone(core), work.clone());
    let suspects = watch.supervise("the worker of suspects", move |_| {
        suspects::run(Arc::clone(&alone), all.clone())
    });
    tasks.workers.spawn(suspects);
    match work {
        Work::Each(handler) => {
            // The crew belongs to the core, so it must not keep the core.
            let (hiring, watch) = (Arc::downgrade(core), watch.clone());
            core.queue.hire(concurrency, move |workers| {
                let Some(core) = hiring.upgrade() else {
                    return;
                };
                let handler = Arc::clone(&handler);
                workers.spawn(watch.supervise("a worker", move |_| {
                    pipeline::run(Arc::clone(&core), Arc::clone(&handler))
                }));
            });
        }
        Work::Batches(handler) => {
            let batches = Arc::new(Batches::new(handler));
            for _ in 0..concurrency {
                let (core, batches) = (Arc::clone(core), Arc::clone(&batches));
                let worker = watch.supervise("a worker", move |_| {
                    batch::run(Arc::clone(&core), Arc::clone(&batches))
                });
                tasks.workers.spawn(worker);
            }
        }
    }

    let waiting = Arc::clone(core);
    let timing = watch.supervise("the timer of retries", move |_| {
        timer::run(Arc::clone(&waiting))
    });
    tasks.services.spawn(timing);

    if let Some(owned) = &core.owned {
        let (member, halt) = (Arc::clone(core), core.halt.clone());
        let group = Arc::clone(owned);
        let owning = watch.supervise("the membership", move |_| {
            membership::run(Arc::clone(&member), Arc::clone(&group), halt.clone())
        });
        tasks.services.spawn(owning);
        let (owned, halt) = (Arc::clone(owned), core.halt.clone());
        let flushing = watch.supervise("the flusher", move |_| {
            flusher::run(Arc::clone(&owned), halt.clone())
        });
        tasks.services.spawn(flushing);
    }
    let (janitor, halt) = (
        Janitor {
            store: Arc::clone(&core.store),
            member: Arc::clone(&core.member),
            settled,
            retention: core.settings.retention(),
            stir: Arc::clone(&core.stir),
        },
        core.halt.clone(),
    );
    let keeping = watch.supervise("the janitor", move |_| janitor.clone().run(halt.clone()));
    tasks.services.spawn(keeping);
    let (gauges, halt) = (
        Gauges {
            meters: Arc::clone(&core.meters),
            in_flight: Arc::clone(&core.in_flight),
            hold_back: Arc::clone(&core.hold_back),
            busy: Arc::clone(&core.busy),
            slots: core.options.concurrency,
            stir: Arc::clone(&core.stir),
        },
        core.halt.clone(),
    );
    let measuring = watch.supervise("the gauges", move |_| gauges.clone().run(halt.clone()));
    tasks.services.spawn(measuring);
    if !core.options.dead_letter_retention.is_forever() {
        let (janitor, halt) = (
            DeadLetterJanitor {
                store: Arc::clone(&core.store),
                member: Arc::clone(&core.member),
                meters: Arc::clone(&core.meters),
                retention: core.options.dead_letter_retention,
            },
            core.halt.clone(),
        );
        let keeping = watch.supervise("the dead-letter janitor", move |_| {
            janitor.clone().run(halt.clone())
        });
        tasks.services.spawn(keeping);
    }
    tasks
}

/// Spawns what brings the deliveries of a track in, and keeps their leases.
fn spawn_intake(core: &Arc<Core>, track: &Arc<Track>, opened: Opened, tasks: &mut Tasks) {
    let watch = &core.faults.watch;
    let (fetching, on, mut opened) = (Arc::clone(core), Arc::clone(track), Some(opened));
    let fetcher = watch.supervise("the fetcher", move |_| {
        fetch::run(Arc::clone(&fetching), Arc::clone(&on), opened.take())
    });
    tasks.intake.spawn(fetcher);
    let (reclaiming, on) = (Arc::clone(core), Arc::clone(track));
    let reclaimer = watch.supervise("the reclaimer", move |again| {
        // The answer of the reclaim that panicked is lost.
        if again {
            on.unseen.note();
        }
        reclaim::run(Arc::clone(&reclaiming), Arc::clone(&on))
    });
    tasks.intake.spawn(reclaimer);
    let (keeper, halt) = (Arc::clone(&track.keeper), core.halt.clone());
    let keeping = watch.supervise("the lease keeper", move |_| {
        Arc::clone(&keeper).run(halt.clone())
    });
    tasks.services.spawn(keeping);
}

/// Spawns what tells the store how the deliveries of a track ended, and brings its retries back.
fn spawn_settlers(
    core: &Arc<Core>,
    track: &Arc<Track>,
    settlements: Settlements,
    settled: &SettledCount,
    tasks: &mut Tasks,
) {
    let (watch, faults) = (&core.faults.watch, &track.faults);
    let due = core.effects.publishing.dues().enter(core.member.topic());
    let settler = |fault: &Fault| Settler::new(core, fault, settled);
    let (acker, acks) = (settler(&faults.acknowledging), Batch::new(settlements.acks));
    let acknowledging = watch.supervise("the settler of acknowledgements", move |_| {
        acker.clone().acknowledge(Arc::clone(&acks))
    });
    tasks.settlers.spawn(acknowledging);
    let (writer, writes) = (settler(&faults.settling), Batch::new(settlements.writes));
    let (committer, calls) = (
        settler(&faults.committing),
        EffectCalls::new(settlements.effects),
    );
    let committing = watch.supervise("the settler of effects", move |_| {
        committer.clone().commit_effects(Arc::clone(&calls))
    });
    tasks.settlers.spawn(committing);
    let noted = Arc::clone(&due);
    let writing = watch.supervise("the settler of writes", move |_| {
        writer
            .clone()
            .write(Arc::clone(&writes), Arc::clone(&noted))
    });
    tasks.settlers.spawn(writing);

    let (noter, notes) = (settler(&faults.noting), Notes::new(settlements.notes));
    let noting_for = Arc::clone(core);
    let noting = watch.supervise("the noter of failures", move |_| {
        note::run(Arc::clone(&noting_for), noter.clone(), Arc::clone(&notes))
    });
    tasks.settlers.spawn(noting);
    let (promoter, halt) = (
        Promoter {
            store: Arc::clone(&core.store),
            member: Arc::clone(&track.member),
            meters: Arc::clone(&core.meters),
            due,
            fault: faults.promoting.clone(),
            stir: Arc::clone(&track.stir),
        },
        core.halt.clone(),
    );
    let promoting = watch.supervise("the promoter", move |_| promoter.clone().run(halt.clone()));
    tasks.services.spawn(promoting);
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
        self.core.problem()
    }

    fn is_dead(&self) -> bool {
        self.core.faults.watch.has_lost_its_runtime()
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
            let ending = AssertUnwindSafe(shutdown::run(&self.core, tasks, grace));
            let report = ending.catch_unwind().await.unwrap_or_else(|panic| {
                let (name, text) = (
                    self.core.member.to_string(),
                    panic_text_of("the shutdown", panic),
                );
                log(|| tracing::error!(subscription = name, text, "the shutdown was cut short"));
                SubscriptionReport {
                    name,
                    // It did not come as far as to count them.
                    unsettled: (self.core.in_flight.len() as u64).max(1),
                    ..SubscriptionReport::default()
                }
            });
            *stage = Stage::Ended(report.clone());
            ended();
            report
        })
    }
}
