//! The task that carries a link: it writes queued commands together, and reads their replies in place.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use redis::RedisError;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::natives::Natives;
use super::server::{RESPONSE_TIMEOUT, Server};
use super::socket::{PART, Socket, timed_out, within};
use crate::adapters::redis::net::commands::{Answer, Commands, Failure, Replies, TakesBack};
use crate::adapters::redis::net::error::{NoConnection, is_sound};
use crate::adapters::redis::net::redirect::undone;

/// How many bytes the task writes at once.
const BATCH: usize = 1024 * 1024;
/// How many bytes of commands may be unanswered.
const UNDER_WAY: usize = 4 * BATCH;

/// How often somebody is told of a silent server.
const TELL_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(in crate::adapters::redis::net) struct Job {
    pub(in crate::adapters::redis::net) number: u64,
    pub(in crate::adapters::redis::net) commands: Commands,
}

/// What the callers and one task share.
#[derive(Debug, Default)]
pub(in crate::adapters::redis::net) struct Shared {
    jobs: Mutex<VecDeque<Job>>,
    pub(in crate::adapters::redis::net) more: Notify,
    closed: AtomicBool,
    /// How often the task has been polled.
    pub(in crate::adapters::redis::net) polls: AtomicU64,
    /// Set when another task takes the link over: the first job that this one has not taken.
    pub(in crate::adapters::redis::net) left_from: OnceLock<u64>,
}

impl Shared {
    pub(in crate::adapters::redis::net) fn jobs(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::adapters::redis::net) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.more.notify_one();
    }
}

/// Whether the server has not run the command of a reply.
fn is_not_done(reply: &Result<Bytes, RedisError>) -> bool {
    reply.as_ref().is_err_and(|cause| undone(cause).is_some())
}

/// Runs the task and counts how often it is polled.
pub(in crate::adapters::redis::net) async fn counted(traffic: Traffic) {
    let shared = Arc::clone(&traffic.shared);
    let mut running = pin!(traffic.run());
    poll_fn(|context| {
        shared.polls.fetch_add(1, Ordering::AcqRel);
        running.as_mut().poll(context)
    })
    .await;
}

/// Commands that were written, and the replies that have come so far.
struct Waiting {
    commands: Commands,
    replies: Replies,
    /// The server has not done one of the commands.
    undone: bool,
}

pub(in crate::adapters::redis::net) struct Traffic {
    server: Server,
    name: &'static str,
    takes_back: Weak<dyn TakesBack>,
    left: CancellationToken,
    natives: Option<Arc<Natives>>,
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
    /// How long the server must be silent before somebody is told, or the connection fails.
    patience: Duration,
    /// The server has answered that it no longer serves this connection.
    unsound: bool,
    /// The slots and calls of commands that were given back, while later ones are under way.
    given_back: Vec<(u16, u64)>,
    out: Vec<u8>,
}

