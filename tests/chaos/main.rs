//! Chaos: load and faults by a plan made from a seed, and a check of the recorded history.
//!
//! Without arguments, as the suite runs it, a few short runs of fixed seeds. With `--minutes M`
//! one long run; `--help` tells the rest.

#[path = "../support/mod.rs"]
mod support;

mod checker;
mod crew;
mod exact;
mod ground;
mod grounds;
mod history;
mod load;
mod nature;
mod operator;
mod overload;
mod pipeline;
mod plan;
mod power;
mod proxy;
mod report;
mod run;
mod settings;
mod shim;
mod stores;
mod traps;
mod worker;

use std::time::Duration;

use redstart::Durability;

use exact::How;
use grounds::Place;
use plan::{Fault, Plan};
use proxy::Weather;
use run::Run;
use settings::Settings;
use worker::Role;

/// Seeds of the short runs: in each the append-only file is rewritten, and the server ends after that.
/// Between them they have every fault of a worker. Findings of longer runs have their own tests.
const SEEDS: [u64; 2] = [13854, 24243];

/// The faults of a run with faults that lose data by definition.
const FORGETFUL: [Fault; 4] = [
    Fault::FlushAll,
    Fault::KillServer,
    Fault::Weather(Weather::Cut),
    Fault::ScriptFlush,
];

/// The faults of workers beside several servers, in short runs. Poison messages take long to end.
const WORKERS: &[Fault] = &[
    Fault::Kill,
    Fault::Freeze,
    Fault::DropRuntime,
    Fault::Restart,
    Fault::LostClaims,
];

/// The faults of the short run on a cluster.
const CLUSTER: &[Fault] = &[
    Fault::KillServer,
    Fault::FreezeServer,
    Fault::MoveSlot,
    Fault::Weather(Weather::Cut),
];

/// The same behind sentinels.
const SENTINEL: &[Fault] = &[Fault::KillServer, Fault::FreezeServer, Fault::Failover];

/// How many messages the suite publishes over power cuts.
const FEW: u64 = 6000;
/// How many messages it sends through the pipeline by itself.
const PARCELS: u64 = 400;

fn main() {
    if let Ok(spec) = std::env::var(worker::VARIABLE) {
        return worker::run(&spec);
    }
    let settings = Settings::from_arguments(std::env::args().skip(1));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    let all_hold = runtime.block_on(async {
        match settings.minutes {
            Some(minutes) => long(&settings, minutes).await,
            None => short(&settings).await,
        }
    });
    if !all_hold {
        std::process::exit(1);
    }
}

async fn short(settings: &Settings) -> bool {
    if settings.place != Place::Server {
        return short_of_several(settings).await;
    }
    let mut all_hold = true;
    if settings.wants("power") {
        let (messages, least) = (settings.messages.unwrap_or(FEW), Duration::from_secs(3));
        let level = settings.level;
        let always = power::cut(("always", level), messages, 3, Duration::ZERO).await;
        all_hold &= report::power(settings, &always);
        let everysec = async || power::cut(("everysec", level), messages, 3, least).await;
        if level == Durability::Fsynced {
            // The level waits for the sync of each second.
            all_hold &= report::power(settings, &everysec().await);
        } else if messages > FEW {
            // These settings lose data; the run measures how much.
            report::power(settings, &everysec().await);
            report::power(
                settings,
                &power::cut(("no", level), messages, 3, least).await,
            );
        }
    }
    for overload in overload::OVERLOADS {
        let name = format!("overload, {overload:?}");
        if settings.wants(&name) {
            let figures = overload::run(overload, settings.overload).await;
            all_hold &= report::overload(settings, &name, &figures);
        }
    }
    let mixed: Vec<u64> = settings.seed.map_or(SEEDS.to_vec(), |seed| vec![seed]);
    for seed in mixed {
        let name = format!("mixed, seed {seed}");
        if settings.wants(&name) {
            let plan = brief(seed, plan::OF_WORKERS, plan::OF_GROUND);
            all_hold &= chaos(settings, &name, seed, plan, run::crew(Place::Server)).await;
        }
    }
    let seed = settings.seed.unwrap_or(1);
    let name = format!("exact, seed {seed}");
    if settings.wants(&name) {
        all_hold &= exact(settings, &name, seed).await;
    }
    let name = format!("flushall, seed {seed}");
    if settings.wants(&name) {
        let plan = brief(seed, &[Fault::Freeze, Fault::Restart], &FORGETFUL);
        // The data of registers and claims is lost by definition, and so is that of the pipeline.
        let crew = run::crew(Place::Server).into_iter();
        let crew = crew.filter(|role| !matches!(role, Role::Client | Role::Stages));
        all_hold &= chaos(settings, &name, seed, plan, crew.collect()).await;
    }
    all_hold
}

