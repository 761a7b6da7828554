//! The bells of messages for later: a message that is due soon rings at once, whichever process has set
//! it.
//!
//! A reader on the shared connection hears of the changes of its topic. For the other readers one blocked
//! XREAD per slot waits for the streams in which `lua/lib/bell.lua` rings. It needs no right to listen,
//! and a publish costs the server nothing more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use redis::Cmd;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::net::{Hears, Net, ReadFailure, ReaderConnection, Unblock, error};
use super::resp::{Broken, Walk, reply};
use crate::api::supervise::{Watch, back_off, log};
use crate::domain::{EntryId, Error, ErrorKind, whole_millis};

const OPERATION: &str = "wait for messages for later";
/// How long a read blocks. A connection that is silent for longer counts as dead.
const BLOCKS_FOR: Duration = Duration::from_secs(10);
/// The shortest time between two reads that brought a ring.
const BETWEEN_RINGS: Duration = Duration::from_millis(100);
/// How often a read is ended that waits for the wrong topics.
const END_AGAIN: Duration = Duration::from_millis(10);
/// The pause after the server has refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// The bells that readers wait for, by slot. All are in one where one server holds all keys.
#[derive(Debug, Default)]
pub(super) struct LaterBells {
    slots: Mutex<HashMap<Option<u16>, Slot>>,
    watch: Watch,
}

#[derive(Debug)]
struct Slot {
    topics: Arc<Topics>,
    task: JoinHandle<()>,
}

/// The keys of one slot, with the number of readers that wait for each.
#[derive(Debug, Default)]
struct Topics {
    readers: Mutex<BTreeMap<String, usize>>,
    changed: Notify,
}

/// A reader that waits for a bell, until this is dropped.
#[derive(Debug)]
pub(super) struct Awaited {
    topics: Arc<Topics>,
    key: String,
}

impl Drop for LaterBells {
    fn drop(&mut self) {
        for slot in self.slots().values() {
            slot.task.abort();
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut readers = self.topics.readers();
        if let Some(count) = readers.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.key);
                self.topics.changed.notify_one();
            }
        }
    }
}

impl LaterBells {
    fn slots(&self) -> MutexGuard<'_, HashMap<Option<u16>, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells `hears` of each ring of a key's bell until the result is dropped.
    pub(super) fn wait_for(&self, net: &Net, hears: Weak<dyn Hears>, key: String) -> Awaited {
        let mut slots = self.slots();
        let slot = slots.entry(net.slot(&key)).or_insert_with(|| {
            let topics = Arc::<Topics>::default();
            let task = self.start(net, hears, &topics);
            Slot { topics, task }
        });
        let topics = Arc::clone(&slot.topics);
        let mut readers = topics.readers();
        let count = readers.entry(key.clone()).or_default();
        *count += 1;
        if *count == 1 {
            topics.changed.notify_one();
        }
        drop(readers);
        Awaited { topics, key }
    }

    fn start(&self, net: &Net, hears: Weak<dyn Hears>, topics: &Arc<Topics>) -> JoinHandle<()> {
        let (net, topics) = (net.clone(), Arc::clone(topics));
        let watched = self
            .watch
            .supervise("the bell of messages for later", move |_| {
                run(net.clone(), Weak::clone(&hears), Arc::clone(&topics))
            });
        tokio::spawn(watched)
    }
}

impl Topics {
    fn readers(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> Vec<String> {
        self.readers().keys().cloned().collect()
    }
}

/// Waits for rings while anybody hears them. Connects again after a failure.
async fn run(net: Net, hears: Weak<dyn Hears>, topics: Arc<Topics>) {
    let (mut failures, mut is_refused) = (0, false);
    while hears.strong_count() > 0 {
        let Some(key) = topics.keys().into_iter().next() else {
            topics.changed.notified().await;
            continue;
        };
        let opened = net.open_reader(OPERATION, &key, "redstart:later").await;
        let failure = match opened {
            Ok((connection, unblock)) => {
                let mut waiting = Waiting {
                    connection,
                    unblock,
                    topics: &topics,
                    seen: HashMap::new(),
                };
                waiting.pass_on(&hears, &mut failures).await
            }
            Err(error) => Some(error),
        };
        let Some(error) = failure else {
            continue;
        };
        if error.kind() != ErrorKind::Refused {
            log(|| tracing::debug!(%error, "waiting for messages for later failed"));
            failures += 1;
            sleep(back_off(failures)).await;
            continue;
        }
        if !std::mem::replace(&mut is_refused, true) {
            log(|| {
                tracing::warn!(
                    %error,
                    "the server does not tell of messages for later: those that an ended process has \
                     set for the next seconds come up to five seconds late",
                );
            });
        }
        sleep(REFUSED_PAUSE).await;
    }
}

/// A connection that waits for rings.
struct Waiting<'a> {
    connection: ReaderConnection,
    unblock: Unblock,
    topics: &'a Topics,
    /// The last ring of each key. A key without one rings for whatever its stream holds.
    seen: HashMap<Bytes, EntryId>,
}

