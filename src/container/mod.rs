//! The container: connects, returns bus, store and operators' handles, runs coordinators, shuts down.
//!
//! [`Container`] is at the root of the crate. This module has its [builder](ContainerBuilder), TLS
//! settings, [coordinators](Coordinator), [health](Health) and the
//! [report of a shutdown](ShutdownReport).

mod builder;
mod config;
mod coordinator;
mod environment;
mod health;
mod kv;
pub(crate) mod meters;
mod shutdown;
mod signals;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use builder::ContainerBuilder;
pub use config::Config;
pub use coordinator::Coordinator;
pub use health::{Health, HealthCheck};
pub use shutdown::ShutdownReport;
pub use signals::Signals;

pub use crate::adapters::redis::TlsSettings;
pub use crate::api::{SubscriptionConfig, SubscriptionReport};
pub use crate::domain::{NativeCommand, NativeCommands};

use crate::adapters::memory::MemoryStore;
use crate::api::Subscription;
use crate::api::overrides::Overrides;
use crate::api::propagator::Telemetry;
use crate::api::{Bus, Committed, Kv, MessageBus, PublishHooks, Rehearsal};
use crate::bus::{Publishing, StoreBus};
use crate::domain::{
    Codec, Durability, Effects, Error, ErrorKind, Group, describe, layout_problem,
};
use crate::operate::dead_letters::DeadLetters;
use crate::operate::doctor::Doctor;
use crate::operate::retries::Retries;
use crate::operate::schedules::Schedules;
use crate::operate::topics::Topics;
use crate::store::Store;
use crate::wire::foreign::Foreign;
use crate::wire::{Decoder, Limits};
use crate::worker;

/// The entry point: connects and returns the bus, the store and the operators' handles. Cheap to
/// clone.
///
/// Dropping a container stops nothing. Call [`shutdown`](Self::shutdown), which returns a report.
///
/// # Example
///
/// ```no_run
/// use redstart::Container;
///
/// # async fn run() -> Result<(), redstart::Error> {
/// let container = Container::builder()
///     .with_redis_url("redis://127.0.0.1:6379")
///     .with_namespace("shop")
///     .with_service("billing")
///     .connect()
///     .await?;
/// assert!(container.health().await.ok);
/// container.shutdown(std::time::Duration::from_secs(10)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Container {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    bus: Arc<StoreBus>,
    kv: Kv,
    dead_letters: DeadLetters,
    decoder: Decoder,
    read_only: bool,
    started: tokio::sync::Mutex<Vec<Started>>,
}

/// What the builder puts a container together from.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) kv: Kv,
    pub(crate) service: Group,
    pub(crate) codec: Codec,
    /// The source of CloudEvents; `None`: the container publishes envelopes.
    pub(crate) events: Option<Arc<str>>,
    pub(crate) limits: Limits,
    pub(crate) editing: bool,
    pub(crate) deduplication: Option<Duration>,
    pub(crate) durability: Durability,
    pub(crate) read_only: bool,
    pub(crate) overrides: Overrides,
    pub(crate) hooks: PublishHooks,
    pub(crate) foreign: Foreign,
    pub(crate) telemetry: Option<Telemetry>,
}

struct Started {
    coordinator: Arc<dyn Coordinator>,
    subscriptions: Vec<Subscription>,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container")
            .field("backend", &self.inner.store.name())
            .finish_non_exhaustive()
    }
}

impl Container {
    /// Returns a builder with all defaults.
    pub fn builder() -> ContainerBuilder {
        ContainerBuilder::default()
    }

    /// Connects with the settings of the environment: see [`ContainerBuilder::from_env`].
    ///
    /// # Errors
    ///
    /// The errors of [`ContainerBuilder::from_env`] and [`ContainerBuilder::connect`].
    pub async fn from_env() -> Result<Self, Error> {
        ContainerBuilder::from_env()?.connect().await
    }

