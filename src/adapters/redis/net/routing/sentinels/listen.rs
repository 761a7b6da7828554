//! Listens to one sentinel for the ends of failovers.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{RedisError, Value};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Follower, Sentinels, ask};
use crate::adapters::redis::net::connections::server::Server;
use crate::adapters::redis::net::connections::socket::{Socket, within};
use crate::adapters::redis::net::error::NoConnection;
use crate::adapters::redis::net::redirect::Address;
use crate::adapters::redis::resp::{pack, reply};

/// The pause before a sentinel that cannot be heard is tried again. Until then it is asked as often.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a silent sentinel is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long a sentinel that tells of a failover may take to confirm it, before its word counts alone.
const CONFIRM_WITHIN: Duration = Duration::from_millis(100);

/// How long to wait for a replica that a sentinel promotes, and how often to look.
const PROMOTED_WITHIN: Duration = Duration::from_secs(2);
const PROMOTION_LOOK: Duration = Duration::from_millis(10);

/// Where a sentinel says that the primary is another one.
const SWITCHED: &str = "+switch-master";
/// Where the sentinel that leads a failover says that it has told a replica to become the primary.
const PROMOTING: &str = "+failover-state-wait-promotion";

/// Listens to one sentinel.
pub(super) struct Listener {
    pub(super) nodes: Weak<dyn Follower>,
    pub(super) sentinel: Server,
    pub(super) service: Arc<str>,
    pub(super) ended: CancellationToken,
}

impl Listener {
    pub(super) async fn run(self) {
        let listening = async {
            loop {
                // A sentinel that is gone is the normal case here: the others tell of a failover.
                let _ = self.listen().await;
                // The pauses of many processes do not fall together.
                sleep(PAUSE.mul_f64(0.8 + 0.2 * fastrand::f64())).await;
                self.ask().await;
            }
        };
        tokio::select! {
            () = self.ended.cancelled() => {}
            () = listening => {}
        }
    }

    /// Does something with the sentinels that all listeners share, while somebody uses them.
    fn with<T>(&self, act: impl FnOnce(&dyn Follower, &Sentinels) -> T) -> Option<T> {
        let nodes = self.nodes.upgrade()?;
        nodes.sentinels().map(|sentinels| act(&*nodes, sentinels))
    }

    /// Asks this sentinel for the primary. Returns whether it has answered.
    async fn ask(&self) -> bool {
        let Ok(statement) = ask::primary(&self.sentinel, &self.service).await else {
            return false;
        };
        self.with(|nodes, sentinels| {
            if let Some(primary) = sentinels.learn_of_one(statement) {
                nodes.hand_over(primary);
            }
        });
        true
    }

    async fn listen(&self) -> Result<(), NoConnection> {
        let mut socket = self.sentinel.connect_socket("redstart:watch").await?;
        let mut subscribe = redis::cmd("SUBSCRIBE");
        subscribe.arg(SWITCHED).arg(PROMOTING);
        within(2 * PING_EVERY, socket.exchange(&subscribe)).await?;
        self.with(|_, sentinels| sentinels.note_heard());
        // A failover may have ended before the sentinel was heard.
        self.ask().await;
        if let Ok(others) = ask::others(&self.sentinel, &self.service).await {
            self.with(|_, sentinels| {
                sentinels.add(&self.sentinel, &others);
                sentinels.keep_listening(&self.nodes);
            });
        }
        loop {
            let Some((channel, text)) = self.next(&mut socket).await? else {
                continue;
            };
            if channel == PROMOTING {
                if let Some((from, to)) = ask::read_promotion(&text, &self.service) {
                    self.expect_promotion(&from, &to).await;
                }
                continue;
            }
            let Some((from, to)) = ask::read_switch(&text, &self.service) else {
                continue;
            };
            // Ask the same sentinel, since the news may be old: a listener that was slow must not leave a
            // server that has become the primary again.
            let confirmed = timeout(CONFIRM_WITHIN, self.ask()).await;
            if !confirmed.unwrap_or_default() {
                self.switched(&from, &to);
            }
        }
    }

    fn switched(&self, from: &Address, to: &Address) {
        self.with(|nodes, sentinels| {
            if let Some(primary) = sentinels.switched(from, to) {
                nodes.hand_over(primary);
            }
        });
    }

    /// Moves to a replica as soon as it is a primary. The sentinels take up to a second to notice that,
    /// and the former primary still takes writes meanwhile, which all are lost.
    async fn expect_promotion(&self, from: &Address, to: &Address) {
        let Some(replica) = self.with(|_, sentinels| sentinels.at(to)) else {
            return;
        };
        let promoted = async {
            // Each connect asks the server for its role.
            while replica.connect_socket("redstart:watch").await.is_err() {
                sleep(PROMOTION_LOOK).await;
            }
        };
        if timeout(PROMOTED_WITHIN, promoted).await.is_ok() {
            self.switched(from, to);
        }
    }

    /// The channel and the text of the next message. `None` for anything else that the sentinel says.
    async fn next(&self, socket: &mut Socket) -> Result<Option<(String, String)>, RedisError> {
        let mut pinged = false;
        loop {
            if let Some(reply) = socket.reply()? {
                self.with(|_, sentinels| sentinels.note_heard());
                return read(redis::parse_redis_value(&reply?)?);
            }
            match timeout(PING_EVERY, socket.fill()).await {
                Ok(filled) => filled?,
                Err(_) if pinged => {
                    return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                }
                Err(_) => {
                    pinged = true;
                    let mut packed = Vec::new();
                    pack(&mut packed, &[b"PING"]);
                    within(PING_EVERY, socket.write(&packed)).await?;
                }
            }
        }
    }
}

/// Reads what a sentinel says to a listener: `message`, channel and text, or the answer to a ping.
fn read(reply: Value) -> Result<Option<(String, String)>, RedisError> {
    let mut parts = reply::array(reply)?.into_iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(kind), Some(channel), Some(text)) if reply::text(kind.clone())? == "message" => {
            Ok(Some((reply::text(channel)?, reply::text(text)?)))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_have_a_text() {
        let parsed = |bytes: &str| redis::parse_redis_value(bytes.as_bytes()).unwrap();
        let message = "*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$4\r\ntext\r\n";
        let (channel, text) = read(parsed(message)).unwrap().unwrap();
        assert_eq!((&*channel, &*text), (SWITCHED, "text"));
        for other in [
            "*2\r\n$4\r\npong\r\n$0\r\n\r\n",
            "*3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n",
        ] {
            assert_eq!(read(parsed(other)).unwrap(), None);
        }
        assert!(read(parsed(":1\r\n")).is_err());
    }
}
