//! All nodes, and which of them holds which slot.
//!
//! A single server is a map with one node. A cluster changes the map, and sentinels change the address of
//! its one node.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ask;
use super::gate::Gate;
use super::node::Node;
use super::pause::{CALL_LIMIT, Pause};
use super::sentinels::{Follower, Sentinels};
use super::slots::{self, Range, SlotMap};
use crate::adapters::redis::net::commands::Failure;
use crate::adapters::redis::net::connections::server::{Found, Layout, Server};
use crate::adapters::redis::net::numbers::{Numbering, Numbers};
use crate::adapters::redis::net::redirect::Address;
use crate::domain::{Error, ErrorKind, NativeCommand, NativeCommands};

/// How long a caller waits for another one that asks.
const ASKED_WITHIN: Duration = Duration::from_secs(3);
/// The shortest time between two questions.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long a node may take to tell the readers that their slots have moved.
const LEAVE_AFTER: Duration = Duration::from_millis(500);
/// The age at which the map is asked for again, without a reason.
const STALE_AFTER: Duration = Duration::from_secs(30);
/// The same while no sentinel can be heard, so that none tells of a change.
const DEAF_STALE_AFTER: Duration = Duration::from_secs(1);

/// What the routing of a call needs. A publish holds it while it enters the queue of its node.
#[derive(Debug)]
pub(in crate::adapters::redis::net) struct Routes {
    pub(in crate::adapters::redis::net) map: SlotMap<Node>,
    /// The slots whose publishes wait.
    pub(in crate::adapters::redis::net) gates: HashMap<u16, Gate>,
    /// All nodes by address, without slots too.
    known: HashMap<Arc<str>, Arc<Node>>,
}

/// All nodes of one URL.
#[derive(Debug)]
pub(in crate::adapters::redis::net) struct Nodes {
    me: Weak<Self>,
    seeds: Vec<Server>,
    native: NativeCommands,
    numbering: Numbering,
    changes: Changes,
    routes: RwLock<Routes>,
    /// When a node was last asked for the map. Locked by the caller that asks.
    asked: Mutex<Option<Instant>>,
    /// How often the map was asked for, with success or without.
    questions: AtomicU64,
    learned: AtomicBool,
    refreshing: AtomicBool,
}

/// Who says that the map has changed.
#[derive(Debug)]
enum Changes {
    Never,
    /// Every node of the cluster.
    ByNodes,
    BySentinels(Box<Sentinels>),
}

impl Nodes {
    pub(in crate::adapters::redis::net) fn new(found: Found) -> Option<Arc<Self>> {
        let mut seeds = found.servers;
        let first = seeds.first()?.clone();
        let native = found.native;
        let (first, changes) = match found.layout {
            Layout::Single => (first, Changes::Never),
            Layout::Cluster => (first, Changes::ByNodes),
            Layout::Sentinels(primary) => {
                let sentinels = std::mem::take(&mut seeds);
                let sentinels = Sentinels::new(sentinels, primary.clone())?;
                (primary, Changes::BySentinels(Box::new(sentinels)))
            }
        };
        Some(Arc::new_cyclic(|me: &Weak<Self>| {
            let node = Arc::new(Node::new(first, me, native));
            let known = HashMap::from([(Arc::clone(node.address()), Arc::clone(&node))]);
            Self {
                me: me.clone(),
                learned: AtomicBool::new(matches!(changes, Changes::Never)),
                seeds,
                native,
                numbering: Numbering::default(),
                changes,
                routes: RwLock::new(Routes {
                    map: SlotMap::of_one(node),
                    gates: HashMap::new(),
                    known,
                }),
                asked: Mutex::new(None),
                questions: AtomicU64::new(0),
                refreshing: AtomicBool::new(false),
            }
        }))
    }

    /// The native commands that are switched on.
    pub(in crate::adapters::redis::net) fn native(&self) -> NativeCommands {
        self.native
    }

