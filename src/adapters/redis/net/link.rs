//! A connection that many tasks share.
//!
//! Callers put packed commands into a queue. One task writes all queued commands together, reads
//! the replies in place, and gives each caller its own. Many commands of a busy publisher then cost
//! one write, one wake-up and one time limit. The task knows which commands it has written, so it
//! can tell commands that were certainly not done from those that may have been.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::RedisError;
use tokio::runtime;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::error::{self, NoConnection, is_sound};
use super::server::{RESPONSE_TIMEOUT, Server};
use super::socket::{PART, Socket, timed_out};
use crate::api::supervise::Watch;
use crate::domain::Error;

/// How many bytes the task writes at once.
const BATCH: usize = 1024 * 1024;
/// How many bytes of commands may be unanswered.
const UNDER_WAY: usize = 4 * BATCH;

/// A task that has not been polled for this long is not driven: it waits for the server no longer
/// than for a reply.
const PATIENCE: Duration = RESPONSE_TIMEOUT.saturating_add(Duration::from_secs(1));

/// The raw reply to each command, or the error that the server answered.
pub(in crate::adapters::redis) type Replies = Vec<Result<Bytes, RedisError>>;

/// Why a caller gets no replies.
#[derive(Debug)]
enum Failure {
    /// Nothing was sent to the server at this address.
    NotSent(Arc<str>, NoConnection),
    /// At least a part was sent.
    Unknown(RedisError),
}

/// The commands of one caller.
#[derive(Debug)]
struct Job {
    number: u64,
    packed: Vec<u8>,
    commands: usize,
    caller: oneshot::Sender<Result<Replies, Failure>>,
}

/// What the callers and one task share.
#[derive(Debug, Default)]
struct Shared {
    jobs: Mutex<VecDeque<Job>>,
    more: Notify,
    closed: AtomicBool,
    /// How often the task has been polled.
    polls: AtomicU64,
    /// Set when another task takes the link over: the first job that this one has not taken.
    left_from: OnceLock<u64>,
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.more.notify_one();
    }
}