/// The pipeline by itself; where a number of messages is given, also without faults and without effects.
async fn exact(settings: &Settings, name: &str, seed: u64) -> bool {
    let messages = settings.messages.unwrap_or(PARCELS);
    let figures = exact::run(settings, seed, messages, How::WithFaults).await;
    let mut holds = report::exact(settings, name, &figures);
    if settings.messages.is_some() {
        let quiet = exact::run(settings, seed, messages, How::WithoutFaults).await;
        holds &= report::exact(settings, &format!("{name}, without faults"), &quiet);
        holds &= report::equal(&figures, &quiet);
        // A part of them is enough to show that faults repeat work.
        let part = messages.div_ceil(10);
        let calls = exact::run(settings, seed, part, How::WithoutEffects).await;
        report::exact(settings, &format!("{name}, without effects"), &calls);
        holds &= report::repeats(&calls);
    }
    holds
}

/// The short run of a cluster, or of a primary behind sentinels.
async fn short_of_several(settings: &Settings) -> bool {
    let deck = match settings.place {
        Place::Cluster => CLUSTER,
        _ => SENTINEL,
    };
    let (time, every) = (Duration::from_secs(11), Duration::from_millis(1500));
    let plan = |seed| Plan::once(seed, time, every, WORKERS, deck);
    let fails_over = |seed: &u64| {
        let plan = plan(*seed);
        plan.ground.into_iter().all(grounds::waits_for_failover)
    };
    let seed = settings.seed.or_else(|| (1..).find(fails_over));
    let seed = seed.expect("a seed whose faults wait for failovers");
    let name = format!("{:?}, seed {seed}", settings.place);
    let plan = plan(seed);
    chaos(settings, &name, seed, plan, run::crew(settings.place)).await
}

/// A plan for the suite.
fn brief(seed: u64, of_workers: &[Fault], of_ground: &[Fault]) -> Plan {
    let (time, every) = (Duration::from_secs(11), Duration::from_millis(1500));
    Plan::new(seed, time, every, of_workers, of_ground)
}

async fn long(settings: &Settings, minutes: f64) -> bool {
    let seed = settings.seed.unwrap_or_else(|| fastrand::u64(..));
    let plan = Plan::new(
        seed,
        Duration::from_secs_f64(minutes * 60.0),
        settings.every,
        plan::OF_WORKERS,
        settings.place.faults(),
    );
    let kind = match settings.place {
        Place::Server => "mixed".to_owned(),
        several => format!("{several:?}"),
    };
    let name = format!("{kind}, seed {seed}, {minutes} minutes");
    chaos(settings, &name, seed, plan, run::crew(settings.place)).await
}

async fn chaos(settings: &Settings, name: &str, seed: u64, plan: Plan, crew: Vec<Role>) -> bool {
    let journal = settings.journal(name);
    report::begin(settings, name, &plan, &journal);
    let run = Run {
        place: settings.place,
        seed,
        quiet: Duration::from_millis(1600),
        plan,
        rate: settings.rate,
        partitions: settings.partitions,
        owned: settings.owned,
        crew,
        journal,
    };
    let plan = run.plan.clone();
    let outcome = run.go().await;
    report::end(settings, name, &outcome) && report::effects(&plan, &outcome)
}
