//! The store of a namespace whose placement is not known yet: key-value stores without a container, the
//! doctor, and containers that set nothing up.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::adapter::RedisAdapter;
use super::migrate::{Migrations, PlacementShown};
use crate::domain::{BoxFuture, Error, ErrorKind, Placement, Timestamp};
use crate::store::{
    Bell, Capabilities, DeadLetters, DeadLettersAnswer, DeadLettersCalls, DeadLettersOp,
    Deliveries, DeliveriesAnswer, DeliveriesCalls, DeliveriesOp, Effect, EffectStore,
    EffectStoreAnswer, EffectStoreCalls, EffectStoreOp, GroupAt, Inspect, InspectAnswer,
    InspectCalls, InspectOp, Later, LaterAnswer, LaterCalls, LaterOp, Log, LogAnswer, LogCalls,
    LogOp, Opened, Opening, Owners, OwnersAnswer, OwnersCalls, OwnersOp, Schedule, ScheduleAnswer,
    ScheduleCalls, ScheduleOp, Store, Topics, TopicsAnswer, TopicsCalls, TopicsOp, Values,
    ValuesAnswer, ValuesCalls, ValuesOp,
};

/// The store of a namespace that is or gets set up as the settings say: see [`Migrations::ensure`].
pub(crate) async fn connect(
    layout: Migrations,
    set_up: bool,
    migrate: bool,
) -> Result<Arc<dyn Store>, Error> {
    Ok(match layout.ensure(set_up, migrate).await? {
        Some(placement) => Arc::new(adapter(&layout, placement)),
        None => unplaced(layout),
    })
}

/// The store of a namespace that the first call asks for its placement. Keys without a namespace have
/// one placement only.
pub(crate) fn unplaced(layout: Migrations) -> Arc<dyn Store> {
    if layout.place().1.is_none() {
        return Arc::new(adapter(&layout, Placement::Spread));
    }
    Arc::new(Unplaced {
        expected: adapter(&layout, layout.expected()),
        layout,
        known: OnceLock::new(),
        seen_new: Mutex::default(),
    })
}

fn adapter(layout: &Migrations, placement: Placement) -> RedisAdapter {
    let (net, namespace) = layout.place();
    RedisAdapter::on(net, namespace, placement)
}

/// How often a namespace that is not set up is asked for its placement.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Asks for the placement at the first call, and then calls the store that has its names.
#[derive(Debug)]
struct Unplaced {
    layout: Migrations,
    /// The names for a namespace that is not set up.
    expected: RedisAdapter,
    known: OnceLock<RedisAdapter>,
    /// When the namespace was last seen without a placement.
    seen_new: Mutex<Option<Instant>>,
}

impl Unplaced {
    /// The store as far as it is known without a question.
    fn at_hand(&self) -> &RedisAdapter {
        self.known.get().unwrap_or(&self.expected)
    }

    fn was_new_lately(&self) -> bool {
        let seen = self.seen_new.lock().unwrap_or_else(PoisonError::into_inner);
        seen.is_some_and(|seen| seen.elapsed() < ASK_EVERY)
    }

    async fn store(&self, operation: &'static str) -> Result<&RedisAdapter, Error> {
        if self.known.get().is_some() || self.was_new_lately() {
            return Ok(self.at_hand());
        }
        // An error names the method without its role, as the errors of the method itself do.
        let operation = operation.rsplit('.').next().unwrap_or(operation);
        match self.layout.placement_shown(operation).await? {
            PlacementShown::Is(Some(placement)) => {
                self.layout.agree(placement)?;
                Ok(self.known.get_or_init(|| adapter(&self.layout, placement)))
            }
            PlacementShown::Is(None) => {
                let mut seen = self.seen_new.lock().unwrap_or_else(PoisonError::into_inner);
                *seen = Some(Instant::now());
                Ok(&self.expected)
            }
            // A user that may reach values alone has always had the names of `spread`.
            PlacementShown::Denied => {
                let spread = || adapter(&self.layout, Placement::Spread);
                Ok(self.known.get_or_init(spread))
            }
        }
    }