/// The connection. Its task connects at the first command, and again after a failure.
#[derive(Debug)]
pub(in crate::adapters::redis) struct Link {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    server: Server,
    name: &'static str,
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
    pub(in crate::adapters::redis) fn new(server: Server, name: &'static str) -> Self {
        let inner = Inner {
            server,
            name,
            current: Mutex::default(),
            watch: Watch::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Sends packed commands and waits for the reply to each. The commands of several calls go out
    /// in the order of the calls, even when a caller does not wait between two calls.
    ///
    /// Dropping the future may come too late to keep the commands from being sent.
    pub(in crate::adapters::redis) fn send(
        &self,
        operation: &'static str,
        packed: Vec<u8>,
        commands: usize,
    ) -> impl Future<Output = Result<Replies, Error>> + Send + use<> {
        let (caller, answer) = oneshot::channel();
        let here = runtime::Handle::try_current().ok().map(|here| here.id());
        let (number, shared, is_own) = {
            let mut current = self.inner.current();
            self.inner.keep_running(&mut current);
            current.last_number += 1;
            let number = current.last_number;
            current.shared.jobs().push_back(Job {
                number,
                packed,
                commands,
                caller,
            });
            current.shared.more.notify_one();
            // The caller of a runtime drives it, and so the task on it.
            let is_own = here.is_none() || here == current.runtime;
            (number, Arc::clone(&current.shared), is_own)
        };
        let watch = self.inner.watch.clone();
        // Only a caller of another runtime needs to watch the task.
        let foreign = (!is_own).then(|| (Arc::clone(&self.inner), shared));
        async move {
            let answer = match foreign {
                None => answer.await,
                Some((inner, shared)) => inner.watch(shared, number, answer).await,
            };
            match answer {
                Ok(Ok(replies)) => Ok(replies),
                Ok(Err(Failure::NotSent(address, failure))) => {
                    Err(error::no_connection(operation, &address, failure))
                }
                Ok(Err(Failure::Unknown(cause))) => Err(error::sent(operation, cause)),
                // The task has panicked, or it ended together with its runtime.
                Err(_) => {
                    let broken = || io::ErrorKind::BrokenPipe.into();
                    let cause = watch.problem().map_or_else(broken, io::Error::other);
                    Err(error::sent(operation, cause.into()))
                }
            }
        }
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
            let traffic = self.watch.supervise("the link", move |_| {
                counted(Traffic::new(server.clone(), name, Arc::clone(&shared)))
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
        mut answer: oneshot::Receiver<Result<Replies, Failure>>,
    ) -> Result<Result<Replies, Failure>, oneshot::error::RecvError> {
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

/// Runs the task and counts how often it is polled.
async fn counted(traffic: Traffic) {
    let shared = Arc::clone(&traffic.shared);
    let mut running = pin!(traffic.run());
    poll_fn(|context| {
        shared.polls.fetch_add(1, Ordering::AcqRel);
        running.as_mut().poll(context)
    })
    .await;
}

/// A caller whose commands were written.
struct Waiting {
    size: usize,
    commands: usize,
    replies: Replies,
    caller: oneshot::Sender<Result<Replies, Failure>>,
}

struct Traffic {
    server: Server,
    name: &'static str,
    shared: Arc<Shared>,
    socket: Option<Socket>,
    connected: u64,
    waiting: VecDeque<Waiting>,
    /// Bytes of unanswered commands.
    under_way: usize,
    /// The last write had several callers, or other callers were waiting for replies.
    busy: bool,
    /// When the server last sent something, or when the task began to wait for it.
    heard: Instant,
    /// The server has answered that it no longer serves this connection.
    unsound: bool,
    out: Vec<u8>,
}

impl Traffic {
    fn new(server: Server, name: &'static str, shared: Arc<Shared>) -> Self {
        Self {
            server,
            name,
            shared,
            socket: None,
            connected: 0,
            waiting: VecDeque::new(),
            under_way: 0,
            busy: false,
            heard: Instant::now(),
            unsound: false,
            out: Vec::new(),
        }
    }

    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            if self.busy && !shared.jobs().is_empty() {
                // With many senders, let all ready tasks queue their commands first, so that one
                // write carries them all. The runtime runs the task that was woken last first, and
                // each sender wakes this one.
                tokio::task::yield_now().await;
            }
            let jobs = self.take();
            if !jobs.is_empty() {
                self.busy = jobs.len() > 1 || !self.waiting.is_empty();
            }
            if !jobs.is_empty() {
                self.write(jobs).await;
            } else if self.waiting.is_empty() {
                if std::mem::take(&mut self.unsound) {
                    self.socket = None;
                }
                if shared.closed.load(Ordering::Acquire) {
                    return;
                }
                self.idle().await;
            } else {
                self.read().await;
            }
        }
    }

    /// Waits for work. Notices when the server closes the idle connection, before a command is
    /// lost on it.
    async fn idle(&mut self) {
        let shared = Arc::clone(&self.shared);
        let closed = async {
            match &mut self.socket {
                // No reply is due, so any byte or end means that the connection is unusable.
                Some(socket) => {
                    let _ = socket.fill().await;
                }
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            biased;
            () = shared.more.notified() => false,
            () = closed => true,
        };
        if ended {
            self.socket = None;
        }
    }

    /// Takes the jobs that may be written now.
    fn take(&mut self) -> Vec<Job> {
        let mut jobs = self.shared.jobs();
        let mut size = 0;
        let mut taken = Vec::new();
        while let Some(next) = jobs.front() {
            // The caller has given up, and nothing was sent: do not run the commands later.
            if next.caller.is_closed() {
                jobs.pop_front();
                continue;
            }
            // A job larger than a batch goes alone.
            let fits = self.under_way + size + next.packed.len() <= UNDER_WAY && size < BATCH;
            if !fits && (self.under_way > 0 || size > 0) {
                break;
            }
            size += next.packed.len();
            taken.extend(jobs.pop_front());
        }
        taken
    }

    async fn write(&mut self, jobs: Vec<Job>) {
        // The wait for work may have seen the new job before it saw that the server closed the
        // connection.
        let idle = self.waiting.is_empty();
        let open = self.socket.take().filter(|open| !idle || !open.is_closed());
        let mut socket = match open {
            Some(socket) => socket,
            None => match self.server.connect_socket(self.name).await {
                Ok(socket) => {
                    if self.connected > 0 {
                        metrics::counter!("redstart_reconnects_total", "connection" => self.name)
                            .increment(1);
                    }
                    self.connected += 1;
                    socket
                }
                Err(failure) => {
                    // The next connect would fail the same way: tell the later callers now.
                    let behind = std::mem::take(&mut *self.shared.jobs());
                    for job in jobs.into_iter().chain(behind) {
                        let address = Arc::clone(self.server.address());
                        let failure = Failure::NotSent(address, failure.clone());
                        let _ = job.caller.send(Err(failure));
                    }
                    return;
                }
            },
        };
        if self.waiting.is_empty() {
            self.heard = Instant::now();
        }
        self.out.clear();
        let mut alone = None;
        let several = jobs.len() > 1;
        for job in jobs {
            let size = job.packed.len();
            if several {
                self.out.extend_from_slice(&job.packed);
            } else {
                alone = Some(job.packed);
            }
            self.under_way += size;
            self.waiting.push_back(Waiting {
                size,
                commands: job.commands,
                replies: Vec::with_capacity(job.commands),
                caller: job.caller,
            });
        }
        let packed = alone.as_ref().unwrap_or(&self.out);
        let written = socket.write_unless_silent(packed, RESPONSE_TIMEOUT).await;
        if packed.len() > PART {
            // The server has taken something until now.
            self.heard = Instant::now();
        }
        match written {
            Ok(()) => self.socket = Some(socket),
            Err(cause) => self.fail(&cause),
        }
        // Give the memory of a large batch back.
        self.out.shrink_to(BATCH);
    }

    /// Reads replies until a new job comes.
    async fn read(&mut self) {
        let Some(mut socket) = self.socket.take() else {
            return self.fail(&io::Error::from(io::ErrorKind::NotConnected).into());
        };
        let may_write = self.under_way < UNDER_WAY;
        let shared = Arc::clone(&self.shared);
        let began = std::time::Instant::now();
        let limit = self.heard + RESPONSE_TIMEOUT;
        let remaining = limit.saturating_duration_since(Instant::now());
        let outcome = tokio::select! {
            biased;
            filled = socket.fill() => filled.map(|()| true),
            () = shared.more.notified(), if may_write => Ok(false),
            () = sleep_until(limit) => Err(timed_out(remaining, began).into()),
        };
        let outcome = outcome.and_then(|filled| {
            if filled {
                self.heard = Instant::now();
                self.hand_out(&mut socket)?;
            }
            Ok(())
        });
        match outcome {
            Ok(()) => self.socket = Some(socket),
            Err(cause) => self.fail(&cause),
        }
    }

    /// Gives each caller its replies once they are complete.
    fn hand_out(&mut self, socket: &mut Socket) -> Result<(), RedisError> {
        while let Some(first) = self.waiting.front_mut() {
            while first.replies.len() < first.commands {
                let Some(reply) = socket.reply()? else {
                    return Ok(());
                };
                self.unsound |= reply.as_ref().is_err_and(|e| !is_sound(e));
                first.replies.push(reply);
            }
            if let Some(done) = self.waiting.pop_front() {
                self.under_way -= done.size;
                let _ = done.caller.send(Ok(done.replies));
            }
        }
        Ok(())
    }

    /// Ends a failed connection. The server may have run the unanswered commands.
    fn fail(&mut self, cause: &RedisError) {
        self.socket = None;
        self.under_way = 0;
        for waiting in self.waiting.drain(..) {
            let _ = waiting.caller.send(Err(Failure::Unknown(cause.clone())));
        }
    }
}
