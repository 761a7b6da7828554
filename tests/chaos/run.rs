//! One run: quiet → faults → heal → drain → check.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redstart::{
    Container, Group, Namespace, Topic,
    container::ContainerBuilder,
    topics::{Retention, TopicSettings},
};
use tokio::sync::Mutex;

use crate::checker::{Rules, Verdict, check};
use crate::crew::{Crew, leases};
use crate::grounds::{Ground, Place, Watcher};
use crate::history::{Event, Journal};
use crate::load::max_attempts;
use crate::nature::{self, Nature, ORDERED, ORDERS, OWNED, TOXIC, may_be_lost};
use crate::operator::{Known, list, redrive_some, told};
use crate::pipeline::{self, STAGES};
use crate::plan::{Fault, Plan, Step};
use crate::proxy::Proxy;
use crate::shim::Shim;
use crate::support::{group, settings, topic, until};
use crate::worker::{Numbers, Role, Spec, Work, calm, cure};

/// The settings of a run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) place: Place,
    pub(crate) seed: u64,
    pub(crate) quiet: Duration,
    pub(crate) plan: Plan,
    /// Messages a second.
    pub(crate) rate: u32,
    /// Of each topic, but for those of the pipeline.
    pub(crate) partitions: u16,
    /// Whether the group [`OWNED`] owns partitions.
    pub(crate) owned: bool,
    pub(crate) crew: Vec<Role>,
    /// Where the history is kept.
    pub(crate) journal: PathBuf,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
    pub(crate) connections: u64,
    /// Resident memory in KiB at the start and at the end: of all servers, and of all workers.
    pub(crate) server_memory: (u64, u64),
    pub(crate) worker_memory: (u64, u64),
}

/// How many other messages are published for each message that enters the pipeline.
const SHARE: u32 = 6;
/// How many messages enter the pipeline at once.
const AT_ONCE: u32 = 10;

pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// A connection that is dead without a sign is noticed after some ten seconds, and only then is
/// what it took known to be missing.
const AFTERMATH: Duration = Duration::from_secs(20);
pub(crate) const DRAINS_WITHIN: Duration = Duration::from_secs(45);
const GROUPS: [(&str, &str); 4] = [
    (ORDERS, "billing"),
    OWNED,
    (ORDERED, "billing"),
    (TOXIC, "billing"),
];
/// The fault before all others, after which every cancelled handler must give its message back
/// uncounted.
const RESTART: &str = "Restart of a consumer in the quiet";

pub(crate) fn rules(place: Place) -> Rules {
    Rules {
        max_attempts,
        may_die: |topic, n| Nature::of(topic, n).may_die(),
        gives_back: |fault| fault == RESTART || fault == name_of(Fault::Restart),
        takes_back: place.takes_back(),
        may_be_lost,
        ordered: vec![ORDERED.to_owned()],
        key: nature::key,
        aftermath: AFTERMATH,
        drains_within: DRAINS_WITHIN,
        stages: STAGES.len(),
        is_shared: pipeline::is_shared,
    }
}

/// A crew of the usual size.
pub(crate) fn crew(place: Place) -> Vec<Role> {
    use Role::{Client, Consumer, Operator, Publisher, Single, Stages, Victim};
    let mut crew = vec![
        Publisher, Publisher, Consumer, Consumer, Single, Victim, Victim, Client, Operator,
    ];
    if place == Place::Server {
        // The topics of the pipeline lie in several slots, and a failover can take back what it wrote.
        crew.extend([Stages, Stages]);
    }
    crew
}

