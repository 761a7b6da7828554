//! Random sequences of operations against a model, the memory adapter and Redis: after every
//! step all must agree on what was handed out, on every answer and on where messages are.
//!
//! `REDSTART_MODEL_CASES` says how many sequences are run (by default 300), `REDSTART_MODEL_SEED`
//! repeats a run. A failing sequence is shrunk to the shortest one.

#[path = "../support/mod.rs"]
mod support;

mod model;
mod system;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use redstart::store::{Disposition, Lane};
use redstart::topics::{Retention, TopicSettings};

use model::{End, Label, Model};
use support::{Server, builder, topic};
use system::{System, Time};

/// Groups and consumers by number; picks are places in a list, as far as it goes.
#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    Fetch {
        group: u8,
        consumer: u8,
        max: usize,
    },
    Ack {
        group: u8,
        consumer: u8,
        picks: Vec<u8>,
    },
    Settle {
        group: u8,
        consumer: u8,
        ends: Vec<(u8, End)>,
    },
    Extend {
        group: u8,
        consumer: u8,
        picks: Vec<u8>,
    },
    Release {
        group: u8,
        consumer: u8,
        picks: Vec<u8>,
    },
    /// The owners of all deliveries are dead, and a consumer takes over.
    Crash {
        group: u8,
        heir: u8,
    },
    /// A consumer takes over the released deliveries.
    Reclaim {
        group: u8,
        consumer: u8,
    },
    Promote {
        group: u8,
        max: usize,
    },
    Tomorrow,
    Redrive {
        group: u8,
        picks: Vec<u8>,
    },
    /// As it is, as operators do.
    RedriveAsItIs {
        group: u8,
        picks: Vec<u8>,
    },
    Purge {
        group: u8,
        picks: Vec<u8>,
    },
    Trim,
    KeepHouse {
        group: u8,
    },
    NewGroup {
        from_the_beginning: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let group = || 0..3_u8;
    let consumer = || 0..2_u8;
    let picks = || prop::collection::vec(any::<u8>(), 1..5);
    let end = prop_oneof![
        Just(End::Now),
        Just(End::Soon),
        Just(End::Tomorrow),
        Just(End::DeadLetter)
    ];
    let ends = prop::collection::vec((any::<u8>(), end), 1..4);
    let step = prop_oneof![
        4 => (1..6_u8).prop_map(Step::Publish),
        6 => (group(), consumer(), 1..6_usize)
            .prop_map(|(group, consumer, max)| Step::Fetch { group, consumer, max }),
        4 => (group(), consumer(), picks())
            .prop_map(|(group, consumer, picks)| Step::Ack { group, consumer, picks }),
        5 => (group(), consumer(), ends)
            .prop_map(|(group, consumer, ends)| Step::Settle { group, consumer, ends }),
        1 => (group(), consumer(), picks())
            .prop_map(|(group, consumer, picks)| Step::Extend { group, consumer, picks }),
        2 => (group(), consumer(), picks())
            .prop_map(|(group, consumer, picks)| Step::Release { group, consumer, picks }),
        1 => (group(), consumer()).prop_map(|(group, heir)| Step::Crash { group, heir }),
        2 => (group(), consumer()).prop_map(|(group, consumer)| Step::Reclaim { group, consumer }),
        4 => (group(), 1..4_usize).prop_map(|(group, max)| Step::Promote { group, max }),
        1 => Just(Step::Tomorrow),
        2 => (group(), picks()).prop_map(|(group, picks)| Step::Redrive { group, picks }),
        2 => (group(), picks()).prop_map(|(group, picks)| Step::RedriveAsItIs { group, picks }),
        1 => (group(), picks()).prop_map(|(group, picks)| Step::Purge { group, picks }),
        2 => Just(Step::Trim),
        1 => group().prop_map(|group| Step::KeepHouse { group }),
        1 => any::<bool>().prop_map(|beginning| Step::NewGroup { from_the_beginning: beginning }),
    ];
    prop::collection::vec(step, 1..60)
}

/// Picks of a list, each at most once.
fn pick<T: Clone + PartialEq>(from: &[T], picks: &[u8]) -> Vec<T> {
    let mut picked: Vec<T> = Vec::new();
    for place in picks {
        // The newest are of the most interest.
        let back = usize::from(*place) % from.len().clamp(1, 12);
        if let Some(one) = from.len().checked_sub(back + 1).map(|at| &from[at])
            && !picked.contains(one)
        {
            picked.push(one.clone());
        }
    }
    picked
}

