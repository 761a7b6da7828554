//! The bells of the groups that one runtime reads, and the keys that ring them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::keys::Keys;
use super::later_bells::{Awaited, LaterBells};
use super::net::{HeardBy, Hears, Net};
use crate::api::supervise::{Watch, log};
use crate::domain::{Error, ErrorKind};
use crate::store::{Bell, GroupAt, Partition, Ring};

/// How long a reader waits for the server to say whether it tells of changes. After that it reads
/// as if the connection were broken.
const DECIDED_WITHIN: Duration = Duration::from_secs(2);
/// How often a reader looks although nothing has rung.
const LOOK_EVERY: Duration = Duration::from_secs(50);
/// The bound where a container has very many readers. Consumers that are silent for longer than
/// `Topics::LIVE_WITHIN` count as dead.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(100);
/// The time between the looks of two readers, where they have enough.
const BETWEEN_LOOKS: Duration = Duration::from_millis(9);
/// Looks that are due in the same span of this length are sent together: one wake-up then serves many.
const LOOK_TOGETHER: Duration = Duration::from_millis(250);

/// The bells of each runtime. A runtime that stands still rings nobody, so each has its own.
#[derive(Debug, Default)]
pub(super) struct BellsByRuntime(Mutex<HashMap<runtime::Id, Arc<Bells>>>);

impl BellsByRuntime {
    /// The bells of the current runtime; `None` outside of one.
    pub(super) fn current(&self, net: &Net, keys: &Keys) -> Option<Arc<Bells>> {
        let here = runtime::Handle::try_current().ok()?.id();
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|id, bells| *id == here || Arc::strong_count(bells) > 1 || bells.are_in_use());
        let here = bells.entry(here);
        let here = here.or_insert_with(|| Arc::new(Bells::new(net.clone(), keys.clone())));
        Some(Arc::clone(here))
    }
}

/// The bells of the groups that one runtime reads.
#[derive(Debug)]
pub(super) struct Bells {
    net: Net,
    keys: Keys,
    table: Mutex<Table>,
    /// Completes when a connection begins or ceases to hear, or when a server refuses.
    changed: Notify,
    listening: Mutex<Listening>,
    readers: Arc<Readers>,
    later: LaterBells,
    watch: Watch,
}

#[derive(Default)]
struct Table {
    groups: HashMap<GroupAt, Listed>,
    by_key: HashMap<Vec<u8>, Vec<(Weak<Bell>, Ring)>>,
    /// Which connection hears a slot, as last told.
    connection: Option<HeardBy>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("groups", &self.groups.len())
            .finish_non_exhaustive()
    }
}

/// A group's bell.
#[derive(Debug)]
struct Listed {
    bell: Weak<Bell>,
    slot: u16,
    /// The number of the connection that hears its keys, or 0.
    heard_by: u64,
}

#[derive(Debug, Default)]
struct Listening {
    task: Option<JoinHandle<()>>,
    refusal: Option<String>,
}

impl Drop for Bells {
    fn drop(&mut self) {
        if let Some(task) = self.listening().task.take() {
            task.abort();
        }
        // Who still holds a bell must not wait for it.
        for listed in self.table().groups.values() {
            if let Some(bell) = listed.bell.upgrade() {
                bell.set_hears(false);
            }
        }
    }
}

impl Bells {
    fn new(net: Net, keys: Keys) -> Self {
        Self {
            net,
            keys,
            table: Mutex::default(),
            changed: Notify::new(),
            listening: Mutex::default(),
            readers: Arc::default(),
            later: LaterBells::default(),
            watch: Watch::default(),
        }
    }