impl Run {
    pub(crate) async fn go(self) -> Outcome {
        let began = Instant::now();
        let journal = Journal::open(&self.journal, "run");
        let phase = |name: &str| {
            let name = name.to_owned();
            journal.write(Event::Phase { name });
        };
        let groups = self.groups();
        for (topic, group) in &groups {
            let owned = self.owned && (*topic, *group) == OWNED;
            let (topic, group) = ((*topic).to_owned(), (*group).to_owned());
            journal.write(Event::Group {
                topic,
                group,
                owned,
            });
        }
        phase("quiet");
        let shim = Shim::build();
        let ground = Ground::start(
            self.place,
            self.seed,
            self.partitions,
            shim.another(),
            &journal,
        )
        .await;
        let (url, direct, proxies) = (ground.url(), ground.direct_url(), ground.proxies());
        if let Some(settings) = self.topic_settings() {
            create_topics(&direct, &settings).await;
        }
        if self.has_pipeline() {
            let container = connect(&direct).await.expect("the server has just started");
            pipeline::create(&container).await;
            container.shutdown(Duration::from_secs(1)).await;
        }
        let server = ground.memory();
        let publishers = self.crew.iter().filter(|role| **role == Role::Publisher);
        let rate = self.rate / publishers.count().max(1) as u32;
        let mut crew = Crew::new(
            (self.place, url.clone()),
            self.journal.clone(),
            self.seed,
            (rate, self.owned),
            shim,
        );
        for role in &self.crew {
            crew.start(*role);
        }
        crew.all_work().await;
        let workers = crew.memory();
        let probing = tokio::spawn(probe(ground.watcher(), self.partitions, journal.clone()));
        let entering = self
            .has_pipeline()
            .then(|| tokio::spawn(enter(url, self.rate / SHARE, journal.clone())));
        let (ground, crew) = (Arc::new(Mutex::new(ground)), Arc::new(Mutex::new(crew)));
        let replacing = tokio::spawn(replace_victims(Arc::clone(&crew), journal.clone()));
        tokio::time::sleep(self.quiet).await;
        journal.write(Event::fault(RESTART));
        crew.lock().await.restart_consumer();
        tokio::time::sleep(self.quiet / 2).await;
        journal.write(Event::healed(RESTART));

        phase("faults");
        let done = AtomicBool::new(false);
        tokio::join!(
            strike_workers(&crew, &proxies, &self.plan.workers, &journal, &done),
            strike_ground(&ground, &self.plan.ground, &journal, &done),
        );

        phase("heal");
        tokio::time::sleep(Duration::from_secs(1)).await;
        std::fs::write(calm(&self.journal), "").unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;

        phase("drain");
        let ended = Instant::now();
        let onlooker = onlooker(&direct, &journal, self.seed).await;
        std::fs::write(cure(&self.journal), "").unwrap();
        // Those that publish and redrive end first: whoever looks on finishes their work.
        let at_work = |role| {
            matches!(
                role,
                Role::Consumer | Role::Single | Role::Victim | Role::Stages
            )
        };
        crew.lock().await.dismiss(|role| !at_work(role)).await;
        if let Some(entering) = entering {
            entering.await.unwrap();
        }
        drain(&onlooker, &groups, ended).await;
        replacing.abort();
        let mut crew = crew.lock().await;
        let worker_memory = (workers, crew.memory());
        crew.dismiss(|_| true).await;
        probing.abort();

        phase("check");
        record_dead_letters(&onlooker).await;
        if self.has_pipeline() {
            pipeline::record(&onlooker.container, &journal).await;
        }
        let ground = ground.lock().await;
        let outcome = Outcome {
            verdict: check(&journal.read(), &rules(self.place)),
            took: began.elapsed(),
            connections: ground.connections(),
            server_memory: (server, ground.memory()),
            worker_memory,
        };
        onlooker.container.shutdown(Duration::from_secs(1)).await;
        outcome
    }

    fn has_pipeline(&self) -> bool {
        self.crew.contains(&Role::Stages)
    }

    /// The settings of topics that must exist before a worker uses them.
    fn topic_settings(&self) -> Option<TopicSettings> {
        let settings = TopicSettings::default().with_partitions(self.partitions);
        let mut faults = self.plan.ground.iter();
        if faults.any(|step| step.fault == Fault::FlushAll) {
            // A flush takes the groups along, and entries that one of them settles before another one
            // connects would be removed.
            return Some(settings.with_retention(Retention::Count(10_000_000)));
        }
        (self.partitions > 1).then_some(settings)
    }

