//! A connection that many tasks share.
//!
//! Callers put packed commands into a queue. One task writes all queued commands together, reads
//! the replies in place, and gives each caller its own. Many commands of a busy publisher then cost
//! one write, one wake-up and one time limit. The task knows which commands it has written, so it
//! can tell commands that were certainly not done from those that may have been.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::natives::Natives;
use super::server::{RESPONSE_TIMEOUT, Server};
use super::traffic::{Job, Shared, Traffic, counted};
use crate::adapters::redis::net::commands::{Answer, Commands, Failure, TakesBack};
use crate::adapters::redis::net::numbers::Numbers;
use crate::api::supervise::Watch;

/// A task that has not been polled for this long is not driven: it waits for the server no longer
/// than for a reply.
const PATIENCE: Duration = RESPONSE_TIMEOUT.saturating_add(Duration::from_secs(1));

/// The connection. Its task connects at the first command, and again after a failure.
#[derive(Debug)]
pub(in crate::adapters::redis) struct Link {
    inner: Arc<Inner>,
}

/// What a caller of another runtime than the task's must watch.
type Foreign = (Arc<Inner>, Arc<Shared>);

#[derive(Debug)]
struct Inner {
    server: Server,
    name: &'static str,
    takes_back: Weak<dyn TakesBack>,
    /// Cancelled when the server serves nothing any more.
    left: CancellationToken,
    /// Asked on each connection of a link that uses native commands.
    natives: Option<Arc<Natives>>,
    current: Mutex<Current>,
    watch: Watch,
}

/// The task that carries the link, and its runtime.
#[derive(Debug, Default)]
struct Current {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
    runtime: Option<runtime::Id>,
    last_number: u64,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.inner.current().shared.close();
    }
}