macro_rules! agree {
    ($systems:ident, $what:expr, $expected:expr, |$system:ident| $asked:expr) => {
        let expected = $expected;
        for $system in $systems.iter_mut() {
            let answer = $asked.await;
            prop_assert_eq!(&answer, &expected, "{}: {}", $system.name, $what);
        }
    };
}

async fn run(
    retention: Retention,
    steps: &[Step],
    systems: &mut [System],
) -> Result<(), TestCaseError> {
    let mut model = Model::new(retention);
    for group in 0..2 {
        model.create(group, true);
        for system in systems.iter_mut() {
            system.create(group, true).await;
        }
    }
    for (at, step) in steps.iter().enumerate() {
        take(&mut model, systems, step).await?;
        let what = format!("after step {at}, {step:?}");
        let groups: Vec<u8> = model.groups.keys().copied().collect();
        let counts = groups.iter().map(|group| model.counts(*group)).collect();
        agree!(systems, what, (model.length(), counts), |system| system
            .counts());
        for group in groups {
            for consumer in 0..2 {
                let held = model.pending_of(group, consumer);
                agree!(systems, what, held, |system| system
                    .pending_of(group, consumer));
            }
            let dead = model.dead(group).to_vec();
            agree!(systems, what, dead, |system| system.dead(group));
        }
    }
    Ok(())
}

/// Some of the deliveries that a group ever got.
fn seen(model: &Model, group: u8, picks: &[u8]) -> Vec<(Lane, Label)> {
    pick(&model.groups[&group].ever_seen, picks)
}

fn labels(picked: &[(Lane, Label)]) -> Vec<&str> {
    picked.iter().map(|(_, label)| label.as_str()).collect()
}

async fn take(model: &mut Model, systems: &mut [System], step: &Step) -> Result<(), TestCaseError> {
    // The third group may not be there yet.
    let known = |group: u8| {
        if model.groups.contains_key(&group) {
            group
        } else {
            0
        }
    };
    match step {
        Step::Publish(count) => {
            let new: Vec<Label> = (0..*count).map(|_| model.label()).collect();
            model.publish(&new);
            for system in systems.iter_mut() {
                system.publish(&new).await;
            }
        }
        Step::Fetch {
            group,
            consumer,
            max,
        } => {
            let group = known(*group);
            let handed = model.fetch(group, *consumer, *max);
            agree!(systems, "fetch", handed, |system| system
                .fetch(group, *consumer, *max));
        }
        Step::Ack {
            group,
            consumer,
            picks,
        } => {
            let group = known(*group);
            let picked = seen(model, group, picks);
            for (lane, label) in &picked {
                model.acknowledge(group, *lane, label);
            }
            for system in systems.iter_mut() {
                system.acknowledge(group, *consumer, &labels(&picked)).await;
            }
        }
        Step::Settle {
            group,
            consumer,
            ends,
        } => {
            settle(model, systems, known(*group), *consumer, ends).await?;
        }
        Step::Extend {
            group,
            consumer,
            picks,
        } => {
            let group = known(*group);
            let picked = seen(model, group, picks);
            let extend =
                |(lane, label): &(Lane, Label)| model.extend(group, *consumer, *lane, label);
            let held: Vec<bool> = picked.iter().map(extend).collect();
            let labels = labels(&picked);
            agree!(systems, "extend", held, |system| system
                .extend(group, *consumer, &labels));
        }
        Step::Release {
            group,
            consumer,
            picks,
        } => {
            let group = known(*group);
            let picked = seen(model, group, picks);
            let mut held = 0;
            for (lane, label) in &picked {
                held += u64::from(model.release(group, *consumer, *lane, label));
            }
            let labels = labels(&picked);
            agree!(systems, "release", held, |system| system
                .release(group, *consumer, &labels));
        }
        Step::Crash { group, heir } => {
            let group = known(*group);
            let handed = model.reclaim(group, *heir, true);
            agree!(systems, "crash", handed, |system| system
                .reclaim(group, *heir, true));
        }
        Step::Reclaim { group, consumer } => {
            let group = known(*group);
            let handed = model.reclaim(group, *consumer, false);
            agree!(systems, "reclaim", handed, |system| system
                .reclaim(group, *consumer, false));
        }
        Step::Promote { group, max } => {
            let group = known(*group);
            let moved = model.promote(group, *max);
            agree!(systems, "promote", moved, |system| system
                .promote(group, *max));
        }
        Step::Tomorrow => {
            model.pass(model::DAY);
            systems.iter_mut().for_each(System::tomorrow);
        }
        Step::Redrive { group, picks } => {
            let group = known(*group);
            let picked = pick(&model.groups[&group].ever_dead, picks);
            let moves: Vec<(Label, Label)> = picked
                .into_iter()
                .map(|label| (label, model.label()))
                .collect();
            let redrive = |(label, redelivery): &(Label, Label)| {
                model.take_dead(group, label, Some(redelivery.clone()))
            };
            let moved: Vec<bool> = moves.iter().map(redrive).collect();
            agree!(systems, "redrive", moved, |system| system
                .redrive(group, &moves));
        }
        Step::RedriveAsItIs { group, picks } => {
            let group = known(*group);
            let picked = pick(&model.groups[&group].ever_dead, picks);
            let redrive = |label: &Label| model.take_dead(group, label, Some(label.clone()));
            let moved: Vec<bool> = picked.iter().map(redrive).collect();
            agree!(systems, "redrive as it is", moved, |system| system
                .take_out(group, &picked, Disposition::Requeue));
        }
        Step::Purge { group, picks } => {
            let group = known(*group);
            let picked = pick(&model.groups[&group].ever_dead, picks);
            let purge = |label: &Label| model.take_dead(group, label, None);
            let there: Vec<bool> = picked.iter().map(purge).collect();
            agree!(systems, "purge", there, |system| system.take_out(
                group,
                &picked,
                Disposition::Discard
            ));
        }
        Step::Trim => {
            let found = model.trim();
            agree!(systems, "trim", found, |system| system.trim());
        }
        Step::KeepHouse { group } => {
            let group = known(*group);
            for system in systems.iter_mut() {
                system.keep_house(group).await;
            }
        }
        Step::NewGroup { from_the_beginning } => {
            model.create(2, *from_the_beginning);
            for system in systems.iter_mut() {
                system.create(2, *from_the_beginning).await;
            }
        }
    }
    Ok(())
}