    /// Whether anybody holds one of them. Owned groups hold nothing else.
    fn are_in_use(&self) -> bool {
        let table = self.table();
        let mut groups = table.groups.values();
        groups.any(|listed| listed.bell.strong_count() > 0)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The bell of a group. It rings once a connection listens.
    pub(super) fn bell_of(&self, at: &GroupAt) -> Arc<Bell> {
        let mut table = self.table();
        if let Some(bell) = table.groups.get(at).and_then(|one| one.bell.upgrade()) {
            return bell;
        }
        let bell = Arc::<Bell>::default();
        let log = self.keys.log(&at.partition);
        let slot = self.net.slot(&log).unwrap_or(0);
        let heard_by = table.connection.as_ref().map_or(0, |of| of(slot));
        let listed = Listed {
            bell: Arc::downgrade(&bell),
            slot,
            heard_by,
        };
        table.groups.insert(at.clone(), listed);
        for (key, ring) in [
            (log, Ring::Entries),
            (self.keys.redelivery(at), Ring::Redeliveries),
            (self.keys.retry(at), Ring::Due),
            (self.keys.later(&at.partition), Ring::Due),
            (self.keys.later_bell(&at.partition), Ring::Due),
            (self.keys.owners(at), Ring::Owners),
        ] {
            let rung = table.by_key.entry(key.into_bytes()).or_default();
            rung.retain(|(bell, _)| bell.strong_count() > 0);
            rung.push((Arc::downgrade(&bell), ring));
        }
        if heard_by != 0 {
            bell.set_hears(true);
        }
        bell
    }

    /// Begins to listen, if nobody does yet, and waits until a server tells of changes to this bell's
    /// group. Returns false where it refuses to.
    pub(super) async fn listen(self: &Arc<Self>, bell: &Bell) -> bool {
        self.begin();
        let decided = async {
            loop {
                let changed = self.changed.notified();
                if bell.hears() || self.listening().refusal.is_some() {
                    return;
                }
                changed.await;
            }
        };
        // A server that is out of reach may let this client listen later.
        let _ = timeout(DECIDED_WITHIN, decided).await;
        self.listening().refusal.is_none()
    }

    /// Rings for messages for later of a partition that are due soon, also while no server tells of
    /// changes, until the result is dropped.
    pub(super) fn wait_for_later(self: &Arc<Self>, at: &Partition) -> Awaited {
        let me = Arc::downgrade(self);
        let key = self.keys.later_bell(at);
        self.later.wait_for(&self.net, me, key)
    }

    fn begin(self: &Arc<Self>) {
        let mut listening = self.listening();
        let task = listening.task.as_ref();
        if task.is_some_and(|task| !task.is_finished()) {
            return;
        }
        let me = Arc::downgrade(self);
        let (net, prefixes) = (self.net.clone(), self.keys.bell_prefixes());
        let running = self.watch.supervise("the doorbell", move |_| {
            let me: Weak<dyn Hears> = me.clone();
            net.listen(prefixes.clone(), me)
        });
        listening.task = Some(tokio::spawn(running));
    }

    /// Why the server does not tell of changes.
    pub(super) fn refusal(&self) -> Option<Error> {
        let listening = self.listening();
        let cause = listening.refusal.as_ref()?;
        Some(Error::new(ErrorKind::Refused, "listen", cause.clone()))
    }

    /// Counts a reader on the shared connection.
    pub(super) fn enter_reader(&self) -> SharedReaders {
        self.readers.count.fetch_add(1, Ordering::Relaxed);
        SharedReaders(Arc::clone(&self.readers))
    }
}

impl Hears for Bells {
    fn rang(&self, key: &[u8]) {
        let table = self.table();
        let Some(rung) = table.by_key.get(key) else {
            return;
        };
        for (bell, ring) in rung {
            if let Some(bell) = bell.upgrade() {
                bell.ring(*ring);
            }
        }
    }

    fn heard_by(&self, connection: HeardBy) {
        let mut table = self.table();
        let before = table.groups.len();
        let (mut heard, mut changed) = (true, false);
        table.groups.retain(|_, listed| {
            let Some(bell) = listed.bell.upgrade() else {
                return false;
            };
            let number = connection(listed.slot);
            heard &= number != 0;
            if number != listed.heard_by {
                listed.heard_by = number;
                bell.set_hears(number != 0);
                changed = true;
            }
            true
        });
        table.connection = Some(connection);
        if table.groups.len() < before {
            table.by_key.retain(|_, rung| {
                rung.retain(|(bell, _)| bell.strong_count() > 0);
                !rung.is_empty()
            });
        }
        let any = !table.groups.is_empty();
        drop(table);
        if heard && any {
            self.listening().refusal = None;
        }
        if changed {
            self.changed.notify_waiters();
        }
    }

