//! A worker process: it connects a container and plays its role until it is dismissed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redstart::{Container, ErrorKind, Namespace};
use serde::{Deserialize, Serialize};

use crate::history::{Event, Journal, now};
use crate::nature::{self, ORDERED, ORDERS, OWNED, TOXIC};
use crate::pipeline::{self, Writing};
use crate::support::worker::{END, orders, say};
use crate::support::{PATIENCE, group, settings};
use crate::{load, operator, stores};

/// The environment variable that makes this program a worker.
pub(crate) const VARIABLE: &str = "REDSTART_CHAOS_WORKER";

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Role {
    Publisher,
    Consumer,
    /// The one consumer of the ordered topic.
    Single,
    /// A consumer of the topic with poison messages, which end its process.
    Victim,
    Client,
    Operator,
    /// A consumer of all stages of the pipeline.
    Stages,
    /// The same, which writes one call after the other.
    Calls,
}

/// The settings of a worker process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Spec {
    pub(crate) url: String,
    pub(crate) journal: PathBuf,
    pub(crate) role: Role,
    /// Unique within the run.
    pub(crate) number: u32,
    pub(crate) seed: u64,
    /// Messages a second, of a publisher.
    pub(crate) rate: u32,
    pub(crate) lease: Duration,
    /// The level of durability of a publisher.
    pub(crate) level: String,
    /// Whether the numbers of its messages say that they may be lost: the ground has several servers,
    /// and the level is accepted.
    pub(crate) may_lose: bool,
    /// Whether the group [`OWNED`](nature::OWNED) owns partitions.
    pub(crate) owned: bool,
}

/// The order to publish poison messages; their number follows.
pub(crate) const POISON: &str = "poison ";
/// The order to shut down as in a deployment, within [`GRACE`], and to exit.
pub(crate) const LEAVE: &str = "leave";

const GRACE: Duration = Duration::from_secs(2);

/// Numbers that no other worker uses.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    next: Arc<AtomicU64>,
}

impl Numbers {
    pub(crate) fn of(process: u32) -> Self {
        Self::from(u64::from(process) << 32)
    }

    /// The same, for messages that may be lost.
    pub(crate) fn that_may_be_lost(process: u32) -> Self {
        Self::from(nature::that_may_be_lost(u64::from(process) << 32))
    }

    fn from(first: u64) -> Self {
        Self {
            next: Arc::new(AtomicU64::new(first)),
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Shared by the parts of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) container: Container,
    pub(crate) journal: Journal,
    pub(crate) numbers: Numbers,
    pub(crate) spec: Arc<Spec>,
    /// How many poison messages a publisher has still to publish.
    pub(crate) poison: Arc<AtomicU32>,
    /// Tells this container's consumers from those of the one before it in the same process.
    pub(crate) life: u64,
}

impl Work {
    /// Whether the cause of curable failures is fixed.
    pub(crate) fn is_cured(&self) -> bool {
        cure(self.journal.path()).exists()
    }
}

/// The file that says that curable messages no longer fail.
pub(crate) fn cure(journal: &std::path::Path) -> PathBuf {
    journal.with_extension("cured")
}

/// The file that says that publishers and clients are to stop.
pub(crate) fn calm(journal: &std::path::Path) -> PathBuf {
    journal.with_extension("calm")
}

/// Works until the order [`END`] or [`LEAVE`]. The order `drop` throws the runtime away in the middle
/// of its work; `restart` shuts the container down within milliseconds. Both then connect a new
/// container.
pub(crate) fn run(spec: &str) {
    // Handlers panic on purpose.
    std::panic::set_hook(Box::new(|_| {}));
    let spec: Spec = serde_json::from_str(spec).unwrap();
    let spec = Arc::new(spec);
    let journal = Journal::open(&spec.journal, &format!("{:?}-{}", spec.role, spec.number));
    let numbers = match spec.may_lose {
        true => Numbers::that_may_be_lost(spec.number),
        false => Numbers::of(spec.number),
    };
    let mut orders = orders();
    let poison = Arc::<AtomicU32>::default();
    loop {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (spec, journal) = (Arc::clone(&spec), journal.clone());
        let (numbers, to_publish) = (numbers.clone(), Arc::clone(&poison));
        let work = runtime.spawn(async move {
            let work = Work {
                container: connect(&spec).await,
                journal,
                life: numbers.next(),
                numbers,
                poison: to_publish,
                spec,
            };
            begin(&work).await;
            say("working");
            work
        });
        let order = loop {
            let order = orders.blocking_recv();
            let order = order.expect("the reader of orders runs on");
            match order.strip_prefix(POISON) {
                Some(count) => poison.fetch_add(count.parse().unwrap(), Ordering::AcqRel),
                None => break order,
            };
        };
        if order == "drop" {
            runtime.shutdown_background();
            continue;
        }
        let deadline = match &*order {
            END => PATIENCE,
            LEAVE => GRACE,
            _ => Duration::from_millis(50),
        };
        runtime.block_on(async {
            let work = work.await.unwrap();
            let report = work.container.shutdown(deadline).await;
            assert!(order != END || report.is_clean(), "{report:?}");
        });
        runtime.shutdown_background();
        if order == END || order == LEAVE {
            return;
        }
    }
}

/// Writes to the history whenever this process's clock has jumped away from the machine's.
async fn watch_clock(journal: Journal) {
    let mut was_wrong = false;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let is_wrong = Duration::from_micros(now()).abs_diff(mine) > Duration::from_secs(60);
        if is_wrong && !was_wrong {
            journal.write(Event::WrongClock);
        }
        was_wrong = is_wrong;
    }
}

async fn connect(spec: &Spec) -> Container {
    loop {
        let connecting = settings()
            .with_redis_url(&spec.url)
            .with_namespace(Namespace::new("chaos").unwrap())
            .with_service(group("billing"))
            .connect();
        match connecting.await {
            Ok(container) => return container,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn begin(work: &Work) {
    tokio::spawn(watch_clock(work.journal.clone()));
    match work.spec.role {
        Role::Publisher => {
            load::groups_exist(work).await;
            load::publish(work);
        }
        Role::Consumer => {
            load::consume(work, ORDERS, "billing", 8).await;
            load::consume(work, OWNED.0, OWNED.1, 8).await;
        }
        Role::Single => load::consume(work, ORDERED, "billing", 1).await,
        Role::Victim => load::consume(work, TOXIC, "billing", 4).await,
        Role::Client => stores::use_them(work),
        Role::Operator => operator::redrive(work),
        Role::Stages => stages(work, Writing::Effects).await,
        Role::Calls => stages(work, Writing::Calls).await,
    }
}

/// Subscribes all stages of the pipeline; retries until it succeeds.
async fn stages(work: &Work, writing: Writing) {
    let (container, lease) = (&work.container, work.spec.lease);
    while let Err(error) = pipeline::subscribe(container, lease, writing).await {
        if error.kind() == ErrorKind::Closed {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