async fn settle(
    model: &mut Model,
    systems: &mut [System],
    group: u8,
    consumer: u8,
    ends: &[(u8, End)],
) -> Result<(), TestCaseError> {
    let picks: Vec<u8> = ends.iter().map(|(place, _)| *place).collect();
    let picked = seen(model, group, &picks);
    // Retries that are due at the same millisecond have no order, so each gets its own millisecond.
    for ((lane, label), (_, end)) in picked.into_iter().zip(ends) {
        let as_what = model.label();
        let settled = model.settle(group, consumer, (lane, &label), *end, as_what.clone());
        model.pass(1);
        let one = [(label, *end, as_what)];
        agree!(systems, "settle", vec![settled], |system| system
            .settle(group, consumer, &one));
    }
    Ok(())
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Runs sequences until one fails; the failure names the sequence and its seed.
fn check(cases: u64, systems: impl AsyncFn(TopicSettings) -> Vec<System>) {
    let seed = number("REDSTART_MODEL_SEED", fastrand::u64(..));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let retention = prop_oneof![
        Just(Retention::Settled),
        (0..8_u64).prop_map(Retention::Count)
    ];
    let outcome =
        TestRunner::new_with_rng(config, rng).run(&(retention, steps()), |(retention, steps)| {
            runtime.block_on(async {
                let settings = TopicSettings::default().with_retention(retention);
                let mut systems = systems(settings).await;
                run(retention, &steps, &mut systems).await
            })
        });
    match outcome {
        Ok(()) => println!("{cases} sequences agree (REDSTART_MODEL_SEED={seed})"),
        Err(TestError::Fail(why, (retention, steps))) => panic!(
            "{why}\nretention {retention}\n{steps:#?}\nto see it again: REDSTART_MODEL_SEED={seed}"
        ),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_memory_adapter_agrees_with_the_model() {
    let cases = number("REDSTART_MODEL_CASES", 300);
    check(cases, async |settings| {
        vec![System::in_memory(settings).await]
    });
}

#[test]
fn redis_and_memory_agree_with_the_model() {
    let cases = number("REDSTART_MODEL_CASES", 300);
    // Nodes of one entry, so that trimming whole nodes is trimming exactly. Nothing has to last.
    let settings = ["--stream-node-max-entries", "1", "--appendonly", "no"];
    let server = Arc::new(Server::start_with(&settings));
    let made = AtomicU32::new(0);
    check(cases, async |settings| {
        let container = builder(&server).connect().await.unwrap();
        let name = format!("t{}", made.fetch_add(1, Ordering::Relaxed));
        let time = Time::Redis(Arc::clone(&server));
        let redis = System::new("redis", container.store(), topic(&name), settings, time).await;
        vec![System::in_memory(settings).await, redis]
    });
}
