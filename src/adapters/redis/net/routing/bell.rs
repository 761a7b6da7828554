//! The doorbell: one connection per node on which the server tells which keys have changed.
//!
//! `CLIENT TRACKING` in its broadcasting mode sends the names of changed keys with a prefix. The
//! connection speaks version 3 of the protocol, so the names and the replies to its pings come on one
//! connection, and either of them shows that it lives. It also subscribes to a channel: the server then
//! bounds the memory that it keeps for a process that stands still, as it does for every subscriber.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, RedisError};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::node::Node;
use super::nodes::Nodes;
use crate::adapters::redis::net::connections::socket::{Socket, timed_out, within};
use crate::adapters::redis::net::error::NoConnection;
use crate::adapters::redis::net::redirect::undone;
use crate::adapters::redis::resp::{Broken, Head, Walk};

/// How long a silent connection is relied on.
const PATIENCE: Patience = Patience {
    ping_every: Duration::from_secs(2),
    answer_within: Duration::from_millis(1500),
};
/// How long the set-up of a connection may take.
const SET_UP_WITHIN: Duration = Duration::from_secs(2);
/// How often the owners of slots are compared with the nodes that are listened to.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// After how many comparisons without a change the listener is told anyway: it then forgets groups that
/// nobody reads any more.
const TELL_ANYWAY: u32 = 60;
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The pause after the server has refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// The channel on which servers announce changed keys to clients of version 2.
const CHANNEL: &str = "__redis__:invalidate";

/// The number of the connection that hears the keys of a slot, or 0 while none does.
pub(in crate::adapters::redis) type HeardBy = Box<dyn Fn(u16) -> u64 + Send + Sync>;

/// How long a silent connection is relied on.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// How often it is asked whether it lives.
    ping_every: Duration,
    /// How long the server may be silent after that.
    answer_within: Duration,
}

/// Hears the doorbell.
pub(in crate::adapters::redis) trait Hears:
    fmt::Debug + Send + Sync
{
    /// A key may have changed.
    fn rang(&self, key: &[u8]);

    /// Which connection hears the keys of each slot from now on. Where it is another one than before,
    /// every key of the slot may have changed.
    fn heard_by(&self, connection: HeardBy);

    /// A server does not let this client listen.
    fn refused(&self, cause: &str);
}

/// The number of the last connection of this process. A task that starts again must not use the numbers
/// of an earlier one.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Which connection hears each node.
#[derive(Debug, Default)]
struct Connections {
    by_node: Mutex<Vec<(Arc<Node>, u64)>>,
    changed: Notify,
}

impl Connections {
    /// Notes that a new connection hears a node, or that nothing may be relied on that an earlier one
    /// has heard.
    fn begin(&self, node: &Arc<Node>) {
        let number = LAST.fetch_add(1, Ordering::AcqRel) + 1;
        self.end(node);
        let mut by_node = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        by_node.push((Arc::clone(node), number));
        self.changed.notify_one();
    }

    fn end(&self, node: &Arc<Node>) {
        let mut by_node = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        by_node.retain(|(known, _)| !Arc::ptr_eq(known, node));
        self.changed.notify_one();
    }

