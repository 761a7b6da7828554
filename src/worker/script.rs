//! What a unit test does to the calls of its store: lets them fail, acts before them, lists them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::{BoxFuture, Error, ErrorKind};
use crate::store::Store;
use crate::store::decorate::{Answer, Decorated, Decorator, Next, Op};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// The store does nothing.
    NotDone,
    /// The store does it, and the reply is lost.
    ReplyLost,
    /// The store does nothing and does not answer.
    Hangs,
    /// The store does it and does not answer.
    AnswerHangs,
}

type Act = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Plan {
    calls: Vec<&'static str>,
    failures: Vec<(&'static str, Failure)>,
    acts: Vec<(&'static str, Act)>,
}

/// Names calls as [`Op::name`] does. Clones share the plan.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Mutex<Plan>>);

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.plan().calls).finish()
    }
}

impl Script {
    pub(crate) fn before(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Decorated::new(Arc::new(self.clone()), store))
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next call of this name fail that has no failure yet.
    pub(crate) fn fail(&self, call: &'static str, failure: Failure) {
        self.plan().failures.push((call, failure));
    }

    /// Acts when the next call of this name begins.
    pub(crate) fn on(&self, call: &'static str, act: impl FnOnce() + Send + 'static) {
        self.plan().acts.push((call, Box::new(act)));
    }

    /// The calls since the last time, in their order.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.plan().calls)
    }
}

/// Removes the first item of this name.
fn next<T>(items: &mut Vec<(&'static str, T)>, name: &str) -> Option<T> {
    let at = items.iter().position(|(call, _)| *call == name)?;
    Some(items.remove(at).1)
}

impl Decorator for Script {
    fn call<'a>(&'a self, op: Op<'a>, mut to: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let name = op.name();
            let (act, failure) = {
                let mut plan = self.plan();
                plan.calls.push(name);
                (next(&mut plan.acts, name), next(&mut plan.failures, name))
            };
            if let Some(act) = act {
                act();
            }
            let failed = |kind| Err(Error::new(kind, name, "by order of a test"));
            match failure {
                None => to.run(op).await,
                Some(Failure::NotDone) => failed(ErrorKind::Unavailable),
                Some(Failure::Hangs) => std::future::pending().await,
                Some(Failure::AnswerHangs) => {
                    to.run(op).await?;
                    std::future::pending().await
                }
                Some(Failure::ReplyLost) => {
                    to.run(op).await?;
                    failed(ErrorKind::OutcomeUnknown)
                }
            }
        })
    }
}
