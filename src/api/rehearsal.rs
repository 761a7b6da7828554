//! Shadow groups: handlers run on live traffic, and their effects are only checked.

use std::fmt;
use std::sync::Arc;

use crate::api::effects::Rehearsal;
use crate::api::supervise::log;
use crate::domain::{Envelope, Error, Group, Outcome, Topic};

/// What the handler of a shadow group made of a message. See
/// [`SubscribeOptions::with_rehearsal`](crate::SubscribeOptions::with_rehearsal).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rehearsed {
    /// The topic.
    pub topic: Topic,
    /// The shadow group.
    pub group: Group,
    /// The message; `None` where its envelope does not decode.
    pub envelope: Option<Envelope>,
    /// What the handler returned, or what would have happened to the message without a call.
    pub outcome: Outcome,
    /// What a commit of the effects would have done, or why it would have failed; `None` for an
    /// outcome without effects.
    pub effects: Option<Result<Rehearsal, Error>>,
}

impl Rehearsed {
    /// The value of the label `result` of the metric `redstart_rehearsed_total`.
    #[must_use]
    pub fn result(&self) -> &'static str {
        match (&self.effects, &self.outcome) {
            (Some(Ok(Rehearsal::Writes)), _) => "writes",
            (Some(Ok(Rehearsal::Skips)), _) => "skips",
            (Some(Err(error)), _) => error.kind().as_str(),
            (None, Outcome::Ack) => "ack",
            (None, Outcome::Snooze { .. }) => "snooze",
            (None, _) => "failed",
        }
    }
}

type Observe = dyn Fn(&Rehearsed) + Send + Sync;

/// Makes a group a shadow group.
#[derive(Clone, Default)]
pub(crate) struct Shadow {
    observe: Option<Arc<Observe>>,
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow")
            .field("observed", &self.observe.is_some())
            .finish()
    }
}

impl Shadow {
    pub(crate) fn observed(observe: impl Fn(&Rehearsed) + Send + Sync + 'static) -> Self {
        Self {
            observe: Some(Arc::new(observe)),
        }
    }

    /// Counts a rehearsed message, and tells the observer of it.
    pub(crate) fn report(&self, rehearsed: &Rehearsed) {
        let (topic, group) = (rehearsed.topic.to_string(), rehearsed.group.to_string());
        let result = rehearsed.result();
        metrics::counter!("redstart_rehearsed_total", "topic" => topic, "group" => group, "result" => result)
            .increment(1);
        if let Some(observe) = &self.observe {
            // A panic of the observer must not end the worker.
            log(|| observe(rehearsed));
        }
    }
}
