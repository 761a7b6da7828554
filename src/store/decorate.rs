//! Decorators: what stands between a store and its users, in one function.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::bell::Bell;
use super::dead_letters::{DeadLetters, DeadLettersAnswer, DeadLettersCalls, DeadLettersOp};
use super::deliveries::{
    Deliveries, DeliveriesAnswer, DeliveriesCalls, DeliveriesOp, Fetched, Opened, Reader,
};
use super::effects::{Effect, EffectStore, EffectStoreAnswer, EffectStoreCalls, EffectStoreOp};
use super::inspect::{Inspect, InspectAnswer, InspectCalls, InspectOp};
use super::later::{Later, LaterAnswer, LaterCalls, LaterOp};
use super::log::{Log, LogAnswer, LogCalls, LogOp};
use super::owners::{Owners, OwnersAnswer, OwnersCalls, OwnersOp};
use super::schedule::{Schedule, ScheduleAnswer, ScheduleCalls, ScheduleOp};
use super::source::{GroupAt, Opening};
use super::topics::{Topics, TopicsAnswer, TopicsCalls, TopicsOp};
use super::values::{Values, ValuesAnswer, ValuesCalls, ValuesOp};
use super::{Capabilities, Store};
use crate::domain::{BoxFuture, Error, ErrorKind, Timestamp};

/// Stands between a store and its users: every operation goes through `call`.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use redstart::memory::MemoryStore;
/// use redstart::ports::BoxFuture;
/// use redstart::store::decorate::{Answer, Decorated, Decorator, Next, Op};
/// use redstart::store::{LogOp, Store};
/// use redstart::{Error, ErrorKind, Topic};
///
/// /// Refuses every publish.
/// #[derive(Debug)]
/// struct ReadOnly;
///
/// impl Decorator for ReadOnly {
///     fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
///         Box::pin(async move {
///             match op {
///                 Op::Log(LogOp::Append { .. } | LogOp::AppendOnce { .. }) => {
///                     Err(Error::new(ErrorKind::Refused, op.name(), "this store is read-only"))
///                 }
///                 _ => next.run(op).await,
///             }
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let store = Decorated::new(Arc::new(ReadOnly), MemoryStore::new().store(None));
/// let orders = redstart::store::Partition::of(&Topic::new("orders")?);
/// let error = store.log().append(&orders, &[]).await.unwrap_err();
/// assert_eq!(error.to_string(), "log.append: this store is read-only");
/// assert!(store.log().newest(&orders).await?.is_none());
/// # Ok(())
/// # }
/// ```
pub trait Decorator: Send + Sync + fmt::Debug {
    /// Runs an operation with `next`, or does something else: nothing, another operation, the same
    /// one twice, or a typed call on `next.store`.
    ///
    /// # Errors
    ///
    /// The caller of the store gets the error as it is. An answer of another operation reaches the
    /// caller as [`ErrorKind::Invalid`].
    fn call<'a>(&'a self, op: Op<'a>, next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>>;
}

macro_rules! roles {
    ($($role:ident($accessor:ident, $op:ident, $answer:ident, $calls:ident)),* $(,)?) => {
        /// An operation of the port as data.
        #[derive(Clone, Copy, Debug)]
        #[non_exhaustive]
        pub enum Op<'a> {
            $(
                #[doc = concat!("An operation of [`", stringify!($role), "`].")]
                $role($op<'a>),
            )*
            /// [`Store::open`]
            Open(&'a Opening),
            /// [`Reader::fetch`]
            #[allow(missing_docs)]
            Fetch { opening: &'a Opening, max: usize, wait: Duration },
        }

        /// The answer to an [`Op`].
        #[derive(Debug)]
        #[non_exhaustive]
        pub enum Answer {
            $(
                #[doc = concat!("The answer of [`", stringify!($role), "`].")]
                $role($answer),
            )*
            /// To [`Op::Open`].
            Open(Opened),
            /// To [`Op::Fetch`].
            Fetch(Vec<Fetched>),
        }

        impl Op<'_> {
            /// The role and the method, such as `log.append`; `open` and `fetch`.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$role(op) => op.name(),)*
                    Self::Open(_) => "open",
                    Self::Fetch { .. } => "fetch",
                }
            }
        }

        impl<'a> Op<'a> {
            /// Runs the operation on a store. A [`Op::Fetch`] needs a reader, so it fails here.
            pub(crate) fn run(
                self,
                store: &'a dyn Store,
            ) -> BoxFuture<'a, Result<Answer, Error>> {
                match self {
                    $(Op::$role(op) => {
                        let answer = op.run(store.$accessor());
                        Box::pin(async move { answer.await.map(Answer::$role) })
                    })*
                    Op::Open(opening) => {
                        let opened = store.open(opening);
                        Box::pin(async move { opened.await.map(Answer::Open) })
                    }
                    Op::Fetch { .. } => Box::pin(std::future::ready(Err(Error::new(
                        ErrorKind::Invalid,
                        "fetch",
                        "a decorator ran a fetch twice, or out of turn",
                    )))),
                }
            }
        }

        impl<'a> Next<'a> {
            /// Runs an operation on `store`: the one that came in, or another. A [`Op::Fetch`] runs
            /// once only.
            pub fn run(&mut self, op: Op<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
                match (op, self.read.take()) {
                    (Op::Fetch { .. }, Some(read)) => {
                        Box::pin(async move { read.await.map(Answer::Fetch) })
                    }
                    _ => op.run(self.store),
                }
            }
        }

        $(
            impl $calls for Decorated {
                fn run<'a>(&'a self, op: $op<'a>) -> BoxFuture<'a, Result<$answer, Error>> {
                    Box::pin(async move {
                        let op = Op::$role(op);
                        match self.call(op).await? {
                            Answer::$role(answer) => Ok(answer),
                            _ => Err(mismatch(op)),
                        }
                    })
                }
            }

            impl $calls for Nowhere {
                fn run<'a>(&'a self, op: $op<'a>) -> BoxFuture<'a, Result<$answer, Error>> {
                    let rule = "this store does not offer the operation";
                    let error = Error::new(ErrorKind::Unsupported, op.name(), rule);
                    Box::pin(std::future::ready(Err(error)))
                }
            }
        )*
    };
}

