//! A connection that many tasks share.
//!
//! Callers put packed commands into a queue. One task writes all queued commands together, reads
//! the replies in place, and gives each caller its own. Many commands of a busy publisher then cost
//! one write, one wake-up and one time limit. The task knows which commands it has written, so it
//! can tell commands that were certainly not done from those that may have been.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use redis::RedisError;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::error::{self, NoConnection, is_sound};
use super::server::{RESPONSE_TIMEOUT, Server};
use super::socket::{Socket, within};
use crate::api::supervise::Watch;
use crate::domain::Error;

/// How many bytes the task writes at once.
const BATCH: usize = 1024 * 1024;
/// How many bytes of commands may be unanswered.
const UNDER_WAY: usize = 4 * BATCH;

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
    packed: Vec<u8>,
    commands: usize,
    caller: oneshot::Sender<Result<Replies, Failure>>,
}

#[derive(Debug, Default)]
struct Shared {
    jobs: Mutex<VecDeque<Job>>,
    more: Notify,
    closed: AtomicBool,
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection. Its task connects at the first command, and again after a failure.
#[derive(Debug)]
pub(in crate::adapters::redis) struct Link {
    server: Server,
    name: &'static str,
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.more.notify_one();
    }
}

impl Link {
    pub(in crate::adapters::redis) fn new(server: Server, name: &'static str) -> Self {
        Self {
            server,
            name,
            shared: Arc::default(),
            task: Mutex::new(None),
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
        self.shared.jobs().push_back(Job {
            packed,
            commands,
            caller,
        });
        self.keep_running();
        self.shared.more.notify_one();
        async move {
            match answer.await {
                Ok(Ok(replies)) => Ok(replies),
                Ok(Err(Failure::NotSent(address, failure))) => {
                    Err(error::no_connection(operation, &address, failure))
                }
                Ok(Err(Failure::Unknown(cause))) => Err(error::sent(operation, cause)),
                // The task ended together with its runtime.
                Err(_) => Err(error::sent(
                    operation,
                    io::Error::from(io::ErrorKind::BrokenPipe).into(),
                )),
            }
        }
    }

    /// Starts the task if none runs, or if its runtime has ended.
    fn keep_running(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            let (server, name) = (self.server.clone(), self.name);
            let shared = Arc::clone(&self.shared);
            // Callers of a task that panics get their error at once; health asks on the link itself.
            let traffic = Watch::default().supervise("the link", move |_| {
                Traffic::new(server.clone(), name, Arc::clone(&shared)).run()
            });
            *task = Some(tokio::spawn(traffic));
        }
    }
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
        match within(RESPONSE_TIMEOUT, socket.write(packed)).await {
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
        let outcome = tokio::select! {
            biased;
            filled = socket.fill() => filled.map(|()| true),
            () = shared.more.notified(), if may_write => Ok(false),
            () = sleep_until(self.heard + RESPONSE_TIMEOUT) => {
                Err(io::Error::from(io::ErrorKind::TimedOut).into())
            }
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