    /// Numbers for messages of a slot, if its node adds numbered messages only once.
    pub(in crate::adapters::redis::net) fn numbers(
        &self,
        slot: u16,
        count: usize,
    ) -> Option<Numbers> {
        // Without a lock of its own where it is switched off.
        if !self.native.contains(NativeCommand::XaddIdmp) {
            return None;
        }
        let has = self.owner(slot).natives.has(NativeCommand::XaddIdmp);
        has.then(|| self.numbering.give(count)).flatten()
    }

    pub(in crate::adapters::redis::net) fn weak(&self) -> Weak<Self> {
        self.me.clone()
    }

    /// Whether the URL names a cluster, so that redirects are followed.
    pub(in crate::adapters::redis::net) fn is_clustered(&self) -> bool {
        matches!(self.changes, Changes::ByNodes)
    }

    /// Whether the map may change, so that a call that failed may find another server.
    pub(in crate::adapters::redis::net) fn may_change(&self) -> bool {
        !matches!(self.changes, Changes::Never)
    }

    /// Whether sentinels name the server.
    pub(in crate::adapters::redis::net) fn has_sentinels(&self) -> bool {
        self.sentinels().is_some()
    }

    pub(in crate::adapters::redis::net) fn routes(&self) -> RwLockReadGuard<'_, Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::adapters::redis::net) fn change(&self) -> RwLockWriteGuard<'_, Routes> {
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot of a key. A single server has one.
    pub(in crate::adapters::redis::net) fn slot(&self, key: &str) -> u16 {
        if self.is_clustered() {
            slots::of(key.as_bytes())
        } else {
            0
        }
    }

    pub(in crate::adapters::redis::net) fn owner(&self, slot: u16) -> Arc<Node> {
        Arc::clone(self.routes().map.owner(slot))
    }

    /// The node at an address that `by` has named.
    pub(in crate::adapters::redis::net) fn named(&self, address: &Address, by: &Node) -> Arc<Node> {
        self.node(by.server.at(address.host.as_deref(), address.port))
    }

    fn node(&self, server: Server) -> Arc<Node> {
        let mut routes = self.change();
        let node = routes
            .known
            .entry(Arc::clone(server.address()))
            .or_insert_with(|| Arc::new(Node::new(server, &self.me, self.native)));
        Arc::clone(node)
    }

    /// The known node at an address.
    pub(in crate::adapters::redis::net) fn known(
        routes: &Routes,
        address: &Arc<str>,
    ) -> Option<Arc<Node>> {
        routes.known.get(address).cloned()
    }

    /// All nodes that callers may have been sent to.
    pub(in crate::adapters::redis::net) fn all(&self) -> Vec<Arc<Node>> {
        self.routes().known.values().cloned().collect()
    }

    /// Notes a redirect: from now on the slot belongs to the node at this address.
    pub(in crate::adapters::redis::net) fn moved(&self, slot: u16, to: &Address, by: &Node) {
        let node = self.named(to, by);
        let former = {
            let mut routes = self.change();
            let former = Arc::clone(routes.map.owner(slot));
            if Arc::ptr_eq(&former, &node) {
                return;
            }
            close(&mut routes, slot, &former);
            routes.map.set(slot, &node);
            former
        };
        self.open_behind(former);
        self.refresh();
    }

    /// Learns the map before the first call.
    pub(in crate::adapters::redis::net) async fn ready(
        &self,
        operation: &'static str,
    ) -> Result<(), Error> {
        if let Some(sentinels) = self.sentinels() {
            let me: Weak<dyn Follower> = self.me.clone();
            sentinels.keep_listening(&me);
        }
        if self.learned.load(Ordering::Acquire) {
            if self.may_change() {
                self.refresh_if_stale();
            }
            return Ok(());
        }
        if self.has_sentinels() {
            return self.find_primary(operation).await;
        }
        match self.learn().await {
            // Nobody serves this URL's keys, and no later attempt helps.
            Err(failure) if !failure.is_passing() => Err(failure.into_error(operation)),
            // The call itself meets the same fault and reports it.
            _ => Ok(()),
        }
    }

    /// Asks the sentinels before the first call, until one of them names a primary.
    async fn find_primary(&self, operation: &'static str) -> Result<(), Error> {
        let deadline = Instant::now() + CALL_LIMIT;
        let mut pause = Pause::default();
        loop {
            let failure = match self.learn().await {
                Err(failure) => failure,
                Ok(()) if self.learned.load(Ordering::Acquire) => return Ok(()),
                Ok(()) => Failure::of_ended_task(),
            };
            if !failure.is_passing() {
                return Err(failure.into_error(operation));
            }
            if Instant::now() >= deadline {
                let message = "no sentinel answers, so the primary is not known";
                let error = Error::new(ErrorKind::Unavailable, operation, message);
                return Err(error.because(failure.into_error("ask sentinel")));
            }
            pause.next().await;
        }
    }

    /// Asks the cluster or the sentinels for the map, or waits while another caller asks.
    pub(in crate::adapters::redis::net) async fn learn(&self) -> Result<(), Failure> {
        if !self.may_change() {
            return Ok(());
        }
        let before = self.questions.load(Ordering::Acquire);
        // Another runtime may hold it, and not run.
        let Ok(mut asked) = timeout(ASKED_WITHIN, self.asked.lock()).await else {
            return Err(Failure::of_ended_task());
        };
        if self.questions.load(Ordering::Acquire) != before {
            return Ok(());
        }
        if let Some(last) = *asked {
            sleep_until(last + ASK_EVERY).await;
        }
        *asked = Some(Instant::now());
        let learned = match self.sentinels() {
            Some(sentinels) => self.ask_sentinels(sentinels).await,
            None => self.ask_nodes().await,
        };
        self.questions.fetch_add(1, Ordering::AcqRel);
        learned
    }

    /// Asks for the map in the background.
    pub(in crate::adapters::redis::net) fn refresh(&self) {
        let Some(me) = self.me.upgrade().filter(|_| self.may_change()) else {
            return;
        };
        if tokio::runtime::Handle::try_current().is_err()
            || self.refreshing.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let refreshing = Refreshing(me);
        tokio::spawn(async move {
            let _ = refreshing.0.learn().await;
        });
    }

    fn refresh_if_stale(&self) {
        let Ok(asked) = self.asked.try_lock() else {
            return;
        };
        let age = match self.sentinels() {
            Some(sentinels) if sentinels.is_deaf() => DEAF_STALE_AFTER,
            _ => STALE_AFTER,
        };
        let is_stale = asked.is_none_or(|last| last.elapsed() > age);
        drop(asked);
        if is_stale {
            self.refresh();
        }
    }

    async fn ask_nodes(&self) -> Result<(), Failure> {
        let (node, ranges) = ask::any(self.candidates()).await?;
        self.apply(&ranges, &node);
        self.learned.store(true, Ordering::Release);
        Ok(())
    }

    async fn ask_sentinels(&self, sentinels: &Sentinels) -> Result<(), Failure> {
        if let Some(primary) = sentinels.ask().await? {
            self.hand_over(primary);
        }
        Ok(())
    }

    /// The nodes to ask for the map: owners of slots first, then the URL's nodes.
    fn candidates(&self) -> Vec<Arc<Node>> {
        let mut candidates: Vec<Arc<Node>> = Vec::new();
        let learned = self.learned.load(Ordering::Acquire);
        if learned {
            candidates.extend(self.routes().map.owners());
        }
        candidates.extend(self.seeds.iter().map(|seed| self.node(seed.clone())));
        let mut seen = HashSet::new();
        candidates.retain(|node| seen.insert(Arc::clone(node.address())));
        candidates
    }

    /// Puts a new map in place.
    fn apply(&self, ranges: &[Range], asked: &Arc<Node>) {
        let ranges: Vec<_> = ranges
            .iter()
            .map(|(first, last, address)| (*first, *last, self.named(address, asked)))
            .collect();
        let map = SlotMap::of_ranges(ranges, Arc::clone(asked));
        let mut former: Vec<Arc<Node>> = Vec::new();
        {
            let mut routes = self.change();
            for slot in 0..slots::SLOTS {
                let before = Arc::clone(routes.map.owner(slot));
                if Arc::ptr_eq(&before, map.owner(slot)) {
                    continue;
                }
                close(&mut routes, slot, &before);
                if !former.iter().any(|one| Arc::ptr_eq(one, &before)) {
                    former.push(before);
                }
            }
            routes.map = map;
            // A node without slots goes once nobody uses it.
            let seeds = &self.seeds;
            routes.known.retain(|address, node| {
                Arc::strong_count(node) > 1
                    || node.is_fresh()
                    || seeds.iter().any(|seed| seed.address() == address)
            });
        }
        for node in former {
            self.leave_if_empty(Arc::clone(&node));
            self.open_behind(node);
        }
    }

    /// Ends the reads at a former owner that holds no slot any more, unless it says itself soon that
    /// they have to go elsewhere.
    fn leave_if_empty(&self, former: Arc<Node>) {
        let me = self.me.clone();
        tokio::spawn(async move {
            sleep(LEAVE_AFTER).await;
            let Some(nodes) = me.upgrade() else {
                return;
            };
            let mut routes = nodes.change();
            let owners = routes.map.owners();
            if !owners.iter().any(|owner| Arc::ptr_eq(owner, &former)) {
                // Where it comes back, it is another node.
                routes.known.remove(former.address());
                former.leave();
            }
        });
    }

    /// Opens the gates at which nothing waits, once the former owner has answered all.
    fn open_behind(&self, former: Arc<Node>) {
        let me = self.me.clone();
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        tokio::spawn(async move {
            former.publisher.drained().await;
            if let Some(nodes) = me.upgrade() {
                let mut routes = nodes.change();
                routes.gates.retain(|_, gate| !gate.is_idle_behind(&former));
            }
        });
    }
}

impl Follower for Nodes {
    fn sentinels(&self) -> Option<&Sentinels> {
        match &self.changes {
            Changes::BySentinels(sentinels) => Some(sentinels),
            Changes::Never | Changes::ByNodes => None,
        }
    }