    /// The store whose writes are tried. If the primary of a cluster that knows the placement does not
    /// answer, this is the expected one: other primaries may refuse.
    async fn to_try(&self, operation: &'static str) -> Result<&RedisAdapter, Error> {
        match self.store(operation).await {
            Err(error)
                if error.kind() == ErrorKind::Unavailable && self.expected.net.is_clustered() =>
            {
                Ok(&self.expected)
            }
            store => store,
        }
    }
}

macro_rules! roles {
    ($($role:ident, $accessor:ident, $op:ident, $answer:ident, $calls:ident;)*) => {
        $(impl $calls for Unplaced {
            fn run<'a>(&'a self, op: $op<'a>) -> BoxFuture<'a, Result<$answer, Error>> {
                Box::pin(async move {
                    let store = self.store(op.name()).await?;
                    op.run(store.$accessor()).await
                })
            }
        })*
    };
}

roles! {
    Topics, topics, TopicsOp, TopicsAnswer, TopicsCalls;
    Log, log, LogOp, LogAnswer, LogCalls;
    Deliveries, deliveries, DeliveriesOp, DeliveriesAnswer, DeliveriesCalls;
    Schedule, schedule, ScheduleOp, ScheduleAnswer, ScheduleCalls;
    Later, later, LaterOp, LaterAnswer, LaterCalls;
    DeadLetters, dead_letters, DeadLettersOp, DeadLettersAnswer, DeadLettersCalls;
    Values, values, ValuesOp, ValuesAnswer, ValuesCalls;
    EffectStore, effects, EffectStoreOp, EffectStoreAnswer, EffectStoreCalls;
    Owners, owners, OwnersOp, OwnersAnswer, OwnersCalls;
}

impl InspectCalls for Unplaced {
    fn run<'a>(&'a self, op: InspectOp<'a>) -> BoxFuture<'a, Result<InspectAnswer, Error>> {
        Box::pin(async move {
            let store = match op {
                // These ask servers and the schema, which have the same names everywhere.
                InspectOp::Ping { .. }
                | InspectOp::Servers { .. }
                | InspectOp::Migrations { .. }
                | InspectOp::Placement { .. } => self.at_hand(),
                InspectOp::TryWrite {} => self.to_try(op.name()).await?,
                _ => self.store(op.name()).await?,
            };
            op.run(store).await
        })
    }
}

impl Store for Unplaced {
    fn name(&self) -> &'static str {
        self.expected.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.at_hand().capabilities()
    }

    fn now(&self) -> Timestamp {
        self.expected.now()
    }

    fn open<'a>(&'a self, opening: &'a Opening) -> BoxFuture<'a, Result<Opened, Error>> {
        Box::pin(async move { self.store("open").await?.open(opening).await })
    }

    fn lane_of(&self, effects: &[Effect]) -> u16 {
        self.known.get().map_or(0, |store| store.lane_of(effects))
    }

    fn bell(&self, at: &GroupAt) -> Option<Arc<Bell>> {
        self.known.get()?.bell(at)
    }

    fn topics(&self) -> &dyn Topics {
        self
    }

    fn log(&self) -> &dyn Log {
        self
    }

    fn deliveries(&self) -> &dyn Deliveries {
        self
    }

    fn schedule(&self) -> &dyn Schedule {
        self
    }

    fn later(&self) -> &dyn Later {
        self
    }

    fn dead_letters(&self) -> &dyn DeadLetters {
        self
    }

    fn inspect(&self) -> &dyn Inspect {
        self
    }

    fn values(&self) -> &dyn Values {
        self
    }

    fn effects(&self) -> &dyn EffectStore {
        self
    }

    fn owners(&self) -> &dyn Owners {
        self
    }
}