    fn get(&self) -> Vec<(Arc<Node>, u64)> {
        let by_node = self.by_node.lock();
        by_node.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A connection that hears a node, until this is dropped: also where its task ends in a panic.
struct Hearing<'a>(&'a Connections, &'a Arc<Node>);

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

/// A task that ends with its handle.
struct Attending(Arc<Node>, AbortHandle);

impl Drop for Attending {
    fn drop(&mut self) {
        self.1.abort();
    }
}

/// Listens at each node that holds a slot, until nobody hears.
pub(in crate::adapters::redis::net) async fn listen(
    nodes: Arc<Nodes>,
    prefixes: Vec<String>,
    hears: Weak<dyn Hears>,
) {
    let connections = Arc::<Connections>::default();
    let tracking = tracking(&prefixes);
    let mut attended: Vec<Attending> = Vec::new();
    // What the listener was last told of, and how often it was not told since.
    let (mut told, mut untold) = (None, 0);
    loop {
        // A cluster that does not answer is listened to as far as it is known.
        let _ = nodes.ready("listen").await;
        let owners = nodes.routes().map.owners();
        attended.retain(|Attending(node, _)| {
            let stays = owners.iter().any(|owner| Arc::ptr_eq(owner, node));
            if !stays {
                connections.end(node);
            }
            stays
        });
        for owner in owners {
            if attended.iter().any(|one| Arc::ptr_eq(&one.0, &owner)) {
                continue;
            }
            let attending = tokio::spawn(attend(
                Arc::clone(&owner),
                tracking.clone(),
                hears.clone(),
                Arc::clone(&connections),
            ));
            attended.push(Attending(owner, attending.abort_handle()));
        }
        let Some(listener) = hears.upgrade() else {
            return;
        };
        let (heard, routes) = (connections.get(), Arc::clone(&nodes));
        let numbers: Vec<u64> = heard.iter().map(|(_, number)| *number).collect();
        let now = Some((nodes.routes().map.fingerprint(), numbers));
        untold += 1;
        if told != now || untold >= TELL_ANYWAY {
            (told, untold) = (now, 0);
            listener.heard_by(Box::new(move |slot| {
                let owner = routes.owner(slot);
                let connection = heard.iter().find(|(node, _)| Arc::ptr_eq(node, &owner));
                connection.map_or(0, |(_, number)| *number)
            }));
        }
        drop(listener);
        tokio::select! {
            () = connections.changed.notified() => {}
            () = sleep(COMPARE_EVERY) => {}
        }
    }
}

/// Listens at one node. Connects again after a failure.
async fn attend(
    node: Arc<Node>,
    tracking: Cmd,
    hears: Weak<dyn Hears>,
    connections: Arc<Connections>,
) {
    let mut failures = 0_u32;
    loop {
        let pause = match connect(&node, &tracking).await {
            Ok(socket) => {
                if failures > 0 {
                    metrics::counter!("redstart_reconnects_total", "connection" => "redstart:bell")
                        .increment(1);
                }
                failures = 1;
                connections.begin(&node);
                let _hears = Hearing(&connections, &node);
                let all = || connections.begin(&node);
                let cause = tokio::select! {
                    biased;
                    cause = attend_socket(socket, PATIENCE, &hears, all) => cause,
                    () = node.is_left() => return,
                };
                tracing::debug!(server = %node.address(), %cause, "the doorbell's connection has ended");
                SHORTEST_PAUSE
            }
            Err(failure) if is_refusal(&failure) => {
                if let Some(hears) = hears.upgrade() {
                    hears.refused(&failure.cause.to_string());
                }
                REFUSED_PAUSE
            }
            Err(_) => {
                failures = failures.saturating_add(1);
                SHORTEST_PAUSE
                    .saturating_mul(1 << failures.min(8))
                    .min(LONGEST_PAUSE)
            }
        };
        tokio::select! {
            () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
            () = node.is_left() => return,
        }
    }
}

/// `CLIENT TRACKING` for all keys that begin with one of the prefixes.
fn tracking(prefixes: &[String]) -> Cmd {
    let mut tracking = redis::cmd("CLIENT");
    tracking.arg("TRACKING").arg("ON").arg("BCAST");
    for prefix in prefixes {
        tracking.arg("PREFIX").arg(prefix);
    }
    tracking
}

async fn connect(node: &Node, tracking: &Cmd) -> Result<Socket, NoConnection> {
    let mut socket = node.server.connect_socket("redstart:bell").await?;
    let hello = redis::cmd("HELLO").arg(3).to_owned();
    let subscribe = redis::cmd("SUBSCRIBE").arg(CHANNEL).to_owned();
    let setting_up = async {
        for command in [&hello, &subscribe, tracking] {
            socket.exchange(command).await?;
        }
        Ok::<_, RedisError>(())
    };
    within(SET_UP_WITHIN, setting_up).await?;
    Ok(socket)
}

/// Whether a server answers that it does not offer what the doorbell needs, or not to this user.
fn is_refusal(failure: &NoConnection) -> bool {
    let cause = &failure.cause;
    !failure.is_passing()
        && !cause.is_io_error()
        && undone(cause).is_none()
        && cause.clone().into_server_errors().is_some()
        && cause.detail() != Some("max number of clients reached")
}

/// Passes on what a connection hears, until it fails. `all` notes that every key may have changed.
async fn attend_socket(
    mut socket: Socket,
    patience: Patience,
    hears: &Weak<dyn Hears>,
    all: impl Fn(),
) -> RedisError {
    let Patience {
        ping_every,
        answer_within,
    } = patience;
    let ping = redis::cmd("PING").get_packed_command();
    let (mut pinged, mut deadline) = (None, Instant::now() + ping_every);
    loop {
        loop {
            match socket.reply() {
                Ok(Some(Ok(reply))) => {
                    let Some(hears) = hears.upgrade() else {
                        return io::Error::from(io::ErrorKind::Interrupted).into();
                    };
                    match pass_on(reply, &*hears) {
                        Ok(Told::Keys) => {}
                        Ok(Told::All) => all(),
                        Err(broken) => return broken.into(),
                    }
                }
                Ok(Some(Err(cause))) | Err(cause) => return cause,
                Ok(None) => break,
            }
        }
        let filled = tokio::select! {
            biased;
            filled = socket.fill() => Some(filled),
            () = sleep_until(deadline) => None,
        };
        match (filled, pinged) {
            (Some(Ok(())), _) => {
                pinged = None;
                deadline = Instant::now() + ping_every;
            }
            (Some(Err(cause)), _) => return cause,
            (None, Some(began)) => return timed_out(answer_within, began).into(),
            (None, None) => {
                pinged = Some(std::time::Instant::now());
                deadline = Instant::now() + answer_within;
                if let Err(cause) = within(answer_within, socket.write(&ping)).await {
                    return cause;
                }
            }
        }
    }
}

/// What a message told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    /// The names of changed keys, or nothing of keys.
    Keys,
    /// All keys may have changed: the server was flushed.
    All,
}

/// Passes the keys of a push on: `[invalidate, [key, …]]`. A null in place of the keys means all.
fn pass_on(message: Bytes, hears: &dyn Hears) -> Result<Told, Broken> {
    let mut walk = Walk::new(message);
    // The reply to a ping is no array, and other pushes have other names.
    if walk.next()? != Head::Array(2) || walk.payload()? != "invalidate" {
        return Ok(Told::Keys);
    }
    match walk.next()? {
        Head::Nil => Ok(Told::All),
        Head::Array(keys) => {
            for _ in 0..keys {
                hears.rang(&walk.payload()?);
            }
            Ok(Told::Keys)
        }
        _ => Err(Broken::new("an invalidation without keys")),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use redis::io::tcp::socket2::SockRef;
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::*;
    use crate::adapters::redis::net::connections::stream::Stream;

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Hears for Heard {
        fn rang(&self, key: &[u8]) {
            let key = String::from_utf8_lossy(key).into_owned();
            self.0.lock().unwrap().push(key);
        }

        fn heard_by(&self, _: HeardBy) {}

        fn refused(&self, _: &str) {}
    }

    /// A connection on which the server says nothing. It has ended, or lasts.
    #[derive(Debug)]
    struct Silent {
        socket: std::net::UdpSocket,
        writes: Arc<AtomicU64>,
        ends: bool,
    }

    impl AsyncRead for Silent {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.ends {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            }
        }
    }

    impl AsyncWrite for Silent {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Stream for Silent {
        fn socket(&self) -> SockRef<'_> {
            SockRef::from(&self.socket)
        }
    }

    /// Listens to a dead connection until it is left. Returns for how long, and how often it was asked.
    async fn listened_to(ends: bool, patience: Patience) -> (Duration, u64) {
        let hears: Arc<dyn Hears> = Arc::new(Heard::default());
        let writes = Arc::new(AtomicU64::new(0));
        let silent = Silent {
            socket: std::net::UdpSocket::bind("127.0.0.1:0").unwrap(),
            writes: Arc::clone(&writes),
            ends,
        };
        let socket = Socket::new(Box::new(silent));
        let hears = Arc::downgrade(&hears);
        let began = Instant::now();
        let listening = attend_socket(socket, patience, &hears, || {});
        let left = tokio::time::timeout(Duration::from_secs(60), listening).await;
        left.expect("a dead connection is left");
        (began.elapsed(), writes.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_silent_connection_is_asked_once_and_left_and_a_broken_one_is_left_at_once() {
        let patience = Patience {
            ping_every: Duration::from_millis(20),
            answer_within: Duration::from_millis(10),
        };
        let (silent, asked) = listened_to(false, patience).await;
        assert!(silent >= Duration::from_millis(30), "{silent:?}");
        assert_eq!(asked, 1);
        let (_, asked) = listened_to(true, PATIENCE).await;
        assert_eq!(asked, 0);
    }

    #[test]
    fn a_dead_connection_is_made_good_within_five_seconds() {
        // The next connection to a server that is there is set up well within a second.
        let set_up = Duration::from_secs(1);
        let left = PATIENCE.ping_every + PATIENCE.answer_within;
        assert!(left + SHORTEST_PAUSE + set_up <= Duration::from_secs(5));
    }

    #[test]
    fn the_keys_of_a_push_are_passed_on_and_a_null_means_all() {
        for (message, told, keys) in [
            (
                ">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n",
                Told::Keys,
                &["a", "b"][..],
            ),
            (">2\r\n$10\r\ninvalidate\r\n_\r\n", Told::All, &[]),
            ("+PONG\r\n", Told::Keys, &[]),
            (
                ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
                Told::Keys,
                &[],
            ),
        ] {
            let heard = Heard::default();
            let bytes = Bytes::from_static(message.as_bytes());
            assert_eq!(pass_on(bytes, &heard), Ok(told), "{message:?}");
            assert_eq!(*heard.0.lock().unwrap(), keys, "{message:?}");
        }
        let broken = ">2\r\n$10\r\ninvalidate\r\n:1\r\n";
        assert!(pass_on(Bytes::from_static(broken.as_bytes()), &Heard::default()).is_err());
    }

    #[test]
    fn an_answer_of_the_server_is_a_refusal_and_a_broken_connection_is_none() {
        use crate::adapters::redis::net::error::server_error;
        for refusal in [
            "NOPERM User ann has no permissions to run the 'client|tracking' command",
            "ERR unknown command 'HELLO'",
            "NOPROTO unsupported protocol version",
        ] {
            assert!(is_refusal(&server_error(refusal).into()), "{refusal}");
        }
        for passing in [
            "LOADING Redis is loading",
            "ERR max number of clients reached",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        ] {
            assert!(!is_refusal(&server_error(passing).into()), "{passing}");
        }
        let broken = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(!is_refusal(&broken.into()));
    }
}