    fn refused(&self, cause: &str) {
        let known = self.listening().refusal.replace(cause.to_owned());
        if known.is_none() {
            log(|| {
                tracing::warn!(
                    cause,
                    "the server does not tell which topics have changed: each subscription reads on a \
                     connection of its own",
                );
            });
        }
        // Wakes the readers on the shared connection: they open connections of their own.
        for listed in self.table().groups.values_mut() {
            // The connection of another node may hear this group again under the same number.
            listed.heard_by = 0;
            if let Some(bell) = listed.bell.upgrade() {
                bell.set_hears(false);
            }
        }
        self.changed.notify_waiters();
    }
}

/// The readers on the shared connection.
#[derive(Debug)]
struct Readers {
    count: AtomicUsize,
    began: Instant,
}

impl Default for Readers {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            began: Instant::now(),
        }
    }
}

/// One of the readers on the shared connection. Dropping it takes it out.
#[derive(Debug)]
pub(super) struct SharedReaders(Arc<Readers>);

impl SharedReaders {
    /// When a reader looks that has looked, although nothing has rung. The rate of looks is bounded,
    /// however many readers there are.
    pub(super) fn next_look(&self, looked: Instant) -> Instant {
        let readers = self.0.count.load(Ordering::Relaxed);
        let readers = u32::try_from(readers).unwrap_or(u32::MAX);
        let pause = BETWEEN_LOOKS.saturating_mul(readers);
        let pause = pause.clamp(LOOK_EVERY, LOOK_AT_LEAST_EVERY);
        // Spread out, because all readers look at the beginning.
        let at = looked + pause.mul_f64(0.75 + fastrand::f64() / 4.0);
        let since = at.saturating_duration_since(self.0.began).as_millis();
        let spans = since.div_ceil(LOOK_TOGETHER.as_millis());
        self.0.began + LOOK_TOGETHER.saturating_mul(u32::try_from(spans).unwrap_or(u32::MAX))
    }
}

impl Drop for SharedReaders {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::adapters::redis::net::Access;
    use crate::domain::Placement;

    #[test]
    fn looks_of_many_readers_come_together_and_spread_over_the_pause() {
        let readers = Arc::<Readers>::default();
        readers.count.store(10_000, Ordering::Relaxed);
        let one_of = SharedReaders(Arc::clone(&readers));
        let looked = readers.began + Duration::from_secs(7);
        let looks: BTreeSet<Duration> = (0..10_000)
            .map(|_| one_of.next_look(looked) - looked)
            .collect();
        let (first, last) = (looks.first().unwrap(), looks.last().unwrap());
        assert!(*first >= LOOK_EVERY && *last <= LOOK_AT_LEAST_EVERY);
        // 67 to 90 seconds in spans of a quarter of a second.
        assert!(looks.len() <= 101, "{} moments", looks.len());
        assert!(looks.len() > 80, "{} moments", looks.len());
    }

    #[test]
    fn another_runtime_takes_no_bell_from_its_holder() {
        let [one, other] = [0, 1].map(|_| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap()
        });
        let net = async { Net::new("redis://127.0.0.1:1", &Access::default(), None) };
        let net = one.block_on(net).unwrap();
        let keys = Keys::new(None, Placement::Spread);
        let bells = BellsByRuntime::default();
        let at = GroupAt::of(&"orders".parse().unwrap(), &"billing".parse().unwrap());
        let bell_of = || bells.current(&net, &keys).unwrap().bell_of(&at);
        let held = one.block_on(async { bell_of() });
        let others = other.block_on(async { bell_of() });
        assert!(!Arc::ptr_eq(&held, &others));
        assert!(Arc::ptr_eq(&held, &one.block_on(async { bell_of() })));
    }

    #[tokio::test]
    async fn a_group_is_heard_again_after_a_refusal_by_another_node() {
        let net = Net::new("redis://127.0.0.1:1", &Access::default(), None).unwrap();
        let bells = Bells::new(net, Keys::new(None, Placement::Spread));
        let at = GroupAt::of(&"orders".parse().unwrap(), &"billing".parse().unwrap());
        let bell = bells.bell_of(&at);
        let same_connection = || -> HeardBy { Box::new(|_| 7) };
        bells.heard_by(same_connection());
        assert!(bell.hears());
        bells.refused("NOPERM");
        assert!(!bell.hears() && bells.refusal().is_some());
        bells.heard_by(same_connection());
        assert!(bell.hears() && bells.refusal().is_none());
    }
}