impl Waiting<'_> {
    /// Passes rings on until the connection fails. Returns `None` when nobody waits any more.
    async fn pass_on(&mut self, hears: &Weak<dyn Hears>, failures: &mut u32) -> Option<Error> {
        loop {
            // A change before this line is in the keys.
            let _ = self.topics.changed.notified().now_or_never();
            let keys = self.topics.keys();
            if keys.is_empty() {
                return None;
            }
            let rung = match self.wait(&keys).await {
                Ok(rung) => rung,
                Err(error) => return Some(error),
            };
            *failures = 0;
            let hears = hears.upgrade()?;
            let again = Instant::now() + BETWEEN_RINGS;
            let is_rung = !rung.is_empty();
            for (key, id) in rung {
                hears.rang(&key);
                self.seen.insert(key, id);
            }
            drop(hears);
            if is_rung {
                sleep_until(again).await;
            }
        }
    }

    async fn wait(&mut self, keys: &[String]) -> Result<Vec<(Bytes, EntryId)>, Error> {
        let Self {
            connection,
            unblock,
            topics,
            seen,
        } = self;
        let reading = connection.exchange(OPERATION, |wait| command(keys, seen, wait), BLOCKS_FOR);
        let ending = async {
            topics.changed.notified().await;
            loop {
                // An interrupt that overtakes its read does nothing. One that no connection is left
                // for must not hold the read up.
                let _ = timeout(BLOCKS_FOR, unblock.unblock(OPERATION)).await;
                sleep(END_AGAIN).await;
            }
        };
        let answer = tokio::select! {
            biased;
            answer = reading => answer,
            () = ending => return Ok(Vec::new()),
        };
        match answer {
            Ok(reply) => rings(reply).map_err(|e| error::sent(OPERATION, e.into())),
            Err(ReadFailure::Sent(cause)) => Err(error::sent(OPERATION, cause)),
            Err(ReadFailure::NotDone(error)) => Err(error),
        }
    }
}

/// Waits for the next ring of any key.
fn command(keys: &[String], seen: &HashMap<Bytes, EntryId>, wait: Duration) -> Cmd {
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(1);
    // A wait of 0 would be for ever.
    let millis = whole_millis(wait);
    if millis > 0 {
        command.arg("BLOCK").arg(millis);
    }
    command.arg("STREAMS").arg(keys);
    for key in keys {
        let last = seen.get(key.as_bytes());
        command.arg(last.copied().unwrap_or_default().to_string());
    }
    command
}

/// Reads the reply: `[[key, [[id, fields], …]], …]`, or nothing.
fn rings(reply: Bytes) -> Result<Vec<(Bytes, EntryId)>, Broken> {
    let mut walk = Walk::new(reply);
    let mut rings = Vec::new();
    for _ in 0..walk.array()? {
        walk.array()?;
        let key = walk.payload()?;
        for _ in 0..walk.array()? {
            walk.array()?;
            let id = reply::parse_id(&walk.payload()?).ok_or(Broken::new("no entry id"))?;
            for _ in 0..walk.array()? {
                walk.payload()?;
            }
            rings.push((key.clone(), id));
        }
    }
    Ok(rings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_asks_for_what_comes_after_the_last_ring_of_each_topic() {
        let keys = ["{a}:later:bell".to_owned(), "{b}:later:bell".to_owned()];
        let reply = "*1\r\n*2\r\n$14\r\n{b}:later:bell\r\n*1\r\n*2\r\n$3\r\n5-1\r\n*2\r\n$3\r\ndue\r\n$1\r\n9\r\n";
        let rung = rings(Bytes::from_static(reply.as_bytes())).unwrap();
        let seen: HashMap<_, _> = rung.into_iter().collect();
        let command = command(&keys, &seen, Duration::from_millis(7));
        let packed = String::from_utf8(command.get_packed_command()).unwrap();
        let words: Vec<&str> = packed.lines().skip(2).step_by(2).collect();
        assert_eq!(
            words.join(" "),
            "XREAD COUNT 1 BLOCK 7 STREAMS {a}:later:bell {b}:later:bell 0-0 5-1"
        );
        assert!(rings(Bytes::from_static(b"*-1\r\n")).unwrap().is_empty());
        assert!(rings(Bytes::from_static(b"*1\r\n$1\r\na\r\n")).is_err());
    }
}
