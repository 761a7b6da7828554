//! A connection that many tasks share: commands are sent together, replies read in place.
//!
//! Callers put packed commands into a queue; one task writes what has come together, reads the
//! replies and tells each caller its own. So a busy publisher costs one write, one wake-up
//! and one time limit for many commands. And because this task knows what it has written,
//! it can tell what was certainly not done from what may have been.

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
use crate::domain::Error;

/// What is written at once, and what may be on its way without a reply, in bytes.
const BATCH: usize = 1024 * 1024;
const UNDER_WAY: usize = 4 * BATCH;

/// The raw reply to each command, or the error that the server answered.
pub(in crate::adapters::redis) type Replies = Vec<Result<Bytes, RedisError>>;

/// Why there are no replies.
#[derive(Debug)]
enum Failure {
    /// Nothing was sent.
    NotSent(Arc<str>, NoConnection),
    /// It was sent, at least in part.
    Unknown(RedisError),
}

/// Commands of one caller.
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

/// The connection, made when it is needed and made anew when it has failed.
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

    /// Sends packed commands and waits for the reply to each. Those of several calls are sent in
    /// the order of the calls, also where nothing waits for the first one's replies before the next.
    ///
    /// The commands may have been sent when the future is dropped; nobody then gets the replies.
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
                // The task ended with the runtime that it ran on.
                Err(_) => Err(error::sent(
                    operation,
                    io::Error::from(io::ErrorKind::BrokenPipe).into(),
                )),
            }
        }
    }

    /// Starts the task where there is none, or where its runtime has ended.
    fn keep_running(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            let traffic = Traffic {
                server: self.server.clone(),
                name: self.name,
                shared: Arc::clone(&self.shared),
                socket: None,
                connected: 0,
                waiting: VecDeque::new(),
                under_way: 0,
                busy: false,
                heard: Instant::now(),
                unsound: false,
                out: Vec::new(),
            };
            *task = Some(tokio::spawn(traffic.run()));
        }
    }
}

/// A caller whose commands were sent.
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
    /// Bytes of commands whose replies are still to come.
    under_way: usize,
    /// The last write had more than one caller, or others were waiting for replies.
    busy: bool,
    /// When the server last showed that it is there, while replies are to come.
    heard: Instant,
    /// The server has said that it does not serve on this connection.
    unsound: bool,
    out: Vec<u8>,
}

impl Traffic {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            if self.busy && !shared.jobs().is_empty() {
                // Where many send, every task that is ready has its turn first, so that one
                // write carries what they all send: a runtime runs who was woken last first,
                // which would be this task after each of them.
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

    /// Waits for work. An idle connection that the server closes is noticed here, before a
    /// command is lost on it.
    async fn idle(&mut self) {
        let shared = Arc::clone(&self.shared);
        let closed = async {
            match &mut self.socket {
                // Nothing was asked: whatever comes is the end.
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

    /// Jobs that may be written now.
    fn take(&mut self) -> Vec<Job> {
        let mut jobs = self.shared.jobs();
        let mut size = 0;
        let mut taken = Vec::new();
        while let Some(next) = jobs.front() {
            // Nobody waits for it any more, and it was not sent: it is not done later behind
            // the back of a caller who has given up.
            if next.caller.is_closed() {
                jobs.pop_front();
                continue;
            }
            // A job that is larger than a batch goes alone.
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
        let mut socket = match self.socket.take() {
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
                    // Those who wait behind them would meet the same.
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
        // One large batch should not hold its memory for ever.
        self.out.shrink_to(BATCH);
    }

    /// Reads replies until something new is to be written.
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

    /// Gives every caller whose replies are complete its replies.
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

    /// The connection has failed: what was sent may have been done.
    fn fail(&mut self, cause: &RedisError) {
        self.socket = None;
        self.under_way = 0;
        for waiting in self.waiting.drain(..) {
            let _ = waiting.caller.send(Err(Failure::Unknown(cause.clone())));
        }
    }
}