    /// The groups that must settle everything.
    fn groups(&self) -> Vec<(&'static str, &'static str)> {
        let stages = STAGES.iter().filter(|_| self.has_pipeline());
        let stages = stages.map(|stage| (*stage, pipeline::GROUP));
        GROUPS.into_iter().chain(stages).collect()
    }
}

/// A container that recognises repeated messages.
pub(crate) async fn entrance(url: &str) -> Container {
    loop {
        let building = builder(url).with_deduplication(pipeline::WINDOW);
        match building.connect().await {
            Ok(container) => return container,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Lets messages enter the pipeline until there is to be calm. The faults of workers spare the process
/// of the run, so it knows every message that has entered.
async fn enter(url: String, per_second: u32, journal: Journal) {
    let container = entrance(&url).await;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * AT_ONCE / per_second.max(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut from = 0;
    while !calm(journal.path()).exists() {
        ticks.tick().await;
        pipeline::enter(&container, &journal, from..from + u64::from(AT_ONCE)).await;
        from += u64::from(AT_ONCE);
    }
    container.shutdown(Duration::from_secs(1)).await;
}

async fn create_topics(url: &str, settings: &TopicSettings) {
    let container = connect(url).await.expect("the server has just started");
    for (on, _) in GROUPS {
        let created = container.topics().create(&topic(on), *settings).await;
        created.expect("nothing has gone wrong yet");
    }
    container.shutdown(Duration::from_secs(1)).await;
}

fn builder(url: &str) -> ContainerBuilder {
    settings()
        .with_redis_url(url)
        .with_namespace(Namespace::new("chaos").unwrap())
        .with_service(group("onlooker"))
}

pub(crate) async fn connect(url: &str) -> Option<Container> {
    builder(url).connect().await.ok()
}

/// What the history calls a fault of a worker.
fn name_of(fault: Fault) -> String {
    format!("{fault:?} of a worker")
}

/// Strikes workers until the plan ends or everything is `done`.
pub(crate) async fn strike_workers(
    crew: &Mutex<Crew>,
    proxies: &[Proxy],
    steps: &[Step],
    journal: &Journal,
    done: &AtomicBool,
) {
    let lose_claims = |loses| proxies.iter().for_each(|proxy| proxy.lose_claims(loses));
    for step in steps {
        if done.load(Ordering::Acquire) {
            return;
        }
        tokio::time::sleep(step.wait).await;
        let name = name_of(step.fault);
        journal.write(Event::fault(&name));
        lose_claims(step.fault == Fault::LostClaims);
        crew.lock().await.strike(*step);
        if !step.fault.is_momentary() {
            tokio::time::sleep(step.lasts).await;
        }
        crew.lock().await.heal(*step);
        lose_claims(false);
        journal.write(Event::healed(&name));
    }
}

/// Replaces the workers that poison messages end.
async fn replace_victims(crew: Arc<Mutex<Crew>>, journal: Journal) {
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        crew.lock().await.replace_victims(&journal);
    }
}

/// Strikes the servers and the network until the plan ends or everything is `done`.
pub(crate) async fn strike_ground(
    ground: &Arc<Mutex<Ground>>,
    steps: &[Step],
    journal: &Journal,
    done: &AtomicBool,
) {
    for step in steps {
        if done.load(Ordering::Acquire) {
            return;
        }
        tokio::time::sleep(step.wait).await;
        let step = *step;
        let mut ground = Arc::clone(ground).lock_owned().await;
        let name = format!("{:?}", step.fault);
        let loses_data = step.fault == Fault::FlushAll;
        let fault = Event::Fault {
            name: name.clone(),
            loses_data,
            topic: None,
        };
        journal.write(fault);
        // In a thread of its own: it takes long, and the workers' faults go on.
        let writing = journal.clone();
        ground = blocking(move || {
            ground.strike(step, &writing);
            ground
        })
        .await;
        if !step.fault.is_momentary() {
            tokio::time::sleep(step.lasts).await;
        }
        blocking(move || ground.heal(step)).await;
        journal.write(Event::Healed { name });
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let working = tokio::task::spawn_blocking(work).await;
    working.expect("every fault begins and ends")
}

/// Looks at the servers and probes the logs until the run ends.
async fn probe(mut watcher: Watcher, partitions: u16, journal: Journal) {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let journal = journal.clone();
        watcher = blocking(move || {
            watcher.look(&journal);
            for topic in [ORDERS, ORDERED, TOXIC] {
                for missing in watcher.probe(topic, partitions) {
                    let topic = topic.to_owned();
                    journal.write(Event::Trimmed { topic, missing });
                }
            }
            watcher
        })
        .await;
    }
}

/// An observer in the run's own process, with a worker's tools.
async fn onlooker(url: &str, journal: &Journal, seed: u64) -> Work {
    let spec = Spec {
        url: url.to_owned(),
        journal: journal.path().to_owned(),
        role: Role::Operator,
        number: u32::MAX,
        seed,
        rate: 0,
        lease: leases(Role::Operator)[1],
        level: String::new(),
        may_lose: false,
        owned: false,
    };
    Work {
        container: until("the server to serve", async || connect(url).await).await,
        journal: journal.clone(),
        numbers: Numbers::of(u32::MAX),
        spec: Arc::new(spec),
        poison: Arc::default(),
        life: 0,
    }
}

/// Redrives the curable dead letters and waits until the groups have drained; gives up after a while.
async fn drain(onlooker: &Work, groups: &[(&str, &str)], since: Instant) {
    let mut open: Vec<(Topic, Group)> = groups
        .iter()
        .map(|(on, of)| (topic(on), group(of)))
        .collect();
    let mut known = Known::new();
    while !open.is_empty() && since.elapsed() < 2 * DRAINS_WITHIN {
        let mut still_open = Vec::new();
        for (on, of) in open {
            // The groups before it are drained, or a stage may pass more messages on to it.
            let waits = of.as_str() == pipeline::GROUP
                && still_open.iter().any(|(_, before)| *before == of);
            let drained = !waits
                && match of.as_str() {
                    pipeline::GROUP => pipeline::is_idle(&onlooker.container, on.as_str()).await,
                    _ => is_drained(onlooker, &on, &of, &mut known).await,
                };
            if drained {
                onlooker.journal.write(Event::Drained {
                    topic: on.to_string(),
                    group: of.to_string(),
                    millis: since.elapsed().as_millis() as u64,
                });
            } else {
                still_open.push((on, of));
            }
        }
        open = still_open;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn is_drained(onlooker: &Work, on: &Topic, of: &Group, known: &mut Known) -> bool {
    let redriven = redrive_some(onlooker, on, of, usize::MAX, known, |_| true).await;
    let Ok(groups) = onlooker.container.topics().groups(on).await else {
        return false;
    };
    let status = groups.into_iter().find(|status| status.group == *of);
    let idle = |status: &redstart::topics::GroupStatus| {
        status.lag + status.in_flight + status.scheduled == 0 && redriven == 0
    };
    status.as_ref().is_some_and(idle)
}

/// Records the remaining dead letters.
async fn record_dead_letters(onlooker: &Work) {
    for (on, of) in GROUPS {
        let letters = list(&onlooker.container, &topic(on), &group(of)).await;
        let letters = letters.expect("the server serves again");
        let events = letters.iter().map(|letter| Event::DeadLettered {
            topic: on.to_owned(),
            group: of.to_owned(),
            letter: told(letter),
        });
        onlooker.journal.write_all(events);
    }
}