impl Traffic {
    pub(in crate::adapters::redis::net) fn new(
        server: Server,
        name: &'static str,
        takes_back: Weak<dyn TakesBack>,
        left: CancellationToken,
        natives: Option<Arc<Natives>>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            server,
            name,
            takes_back,
            left,
            natives,
            shared,
            socket: None,
            connected: 0,
            waiting: VecDeque::new(),
            under_way: 0,
            busy: false,
            heard: Instant::now(),
            patience: TELL_EVERY,
            unsound: false,
            given_back: Vec::new(),
            out: Vec::new(),
        }
    }

    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            if self.left.is_cancelled() {
                self.give_up();
            }
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

    /// Ends the work at a server that serves nothing any more: it may still answer, but nobody will ever
    /// read what it has written.
    fn give_up(&mut self) {
        self.fail(&io::Error::from(io::ErrorKind::ConnectionAborted).into());
        let queued = std::mem::take(&mut *self.shared.jobs());
        for job in queued {
            let address = Arc::clone(self.server.address());
            let cause = io::Error::from(io::ErrorKind::ConnectionAborted);
            self.give_back(job.commands, Err(Failure::NotSent(address, cause.into())));
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
        let left = self.left.clone();
        let is_left = left.is_cancelled();
        let ended = tokio::select! {
            biased;
            () = shared.more.notified() => false,
            () = closed => true,
            () = left.cancelled(), if !is_left => true,
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
            if next.commands.caller.is_closed() {
                jobs.pop_front();
                continue;
            }
            // Nothing is under way, so the caller that waits for this need not wait.
            if next.commands.count == 0 && taken.is_empty() && self.waiting.is_empty() {
                if let Some(job) = jobs.pop_front() {
                    let _ = job.commands.caller.send(Ok(Replies::new()));
                }
                continue;
            }
            // A job larger than a batch goes alone.
            let more = next.commands.packed.len();
            let fits = self.under_way + size + more <= UNDER_WAY && size < BATCH;
            if !fits && (self.under_way > 0 || size > 0) {
                break;
            }
            size += more;
            taken.extend(jobs.pop_front());
        }
        taken
    }

    async fn write(&mut self, mut jobs: Vec<Job>) {
        // The wait for work may have seen the new job before it saw that the server closed the
        // connection.
        let idle = self.waiting.is_empty();
        let open = self.socket.take().filter(|open| !idle || !open.is_closed());
        let mut socket = match open {
            Some(socket) => socket,
            None => match self.connect().await {
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
                        self.give_back(job.commands, Err(failure));
                    }
                    return;
                }
            },
        };
        // A caller may have given up while the task connected.
        jobs.retain(|job| !job.commands.caller.is_closed());
        if jobs.is_empty() {
            self.socket = Some(socket);
            return;
        }
        if self.waiting.is_empty() {
            self.heard = Instant::now();
        }
        self.out.clear();
        let several = jobs.len() > 1;
        for job in jobs {
            let commands = job.commands;
            if several {
                self.out.extend_from_slice(&commands.packed);
            }
            self.under_way += commands.packed.len();
            self.waiting.push_back(Waiting {
                replies: Vec::with_capacity(commands.count),
                commands,
                undone: false,
            });
        }
        let packed = match self.waiting.back() {
            Some(alone) if !several => &alone.commands.packed,
            _ => &self.out,
        };
        let written = tokio::select! {
            biased;
            written = socket.write_unless_silent(packed, RESPONSE_TIMEOUT) => written,
            () = self.left.cancelled() => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
        };
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

    /// Connects, unless the server serves nothing any more: one that stands still would take its time.
    async fn connect(&self) -> Result<Socket, NoConnection> {
        tokio::select! {
            biased;
            connected = self.connect_and_ask() => connected,
            () = self.left.cancelled() => {
                Err(io::Error::from(io::ErrorKind::ConnectionAborted).into())
            }
        }
    }

    async fn connect_and_ask(&self) -> Result<Socket, NoConnection> {
        let mut socket = self.server.connect_socket(self.name).await?;
        if let Some(natives) = &self.natives {
            within(RESPONSE_TIMEOUT, natives.ask(&mut socket)).await?;
        }
        Ok(socket)
    }

    /// Reads replies until a new job comes.
    async fn read(&mut self) {
        let Some(mut socket) = self.socket.take() else {
            return self.fail(&io::Error::from(io::ErrorKind::NotConnected).into());
        };
        let may_write = self.under_way < UNDER_WAY;
        let shared = Arc::clone(&self.shared);
        let began = std::time::Instant::now();
        let patience = self.patience.min(RESPONSE_TIMEOUT);
        let limit = self.heard + patience;
        let remaining = limit.saturating_duration_since(Instant::now());
        let outcome = tokio::select! {
            biased;
            () = self.left.cancelled() => {
                Err(io::Error::from(io::ErrorKind::ConnectionAborted).into())
            }
            filled = socket.fill() => filled.map(|()| true),
            () = shared.more.notified(), if may_write => Ok(false),
            () = sleep_until(limit) => {
                if patience < RESPONSE_TIMEOUT {
                    self.patience = patience + TELL_EVERY;
                    self.tell_of_silence();
                    Ok(false)
                } else {
                    Err(timed_out(remaining, began).into())
                }
            }
        };
        let outcome = outcome.and_then(|filled| {
            if filled {
                self.heard = Instant::now();
                self.patience = TELL_EVERY;
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
            while first.replies.len() < first.commands.count {
                let Some(reply) = socket.reply()? else {
                    return Ok(());
                };
                if let Err(cause) = &reply {
                    self.unsound |= !is_sound(cause);
                    first.undone |= is_not_done(&reply);
                }
                first.replies.push(reply);
            }
            if let Some(done) = self.waiting.pop_front() {
                self.under_way -= done.commands.packed.len();
                self.hand_on(done);
            }
        }
        // What is still queued may be done before that which was given back.
        if self.shared.jobs().is_empty() {
            self.given_back.clear();
        }
        Ok(())
    }

    fn hand_on(&mut self, done: Waiting) {
        let Waiting {
            commands,
            replies,
            undone: is_undone,
        } = done;
        let place = commands.slot.map(|slot| (slot, commands.call));
        if let Some((slot, call)) = place.filter(|place| self.given_back.contains(place))
            && replies.iter().any(|reply| !is_not_done(reply))
            && let Some(takes_back) = self.takes_back.upgrade()
        {
            takes_back.overtaken(slot, call);
        }
        if is_undone {
            let is_new = |place: &(u16, u64)| !self.given_back.contains(place);
            self.given_back.extend(place.filter(is_new));
            self.give_back(commands, Ok(replies));
        } else {
            let _ = commands.caller.send(Ok(replies));
        }
    }

    fn tell_of_silence(&self) {
        if let Some(takes_back) = self.takes_back.upgrade() {
            takes_back.silent();
        }
    }

    /// Gives commands that were not done back, if somebody repeats them; else answers their caller.
    fn give_back(&self, commands: Commands, answer: Answer) {
        match self
            .takes_back
            .upgrade()
            .filter(|_| commands.slot.is_some())
        {
            Some(takes_back) => takes_back.take_back(self.server.address(), commands, answer),
            None => drop(commands.caller.send(answer)),
        }
    }

    /// Ends a failed connection. The server may have run the unanswered commands.
    fn fail(&mut self, cause: &RedisError) {
        if let Some(socket) = self.socket.take().filter(|_| !self.waiting.is_empty()) {
            socket.abandon();
        }
        self.under_way = 0;
        self.patience = TELL_EVERY;
        self.given_back.clear();
        self.tell_of_silence();
        let mut slots = Vec::new();
        for Waiting { commands, .. } in std::mem::take(&mut self.waiting) {
            let failure = Failure::Unknown(cause.clone());
            let numbers = commands.numbers.iter();
            numbers.for_each(|numbers| numbers.note_late(true));
            if commands.may_repeat() && !commands.caller.is_closed() {
                slots.extend(commands.slot);
                self.give_back(commands, Err(failure));
            } else {
                let _ = commands.caller.send(Err(failure));
            }
        }
        self.give_back_unsent(&slots);
    }

    /// Gives queued commands of these slots back, which must not overtake the ones that were given back
    /// before.
    fn give_back_unsent(&self, slots: &[u16]) {
        let Some(takes_back) = self.takes_back.upgrade().filter(|_| !slots.is_empty()) else {
            return;
        };
        let queued = std::mem::take(&mut *self.shared.jobs());
        let is_behind = |job: &Job| job.commands.slot.is_some_and(|slot| slots.contains(&slot));
        let (behind, others): (VecDeque<Job>, _) = queued.into_iter().partition(is_behind);
        for job in behind {
            takes_back.take_back_unsent(self.server.address(), job.commands);
        }
        // More may have come meanwhile.
        let mut jobs = self.shared.jobs();
        for job in others.into_iter().rev() {
            jobs.push_front(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;

    use super::*;
    use crate::adapters::redis::net::connections::access::Access;

    #[derive(Debug, Default)]
    struct Taken(Mutex<Vec<u64>>, Mutex<Vec<u64>>);

    impl TakesBack for Taken {
        fn take_back(&self, _: &Arc<str>, commands: Commands, _: Answer) {
            self.0.lock().unwrap().push(commands.call);
        }

        fn take_back_unsent(&self, _: &Arc<str>, _: Commands) {}

        fn silent(&self) {}

        fn overtaken(&self, _: u16, call: u64) {
            self.1.lock().unwrap().push(call);
        }
    }

    fn commands() -> Commands {
        Commands {
            slot: Some(7),
            call: 1,
            packed: Vec::new(),
            count: 1,
            numbers: None,
            caller: oneshot::channel().0,
        }
    }

    #[tokio::test]
    async fn a_queued_publish_that_overtakes_one_given_back_is_told() {
        let found = Server::read("redis://127.0.0.1:1", &Access::default()).unwrap();
        let [server] = &found.servers[..] else {
            panic!("one server");
        };
        let taken = Arc::<Taken>::default();
        let takes_back: Weak<dyn TakesBack> =
            Arc::downgrade(&(Arc::clone(&taken) as Arc<dyn TakesBack>));
        let shared = Arc::<Shared>::default();
        let left = CancellationToken::new();
        let mut traffic = Traffic::new(
            server.clone(),
            "test",
            takes_back,
            left,
            None,
            Arc::clone(&shared),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let mut socket = Socket::new(Box::new(stream.unwrap()));
        let (mut peer, _) = listener.accept().await.unwrap();
        let waiting = |commands| Waiting {
            commands,
            replies: Vec::new(),
            undone: false,
        };
        // The second one is queued, and not written, when the slot has moved; then it comes back.
        traffic.waiting.push_back(waiting(commands()));
        let queued = Job {
            number: 2,
            commands: commands(),
        };
        shared.jobs().push_back(queued);
        peer.write_all(b"-MOVED 7 127.0.0.1:2\r\n").await.unwrap();
        socket.fill().await.unwrap();
        traffic.hand_out(&mut socket).unwrap();
        assert_eq!(*taken.0.lock().unwrap(), [1]);
        let queued = shared.jobs().pop_front().unwrap();
        traffic.waiting.push_back(waiting(queued.commands));
        peer.write_all(b"$3\r\n1-1\r\n").await.unwrap();
        socket.fill().await.unwrap();
        traffic.hand_out(&mut socket).unwrap();
        assert_eq!(*taken.1.lock().unwrap(), [1]);
        assert!(traffic.given_back.is_empty());
    }
}