    /// Makes a server the holder of all keys, and ends all connections to the former one.
    fn hand_over(&self, primary: Server) {
        self.learned.store(true, Ordering::Release);
        let node = Arc::new(Node::new(primary, &self.me, self.native));
        let former = {
            let mut routes = self.change();
            let former = Arc::clone(routes.map.owner(0));
            close(&mut routes, 0, &former);
            routes.map = SlotMap::of_one(Arc::clone(&node));
            routes.known.clear();
            routes.known.insert(Arc::clone(node.address()), node);
            former
        };
        former.leave();
        self.open_behind(former);
    }
}

/// A refresh that is under way. Its task may end with its runtime at any time.
struct Refreshing(Arc<Nodes>);

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.refreshing.store(false, Ordering::Release);
    }
}

/// Closes the gate of a slot whose owner changes, if the former owner may still answer for it.
fn close(routes: &mut Routes, slot: u16, former: &Arc<Node>) {
    if former.publisher.is_used() {
        let gate = routes.gates.entry(slot);
        gate.or_insert_with(|| Gate::behind(Arc::clone(former)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::redis::net::connections::access::Access;

    #[test]
    fn a_refresh_can_begin_again_after_its_runtime_has_ended() {
        let url = "redis+cluster://127.0.0.1:1";
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap()
        };
        let (lasting, runtime) = (runtime(), runtime());
        let found = Server::read(url, &Access::default()).unwrap();
        let nodes = lasting.block_on(async { Nodes::new(found) }).unwrap();
        runtime.block_on(async { nodes.refresh() });
        assert!(nodes.refreshing.load(Ordering::Acquire));
        drop(runtime);
        assert!(!nodes.refreshing.load(Ordering::Acquire));
    }
}
