//! The primary of a service, as sentinels know it.
//!
//! Each known sentinel has a task that listens for the ends of failovers. The first sentinel that tells
//! of one ends all connections to the former primary: that server may still answer, and the new primary
//! does not have its answers.

mod ask;
mod belief;
mod listen;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::adapters::redis::net::commands::Failure;
use crate::adapters::redis::net::connections::server::Server;
use crate::adapters::redis::net::redirect::Address;
use belief::{Belief, Statement};

/// How long the answers of other sentinels are waited for once one has answered.
const OTHERS_WITHIN: Duration = Duration::from_millis(250);
/// How long no sentinel may have been heard before calls look for a change themselves.
const DEAF_AFTER: Duration = Duration::from_secs(3);

/// Who follows the primary that sentinels name.
pub(super) trait Follower: Send + Sync {
    /// The sentinels that it asks.
    fn sentinels(&self) -> Option<&Sentinels>;

    /// Takes another server as the primary.
    fn hand_over(&self, primary: Server);
}

/// The sentinels of a service.
#[derive(Debug)]
pub(super) struct Sentinels {
    service: Arc<str>,
    /// The primary, without an address until a sentinel names it.
    primary: Server,
    state: Mutex<State>,
    /// Ends the tasks that listen.
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// The sentinels of the URL, and those that they named.
    known: Vec<Server>,
    belief: Belief,
    /// The task that listens to each sentinel, by its address.
    listening: HashMap<Arc<str>, JoinHandle<()>>,
    /// When a sentinel was last heard.
    heard: Option<Instant>,
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Sentinels {
    pub(super) fn new(sentinels: Vec<Server>, primary: Server) -> Option<Self> {
        Some(Self {
            service: Arc::clone(primary.service()?),
            primary,
            state: Mutex::new(State {
                known: sentinels,
                ..State::default()
            }),
            ended: CancellationToken::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server at the address of a primary.
    fn at(&self, primary: &Address) -> Server {
        self.primary.at(primary.host.as_deref(), primary.port)
    }

    /// Asks all sentinels. Returns the primary if it is another one now.
    pub(super) async fn ask(&self) -> Result<Option<Server>, Failure> {
        let known = self.state().known.clone();
        let asked = known.iter().map(|one| ask::primary(one, &self.service));
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut statements = Vec::new();
        let mut failure: Option<Failure> = None;
        loop {
            let next = match statements.is_empty() {
                true => Ok(answers.next().await),
                false => timeout(OTHERS_WITHIN, answers.next()).await,
            };
            match next {
                Ok(Some(Ok(statement))) => statements.push(statement),
                // One that may answer later counts for more than one that does not know the service.
                Ok(Some(Err(one))) => {
                    if failure.as_ref().is_none_or(|before| !before.is_passing()) {
                        failure = Some(one);
                    }
                }
                Ok(None) | Err(_) => break,
            }
        }
        match failure {
            Some(failure) if statements.is_empty() => Err(failure),
            _ => Ok(self.learn(statements)),
        }
    }

    /// Takes what one sentinel says. Returns the primary if it is another one now.
    fn learn_of_one(&self, statement: Statement) -> Option<Server> {
        let mut state = self.state();
        let primary = state.belief.learn_of_one(statement)?;
        Some(self.at(&primary))
    }

    /// Takes what all sentinels say that have answered. Returns the primary if it is another one now.
    fn learn(&self, statements: Vec<Statement>) -> Option<Server> {
        let mut state = self.state();
        let primary = state.belief.learn(statements, Instant::now())?;
        Some(self.at(&primary))
    }

    /// Takes the word of a sentinel that a failover has ended. Returns the primary if it is another one
    /// now.
    fn switched(&self, from: &Address, to: &Address) -> Option<Server> {
        let mut state = self.state();
        let primary = state.belief.switched(from, to)?;
        Some(self.at(&primary))
    }

    /// Adds sentinels that another one named.
    fn add(&self, by: &Server, others: &[Address]) {
        let mut state = self.state();
        for other in others {
            let sentinel = by.at(other.host.as_deref(), other.port);
            if state
                .known
                .iter()
                .all(|one| one.address() != sentinel.address())
            {
                state.known.push(sentinel);
            }
        }
    }

    fn note_heard(&self) {
        self.state().heard = Some(Instant::now());
    }

    /// Whether no sentinel was heard lately. Then nobody tells of a failover.
    pub(super) fn is_deaf(&self) -> bool {
        let heard = self.state().heard;
        heard.is_none_or(|at| at.elapsed() > DEAF_AFTER)
    }

    /// Sees to it that a task listens to each known sentinel. A task ends with its runtime.
    pub(super) fn keep_listening(&self, nodes: &Weak<dyn Follower>) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let mut state = self.state();
        let State {
            known, listening, ..
        } = &mut *state;
        if listening.len() == known.len() && !listening.values().any(JoinHandle::is_finished) {
            return;
        }
        for sentinel in known {
            let task = listening.get(sentinel.address());
            if task.is_none_or(JoinHandle::is_finished) {
                let listener = listen::Listener {
                    nodes: nodes.clone(),
                    sentinel: sentinel.clone(),
                    service: Arc::clone(&self.service),
                    ended: self.ended.clone(),
                };
                let task = tokio::spawn(listener.run());
                listening.insert(Arc::clone(sentinel.address()), task);
            }
        }
    }
}
