//! The pipeline by itself: the same messages without faults, with faults, and with faults but without
//! effects.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redstart::Container;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::checker::{Promise, check};
use crate::crew::Crew;
use crate::grounds::{Ground, Place};
use crate::history::{Event, Journal, Line};
use crate::pipeline::{self, STAGES};
use crate::plan::{Fault, Plan};
use crate::proxy::Weather;
use crate::run::{connect, entrance, rules, strike_ground, strike_workers};
use crate::settings::Settings;
use crate::shim::Shim;
use crate::worker::Role;

const WORKERS: usize = 3;
/// The size of a batch of messages in a long run, and the number of batches in a short one.
const BATCH: u64 = 500;
const BATCHES: u32 = 20;
/// How long messages enter in a short run.
const SHORT: Duration = Duration::from_secs(3);
/// No message is handled for so long: the pipeline does not drain.
const STANDSTILL: Duration = Duration::from_secs(120);
/// Longer than any run.
const LONG: Duration = Duration::from_secs(4 * 3600);

/// How the stages work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum How {
    WithoutFaults,
    WithFaults,
    /// With faults, and one call after the other in place of effects.
    WithoutEffects,
}

/// What a stage has at the end.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct Stage {
    count: u64,
    sum: u64,
    shared: u64,
    outputs: u64,
    distinct: u64,
}

/// What the pipeline has at the end.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) messages: u64,
    pub(crate) stages: Vec<Stage>,
    pub(crate) worker_kills: usize,
    pub(crate) server_kills: usize,
    pub(crate) cuts: usize,
    pub(crate) seconds: f64,
    /// Messages that a stage has passed on before, over all stages.
    pub(crate) again: u64,
    /// What breaks the promise.
    pub(crate) broken: Vec<String>,
}

/// Runs the messages through the pipeline until it is idle.
pub(crate) async fn run(settings: &Settings, seed: u64, messages: u64, how: How) -> Figures {
    let path = settings.journal(&format!("exact {how:?}, seed {seed}"));
    let journal = Journal::open(&path, "run");
    let shim = Shim::build();
    let ground = Ground::start(Place::Server, seed, 1, shim.another(), &journal).await;
    let (url, direct, proxies) = (ground.url(), ground.direct_url(), ground.proxies());
    let onlooker = connect(&direct).await.expect("the server has just started");
    pipeline::create(&onlooker).await;
    let mut crew = Crew::new((Place::Server, url.clone()), path, seed, (0, false), shim);
    for _ in 0..WORKERS {
        crew.start(match how {
            How::WithoutEffects => Role::Calls,
            _ => Role::Stages,
        });
    }
    crew.all_work().await;
    let began = Instant::now();
    let plan = plan(seed, messages, how);
    let (ground, crew) = (Arc::new(Mutex::new(ground)), Mutex::new(crew));
    let done = AtomicBool::new(false);
    let working = async {
        let entrance = entrance(&url).await;
        let (batch, pause) = match is_short(messages) {
            true => (messages.div_ceil(BATCHES.into()), SHORT / BATCHES),
            false => (BATCH, Duration::ZERO),
        };
        let mut from = 0;
        while from < messages {
            let to = messages.min(from + batch);
            pipeline::enter(&entrance, &journal, from..to).await;
            from = to;
            tokio::time::sleep(pause).await;
        }
        let drained = drain(&onlooker).await;
        done.store(true, Ordering::Release);
        entrance.shutdown(Duration::from_secs(1)).await;
        drained
    };
    let (_, _, drained) = tokio::join!(
        strike_workers(&crew, &proxies, &plan.workers, &journal, &done),
        strike_ground(&ground, &plan.ground, &journal, &done),
        working,
    );
    let seconds = began.elapsed().as_secs_f64();
    pipeline::record(&onlooker, &journal).await;
    onlooker.shutdown(Duration::from_secs(1)).await;
    let mut crew = crew.into_inner();
    if drained {
        crew.dismiss(|_| true).await;
    }
    figures(&journal.read(), messages, (seconds, drained))
}

fn is_short(messages: u64) -> bool {
    messages <= crate::FEW
}

/// Kills workers and the server, and cuts connections, until the pipeline is idle.
fn plan(seed: u64, messages: u64, how: How) -> Plan {
    let (time, every) = match is_short(messages) {
        true => (SHORT, Duration::from_millis(600)),
        false => (LONG, Duration::from_millis(2500)),
    };
    let of_ground: &[Fault] = &[Fault::KillServer, Fault::Weather(Weather::Cut)];
    match how {
        How::WithoutFaults => Plan::new(seed, time, every, &[], &[]),
        _ => Plan::new(seed, time, every, &[Fault::Kill], of_ground),
    }
}

/// Waits until every stage is idle, one after the other. False if they come to a standstill.
async fn drain(onlooker: &Container) -> bool {
    let (mut most, mut moved) = (0, Instant::now());
    for stage in STAGES {
        while !pipeline::is_idle(onlooker, stage).await {
            let received = pipeline::received(onlooker).await.unwrap_or(0);
            if received > most {
                (most, moved) = (received, Instant::now());
            } else if moved.elapsed() > STANDSTILL {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    true
}

fn figures(history: &[Line], messages: u64, (seconds, drained): (f64, bool)) -> Figures {
    let (mut stages, mut kills, mut server_kills, mut cuts) = (Vec::new(), 0, 0, 0);
    for line in history {
        match &line.event {
            Event::Stage {
                count,
                sum,
                shared,
                passed,
                ..
            } => stages.push(Stage {
                count: *count,
                sum: *sum,
                shared: *shared,
                outputs: passed.len() as u64,
                distinct: passed.iter().collect::<BTreeSet<_>>().len() as u64,
            }),
            Event::Fault { name, .. } if name.starts_with("KillServer") => server_kills += 1,
            Event::Fault { name, .. } if name.starts_with("Kill") => kills += 1,
            Event::Fault { .. } => cuts += 1,
            _ => {}
        }
    }
    let mut broken: Vec<String> = check(history, &rules(Place::Server))
        .violations
        .into_iter()
        .map(|one| format!("{}: {}", one.promise, one.what))
        .collect();
    if !drained {
        broken.push(format!("{}: nothing more was passed on", Promise::Drains));
    }
    Figures {
        messages,
        again: stages
            .iter()
            .map(|stage| stage.outputs - stage.distinct)
            .sum(),
        stages,
        worker_kills: kills,
        server_kills,
        cuts,
        seconds,
        broken,
    }
}