    /// Returns a container on a fresh store in memory, with all defaults.
    ///
    /// # Errors
    ///
    /// None at present; the signature is that of [`ContainerBuilder::connect`].
    ///
    /// # Example
    ///
    /// ```
    /// use redstart::{Container, Envelope, Topic};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), redstart::Error> {
    /// let container = Container::in_memory().await?;
    /// let orders = Topic::new("orders")?;
    /// let envelope = Envelope::new("order.placed", &1250)?;
    /// container.bus().publish(&orders, &envelope).await?;
    /// assert_eq!(container.adapter_name(), "memory");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn in_memory() -> Result<Self, Error> {
        let store = MemoryStore::new();
        Self::builder().with_memory(store).connect().await
    }

    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            store,
            kv,
            service,
            codec,
            events,
            limits,
            editing,
            deduplication,
            durability,
            read_only,
            overrides,
            hooks,
            foreign,
            telemetry,
        } = parts;
        meters::describe();
        let publishing = Publishing::new(Arc::clone(&store), codec, limits, deduplication, hooks);
        let bus = StoreBus::new(
            Arc::clone(&store),
            service,
            limits,
            publishing
                .with_events(events)
                .with_durability(durability)
                .with_telemetry(telemetry),
            worker::start,
        );
        let bus = Arc::new(bus.with_overrides(overrides).with_foreign(foreign.clone()));
        let dead_letters = DeadLetters::new(
            Arc::clone(&store),
            Arc::clone(&bus) as Arc<dyn MessageBus>,
            limits,
            editing,
        );
        let inner = Inner {
            bus,
            dead_letters,
            store,
            kv,
            decoder: Decoder::new(limits).with_foreign(foreign),
            read_only,
            started: tokio::sync::Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    #[cfg(feature = "testing")]
    fn observe(&self, observer: Arc<dyn crate::api::observe::Observer>) {
        self.inner.bus.observe(observer);
    }

    async fn start(&self, coordinators: Vec<Arc<dyn Coordinator>>) -> Result<(), Error> {
        for coordinator in coordinators {
            match coordinator::start(&*coordinator, self).await {
                Ok(subscriptions) => self.inner.started.lock().await.push(Started {
                    coordinator,
                    subscriptions,
                }),
                Err(cause) => {
                    self.inner.bus.close_subscribing();
                    self.end(Duration::from_secs(5)).await;
                    let rule = "failed to start";
                    return Err(Error::new(ErrorKind::Coordinator, "coordinator", rule)
                        .on(coordinator.name())
                        .because(cause));
                }
            }
        }
        Ok(())
    }

    /// Returns the message bus.
    #[must_use]
    pub fn bus(&self) -> Bus {
        Bus::from(Arc::clone(&self.inner.bus) as Arc<dyn MessageBus>)
    }

    /// Returns the key-value store.
    #[must_use]
    pub fn kv(&self) -> Kv {
        self.inner.kv.clone()
    }

    /// Writes effects in one step, all or none: messages together with the state that they tell of.
    ///
    /// When this returns `Ok`, the store has all of it. While a commit is under way, further commits of
    /// this container wait and share the next call to the store; in a cluster this holds for each slot by
    /// itself. Of one slot at most 2 MiB wait; further callers wait for space first.
    ///
    /// If the connection fails, the container asks again until the store says what became of the
    /// commit, for up to 12 hours. To wait for a shorter time, drop the future; the commit may then be
    /// done. A caller that may repeat a commit after a crash makes it recognisable with
    /// [`Effects::once`] or [`Effects::insert`].
    ///
    /// # Errors
    ///
    /// | Kind | What it means | Written? |
    /// |---|---|---|
    /// | [`Conflict`](ErrorKind::Conflict) | a value is not the one that [`Effects::replace`], [`Effects::unchanged`] or [`Effects::insert`] demands | no |
    /// | [`Refused`](ErrorKind::Refused) | a key has another type, a value is not an integer, a sum is out of range, or the user lacks a right | no |
    /// | [`Invalid`](ErrorKind::Invalid), [`TooLarge`](ErrorKind::TooLarge), [`Encode`](ErrorKind::Encode) | the effects break the rule that the error names | no |
    /// | [`BacklogFull`](ErrorKind::BacklogFull) | a topic's backlog limit is reached | no |
    /// | [`Unavailable`](ErrorKind::Unavailable) | the server could not be reached or takes no writes now | no |
    /// | [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) | the store did not answer for 12 hours, or the runtime ended | maybe |
    /// | [`Unsupported`](ErrorKind::Unsupported) | the store has no effects | no |
    /// | [`Closed`](ErrorKind::Closed) | the container was shut down | no |
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped the effects may or may not be written, all or none.
    pub async fn commit(&self, effects: Effects) -> Result<Committed, Error> {
        self.inner.bus.commit(&effects).await
    }

    /// Says what a [`commit`](Self::commit) of these effects would do now. Writes nothing, and measures
    /// no backlog.
    ///
    /// # Errors
    ///
    /// Those of [`commit`](Self::commit), except for the backlog.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn rehearse(&self, effects: &Effects) -> Result<Rehearsal, Error> {
        self.inner.bus.rehearse(effects).await
    }

    /// Returns the handle for dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters {
        self.inner.dead_letters.clone()
    }

    /// Returns the handle for topics and groups.
    #[must_use]
    pub fn topics(&self) -> Topics {
        Topics::new(Arc::clone(&self.inner.store), self.inner.decoder.clone())
    }

    /// Returns the handle for messages for later.
    #[must_use]
    pub fn schedules(&self) -> Schedules {
        Schedules::new(self.store(), self.bus(), self.inner.decoder.clone())
    }

    /// Returns the handle for scheduled retries and snoozed messages.
    #[must_use]
    pub fn retries(&self) -> Retries {
        Retries::new(Arc::clone(&self.inner.store))
    }

    /// Returns a doctor for this store and namespace.
    ///
    /// [`ContainerBuilder::doctor`] returns one that also examines a namespace which `connect` refuses.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let container = redstart::Container::in_memory().await?;
    /// let report = container.doctor().run().await;
    /// println!("{}", serde_json::to_string(&report)?);
    /// # assert_eq!(report.findings[0].check, "server");
    /// # Ok(())
    /// # }
    /// ```
    pub fn doctor(&self) -> Doctor {
        Doctor::new(Arc::clone(&self.inner.store))
    }

    /// Returns the adapter's port, for tests and tools. Not covered by semver.
    #[doc(hidden)]
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.inner.store)
    }

    /// Returns the adapter's name: `redis`, `memory`, or that of another store.
    #[must_use]
    pub fn adapter_name(&self) -> &'static str {
        self.inner.store.name()
    }

    /// Checks whether bus and store work now, and gives reasons if they do not.
    ///
    /// Asks the server, on the publisher's connection and on the key-value store's, whether it takes
    /// writes from this user; nothing is written. A full memory, a replica, missing replicas, a
    /// failing disk and a user without write rights are all reasons. So is a namespace whose layout
    /// [`connect`](ContainerBuilder::connect) refuses. Then asks every subscription of this
    /// container for its [problem](Subscription::problem). Takes a few seconds at most.
    ///
    /// Rights to single topics and keys are not checked. A process that only reads sets
    /// [`with_read_only`](ContainerBuilder::with_read_only).
    pub async fn health(&self) -> Health {
        let inner = &self.inner;
        let bus = async {
            match inner.read_only {
                true => inner.store.inspect().ping().await,
                false => inner.store.inspect().try_write().await,
            }
        };
        let kv = async {
            match (inner.store.capabilities().values, inner.read_only) {
                // A store without a key-value store has none that could be unwell.
                (false, _) => Ok(()),
                (true, true) => inner.kv.exists("redstart:health").await.map(drop),
                (true, false) => inner.store.values().try_write().await,
            }
        };
        let (bus, kv, layout) = tokio::join!(bus, kv, inner.store.inspect().migrations());
        let mut reasons: Vec<String> = bus.err().iter().map(|e| describe(e)).collect();
        match layout {
            Ok(migrations) => reasons.extend(layout_problem(&migrations)),
            // A server that does not answer is one reason, not two.
            Err(error) if reasons.is_empty() => reasons.push(describe(&error)),
            Err(_) => {}
        }
        for subscription in inner.bus.running() {
            if let Some(problem) = subscription.problem() {
                let (topic, group) = (subscription.topic(), subscription.group());
                reasons.push(format!("subscription {topic}/{group}: {problem}"));
            }
        }
        let bus = HealthCheck::of(reasons);
        let kv = HealthCheck::of(kv.err().iter().map(|e| describe(e)).collect());
        Health {
            ok: bus.ok && kv.ok,
            bus,
            kv,
        }
    }
}
