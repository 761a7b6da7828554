//! The bells of the groups that one runtime reads, and the keys that ring them.

mod looks;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::keys::Keys;
use super::later_bells::{Awaited, LaterBells};
use super::net::{Ask, Ear, HeardBy, Hears, Net};
use super::scripts;
use crate::api::supervise::{Watch, log};
use crate::domain::{Error, ErrorKind};
use crate::store::{Bell, GroupAt, Partition, Ring};
use looks::Readers;
use table::{Due, Listed, Table};

pub(super) use looks::SharedReaders;
pub(super) use table::Watched;

/// Until a key changes, the server remembers the connections that have read it, also ended ones. Each connection
/// that begins to watch a key makes it change with this chance, so the server remembers about as many.
const INVALIDATE_ONE_IN: usize = 64;
/// How long a reader waits for the server to say whether it tells of changes. After that it reads
/// as if the connection were broken.
const DECIDED_WITHIN: Duration = Duration::from_secs(2);

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
        let here = here.or_insert_with(|| Bells::new(net.clone(), keys.clone()));
        Some(Arc::clone(here))
    }
}

/// The bells of the groups that one runtime reads.
#[derive(Debug)]
pub(super) struct Bells {
    me: Weak<Self>,
    net: Net,
    keys: Keys,
    table: Mutex<Table>,
    /// Completes when a connection begins or ceases to hear, or when a server refuses.
    changed: Notify,
    /// Completes when there are more keys to watch.
    more: Arc<Notify>,
    listening: Mutex<Listening>,
    readers: Arc<Readers>,
    later: LaterBells,
    watch: Watch,
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
    fn new(net: Net, keys: Keys) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            net,
            keys,
            table: Mutex::default(),
            changed: Notify::new(),
            more: Arc::default(),
            listening: Mutex::default(),
            readers: Arc::default(),
            later: LaterBells::default(),
            watch: Watch::default(),
        })
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
        let rings = [
            (log, Ring::Entries),
            (self.keys.redelivery(at), Ring::Redeliveries),
            (self.keys.retry(at), Ring::Due),
            (self.keys.later(&at.partition), Ring::Due),
            (self.keys.owners(at), Ring::Owners),
        ];
        let rings = rings.map(|(key, ring)| (key.into_bytes(), ring, true));
        let later_bell = self.keys.later_bell(&at.partition).into_bytes();
        let mut listed = Listed {
            bell: Arc::downgrade(&bell),
            slot,
            keys: rings.iter().map(|(key, ..)| key.clone()).collect(),
            heard_by: 0,
        };
        for (key, ring, is_watched) in rings.into_iter().chain([(later_bell, Ring::Due, false)]) {
            table.add(key, slot, (ring, is_watched), &bell);
        }
        if let Some(ear) = table.ear(slot) {
            self.begin_to_hear(at, &mut listed, &ear);
        }
        table.groups.insert(at.clone(), listed);
        bell
    }

    /// Asks a connection to hear a group. The bell hears once the server watches all of its keys.
    fn begin_to_hear(&self, at: &GroupAt, listed: &mut Listed, ear: &Ear) {
        let number = ear.number();
        listed.heard_by = number;
        let (me, at) = (self.me.clone(), at.clone());
        let then = move |is_watched: bool| {
            let Some(me) = me.upgrade() else {
                return false;
            };
            let table = me.table();
            let listed = table.groups.get(&at);
            let listed = listed.filter(|listed| listed.heard_by == number);
            let Some((listed, bell)) = listed.and_then(|one| Some((one, one.bell.upgrade()?)))
            else {
                return false;
            };
            if is_watched {
                // The server's notices before this answer have come before it.
                let watched = listed.keys.iter().filter_map(|key| table.watched(key));
                watched.for_each(|watched| watched.note(watched.told()));
            }
            if is_watched || bell.hears() {
                bell.set_hears(is_watched);
            }
            let invalidated = listed
                .keys
                .get(fastrand::usize(..INVALIDATE_ONE_IN))
                .cloned();
            drop(table);
            if is_watched {
                me.end_refusal();
                invalidated.into_iter().for_each(|key| me.invalidate(&key));
            }
            me.changed.notify_waiters();
            true
        };
        ear.ask(Ask {
            keys: listed.keys.clone(),
            then: Box::new(then),
        });
    }

    /// Ends a refusal once every group is heard: as long as one node refuses, its groups are not.
    fn end_refusal(&self) {
        if self.listening().refusal.is_none() {
            return;
        }
        let table = self.table();
        let mut bells = table.groups.values().filter_map(|one| one.bell.upgrade());
        let are_heard = bells.all(|bell| bell.hears());
        drop(table);
        if are_heard {
            self.listening().refusal = None;
        }
    }

    /// Lets the server forget the connections that have read a key.
    fn invalidate(&self, key: &[u8]) {
        let key = String::from_utf8_lossy(key);
        let (net, call) = (self.net.clone(), scripts::invalidate().key(key));
        tokio::spawn(async move {
            if let Err(error) = net
                .call("invalidate a watched key", &call, |_| Ok(()))
                .await
            {
                log(
                    || tracing::debug!(%error, "the server keeps the connections that have read a key"),
                );
            }
        });
    }

    /// Whether the server watches a key of entries; `None` where nobody has asked for its bell.
    pub(super) fn watched(&self, key: &str) -> Option<Arc<Watched>> {
        self.table().watched(key.as_bytes()).cloned()
    }

    /// Asks the server to watch the keys whose time has come. Returns when the next one is due.
    fn watch_due(&self, now: Instant) -> Option<Instant> {
        let mut table = self.table();
        for Due { name, ear, told } in table.take_due(now) {
            let (me, named, number) = (self.me.clone(), name.clone(), ear.number());
            // It may have changed before the server watched it.
            let then = move |is_watched: bool| {
                let told = is_watched.then_some(told);
                me.upgrade()
                    .is_some_and(|me| me.ring_again(&named, number, told))
            };
            ear.ask(Ask {
                keys: vec![name],
                then: Box::new(then),
            });
        }
        table.next_due()
    }

    /// Rings for a key that a connection was asked to watch. Returns whether that connection still hears it.
    fn ring_again(&self, name: &[u8], number: u64, told: Option<u64>) -> bool {
        let rung = self.table().ring_again(name, number, told, Instant::now());
        self.wake_if(rung == Some(true));
        rung.is_some()
    }

    /// Wakes the task that asks the server to watch keys, if a key is due before it would wake.
    fn wake_if(&self, is_first: bool) {
        if is_first {
            self.more.notify_one();
        }
    }

    /// Begins to listen, if nobody does yet, and waits until the servers tell of changes to the groups of these
    /// bells. Returns false where a server refuses to.
    pub(super) async fn listen(self: &Arc<Self>, bells: &[Arc<Bell>]) -> bool {
        self.begin();
        let decided = async {
            loop {
                let changed = self.changed.notified();
                if bells.iter().all(|bell| bell.hears()) || self.listening().refusal.is_some() {
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
        let (me, net) = (Arc::downgrade(self), self.net.clone());
        let running = self.watch.supervise("the doorbell", move |_| {
            let hears: Weak<dyn Hears> = me.clone();
            let (listening, watching) = (net.listen(hears), watch_again(me.clone()));
            async {
                tokio::select! {
                    () = listening => {}
                    () = watching => {}
                }
            }
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
        SharedReaders::enter(&self.readers)
    }
}

impl Hears for Bells {
    fn rang(&self, name: &[u8]) {
        let is_first = self.table().rang(name, Instant::now());
        self.wake_if(is_first);
    }

    fn heard_by(&self, connection: HeardBy) {
        let mut table = self.table();
        let before = table.groups.len();
        let mut changed = false;
        table.groups.retain(|at, listed| {
            let Some(bell) = listed.bell.upgrade() else {
                return false;
            };
            match connection(listed.slot) {
                Some(ear) if ear.number() != listed.heard_by => {
                    self.begin_to_hear(at, listed, &ear);
                }
                None if listed.heard_by != 0 => {
                    listed.heard_by = 0;
                    bell.set_hears(false);
                    changed = true;
                }
                _ => {}
            }
            true
        });
        table.connection = Some(connection);
        if table.groups.len() < before {
            table.remove_unused();
        }
        drop(table);
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

/// Asks the server to watch keys again when it is time, until nobody holds the bells.
async fn watch_again(bells: Weak<Bells>) {
    loop {
        let Some(me) = bells.upgrade() else {
            return;
        };
        let (next, more) = (me.watch_due(Instant::now()), Arc::clone(&me.more));
        drop(me);
        match next {
            Some(at) => {
                let _ = timeout_at(at, more.notified()).await;
            }
            None => more.notified().await,
        }
    }
}