roles! {
    Topics(topics, TopicsOp, TopicsAnswer, TopicsCalls),
    Log(log, LogOp, LogAnswer, LogCalls),
    Deliveries(deliveries, DeliveriesOp, DeliveriesAnswer, DeliveriesCalls),
    Schedule(schedule, ScheduleOp, ScheduleAnswer, ScheduleCalls),
    DeadLetters(dead_letters, DeadLettersOp, DeadLettersAnswer, DeadLettersCalls),
    Inspect(inspect, InspectOp, InspectAnswer, InspectCalls),
    Values(values, ValuesOp, ValuesAnswer, ValuesCalls),
    Later(later, LaterOp, LaterAnswer, LaterCalls),
    EffectStore(effects, EffectStoreOp, EffectStoreAnswer, EffectStoreCalls),
    Owners(owners, OwnersOp, OwnersAnswer, OwnersCalls),
}

fn mismatch(op: Op<'_>) -> Error {
    let rule = "a decorator gave the answer of another operation";
    Error::new(ErrorKind::Invalid, op.name(), rule)
}

/// The store behind a decorator.
pub struct Next<'a> {
    /// The store that [`run`](Self::run) uses; a decorator that routes sets another one.
    pub store: &'a dyn Store,
    read: Option<BoxFuture<'a, Result<Vec<Fetched>, Error>>>,
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// A store behind a decorator. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Decorated {
    decorator: Arc<dyn Decorator>,
    inner: Arc<dyn Store>,
}

impl Decorated {
    /// Puts a decorator between a store and its users.
    #[must_use]
    pub fn new(decorator: Arc<dyn Decorator>, inner: Arc<dyn Store>) -> Self {
        Self { decorator, inner }
    }

    fn call<'a>(&'a self, op: Op<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        let next = Next {
            store: &*self.inner,
            read: None,
        };
        self.decorator.call(op, next)
    }
}

impl Store for Decorated {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn keeps_time(&self) -> bool {
        self.inner.keeps_time()
    }

    fn clock_set(&self) -> BoxFuture<'_, ()> {
        self.inner.clock_set()
    }

    fn lane_of(&self, effects: &[Effect]) -> u16 {
        self.inner.lane_of(effects)
    }

    fn bell(&self, at: &GroupAt) -> Option<Arc<Bell>> {
        self.inner.bell(at)
    }

    fn open<'a>(&'a self, opening: &'a Opening) -> BoxFuture<'a, Result<Opened, Error>> {
        Box::pin(async move {
            let op = Op::Open(opening);
            let Answer::Open((inner, interrupt)) = self.call(op).await? else {
                return Err(mismatch(op));
            };
            let reader: Box<dyn Reader> = Box::new(DecoratedReader {
                store: self.clone(),
                inner,
                opening: opening.clone(),
            });
            Ok((reader, interrupt))
        })
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

    fn dead_letters(&self) -> &dyn DeadLetters {
        self
    }

    fn inspect(&self) -> &dyn Inspect {
        self
    }

    fn values(&self) -> &dyn Values {
        self
    }

    fn later(&self) -> &dyn Later {
        self
    }

    fn effects(&self) -> &dyn EffectStore {
        self
    }

    fn owners(&self) -> &dyn Owners {
        self
    }
}

#[derive(Debug)]
struct DecoratedReader {
    store: Decorated,
    inner: Box<dyn Reader>,
    opening: Opening,
}

impl Reader for DecoratedReader {
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
        let Self {
            store,
            inner,
            opening,
        } = self;
        let (store, opening): (&Decorated, &Opening) = (store, opening);
        Box::pin(async move {
            let op = Op::Fetch { opening, max, wait };
            let next = Next {
                store: &*store.inner,
                read: Some(inner.fetch(max, wait)),
            };
            match store.decorator.call(op, next).await? {
                Answer::Fetch(fetched) => Ok(fetched),
                _ => Err(mismatch(op)),
            }
        })
    }

    fn ready(&mut self) -> Option<BoxFuture<'_, ()>> {
        self.inner.ready()
    }
}

/// Refuses every operation of every role with [`ErrorKind::Unsupported`] and names it: what a store
/// returns for a role that it does not offer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;