impl Link {
    pub(in crate::adapters::redis::net) fn new(
        server: Server,
        name: &'static str,
        takes_back: Weak<dyn TakesBack>,
        left: CancellationToken,
    ) -> Self {
        let inner = Inner {
            server,
            name,
            takes_back,
            left,
            natives: None,
            current: Mutex::default(),
            watch: Watch::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A link that asks the server of each of its connections for native commands.
    pub(in crate::adapters::redis::net) fn asking(mut self, natives: &Arc<Natives>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.natives = Some(Arc::clone(natives));
        }
        self
    }

    /// Sends packed commands and waits for the reply to each. The commands of several calls go out
    /// in the order of the calls, even when a caller does not wait between two calls.
    ///
    /// Dropping the future may come too late to keep the commands from being sent.
    pub(in crate::adapters::redis::net) fn send(
        &self,
        packed: Vec<u8>,
        count: usize,
    ) -> impl Future<Output = Answer> + Send + use<> {
        self.send_in_order(None, 0, packed, count, None)
    }

    /// The same for commands that the link gives back when they were not done.
    pub(in crate::adapters::redis::net) fn send_in_order(
        &self,
        slot: Option<u16>,
        call: u64,
        packed: Vec<u8>,
        count: usize,
        numbers: Option<Box<Numbers>>,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let (caller, answer) = oneshot::channel();
        let commands = Commands {
            slot,
            call,
            packed,
            count,
            numbers,
            caller,
        };
        let (number, foreign) = self.put(commands);
        let watch = self.inner.watch.clone();
        async move {
            let answer = match foreign {
                None => answer.await,
                Some((inner, shared)) => inner.watch(shared, number, answer).await,
            };
            // Without an answer the task has panicked, or it ended together with its runtime.
            answer.unwrap_or_else(|_| {
                Err(watch.problem().map_or_else(Failure::of_ended_task, |text| {
                    Failure::Unknown(io::Error::other(text).into())
                }))
            })
        }
    }

    /// Puts commands into the queue whose caller waits elsewhere.
    pub(in crate::adapters::redis::net) fn forward(&self, commands: Commands) {
        self.put(commands);
    }

    /// Waits until all commands that were sent before have been answered or taken back.
    pub(in crate::adapters::redis::net) fn drained(
        &self,
    ) -> impl Future<Output = ()> + Send + use<> {
        let answer = self.is_used().then(|| self.send(Vec::new(), 0));
        async move {
            if let Some(answer) = answer {
                // A failure ends the wait, too: nothing is under way then.
                let _ = answer.await;
            }
        }
    }

    /// Whether anything was ever sent.
    pub(in crate::adapters::redis::net) fn is_used(&self) -> bool {
        self.inner.current().last_number > 0
    }

    /// Queues commands. Returns their number, and what a caller of another runtime must watch.
    fn put(&self, commands: Commands) -> (u64, Option<Foreign>) {
        let here = runtime::Handle::try_current().ok().map(|here| here.id());
        let mut current = self.inner.current();
        self.inner.keep_running(&mut current);
        current.last_number += 1;
        let number = current.last_number;
        current.shared.jobs().push_back(Job { number, commands });
        current.shared.more.notify_one();
        // The caller of a runtime drives it, and so the task on it.
        let is_own = here.is_none() || here == current.runtime;
        let foreign = (!is_own).then(|| (Arc::clone(&self.inner), Arc::clone(&current.shared)));
        (number, foreign)
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the task if none runs, or if its runtime has ended.
    fn keep_running(&self, current: &mut Current) {
        if current.task.as_ref().is_none_or(JoinHandle::is_finished) {
            let (server, name) = (self.server.clone(), self.name);
            let shared = Arc::clone(&current.shared);
            let (takes_back, left) = (self.takes_back.clone(), self.left.clone());
            let natives = self.natives.clone();
            let traffic = self.watch.supervise("the link", move |_| {
                let (takes_back, shared) = (takes_back.clone(), Arc::clone(&shared));
                counted(Traffic::new(
                    server.clone(),
                    name,
                    takes_back,
                    left.clone(),
                    natives.clone(),
                    shared,
                ))
            });
            current.task = Some(tokio::spawn(traffic));
            current.runtime = Some(runtime::Handle::current().id());
        }
    }

    /// Waits for the answer to a job whose task runs on another runtime. That runtime may have
    /// stopped: one of `block_on` works only while that call lasts. If the task is not polled for as
    /// long as it could wait for the server, a task on the caller's runtime takes the link over.
    async fn watch(
        &self,
        mut shared: Arc<Shared>,
        number: u64,
        mut answer: oneshot::Receiver<Answer>,
    ) -> Result<Answer, oneshot::error::RecvError> {
        loop {
            let polls = shared.polls.load(Ordering::Acquire);
            if let Ok(answer) = timeout(PATIENCE, &mut answer).await {
                return answer;
            }
            if shared.polls.load(Ordering::Acquire) != polls {
                continue;
            }
            let next = self.take_over(&shared);
            // The task has taken the job and may have written it.
            if shared.left_from.get().is_some_and(|left| number < *left) {
                let cause = io::Error::from(io::ErrorKind::TimedOut).into();
                return Ok(Err(Failure::Unknown(cause)));
            }
            shared = next;
        }
    }

    /// Puts a new task on this runtime in the place of one that nobody drives. The jobs that the old
    /// one has not taken go on here. Returns what the new task shares.
    fn take_over(&self, old: &Arc<Shared>) -> Arc<Shared> {
        let mut current = self.current();
        if Arc::ptr_eq(&current.shared, old) {
            let waiting = std::mem::take(&mut *old.jobs());
            let next = current.last_number + 1;
            let left = waiting.front().map_or(next, |job| job.number);
            let _ = old.left_from.set(left);
            old.close();
            current.shared = Arc::default();
            *current.shared.jobs() = waiting;
            current.task = None;
            self.keep_running(&mut current);
            metrics::counter!("redstart_reconnects_total", "connection" => self.name).increment(1);
        }
        Arc::clone(&current.shared)
    }
}
