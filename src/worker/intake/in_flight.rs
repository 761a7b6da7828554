//! The deliveries that this consumer holds, from the fetch until the store has settled them.
//!
//! The store identifies a delivery by its entry and its consumer. It hands the same entry to the
//! same consumer again after a release or an expired lease, so within a process that pair
//! identifies nothing. Here each hand-out has a token of its own, and a settlement counts only
//! while its token is the current one.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use crate::api::lease::Lease;
use crate::domain::Error;
use crate::store::{Attempts, Commit, Commits, DeliveryId, End};
use crate::worker::intake::policy::POLICY;
use crate::worker::intake::progress::Progress;

/// How many lost deliveries are remembered, and how many that a late call may release.
const MOST_LOST: usize = 10_000;

/// One hand-out of an entry to this process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HandOut {
    pub(crate) id: DeliveryId,
    pub(crate) token: u64,
}

#[derive(Debug, Default)]
pub(crate) struct InFlight {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    current: FxHashMap<DeliveryId, Arc<Lease>>,
    /// Deliveries that this process lost, until it gets the entry again.
    lost: FxHashMap<DeliveryId, Arc<Lease>>,
    /// Deliveries that a call whose answer was lost may still release. The store takes it for one of the
    /// hand-out after it, so nothing says how long another consumer stays away from that one.
    released_late: FxHashSet<DeliveryId>,
    last_token: u64,
    /// A time before the store last extended leases, and the last token at that time: of the track of each
    /// partition, or of the only track.
    extended: BTreeMap<Option<u16>, (Instant, u64)>,
    /// While a claim of a track is under way, the deliveries that ended here since it was sent: the store may
    /// have claimed them before.
    ended: BTreeMap<Option<u16>, FxHashSet<DeliveryId>>,
}

/// A claim whose answer is not entered yet.
#[derive(Debug)]
pub(crate) struct ClaimUnderWay<'a> {
    in_flight: &'a InFlight,
    partition: Option<u16>,
}

impl Drop for ClaimUnderWay<'_> {
    fn drop(&mut self) {
        self.in_flight.table().ended.remove(&self.partition);
    }
}

impl Table {
    /// The lease of a hand-out, while it is the current one of its entry.
    fn get(&self, hand_out: HandOut) -> Option<&Arc<Lease>> {
        let lease = self.current.get(&hand_out.id);
        lease.filter(|lease| lease.token() == hand_out.token)
    }

    /// A time before the store began a lease, or last extended it.
    fn leased_since(&self, id: DeliveryId, lease: &Lease) -> Instant {
        let of = |partition| self.extended.get(&partition);
        let extended = of(None).or_else(|| of(Some(id.id.partition())));
        match extended.filter(|(_, last_token)| lease.token() <= *last_token) {
            Some((at, _)) => lease.since().max(*at),
            None => lease.since(),
        }
    }

    fn enter(
        &mut self,
        (id, mut before): (DeliveryId, Attempts),
        taken_over: bool,
        since: Instant,
    ) -> Option<Arc<Lease>> {
        if taken_over && self.ended.values().any(|ended| ended.contains(&id)) {
            return None;
        }
        if let Some(lost) = self.lost.get(&id) {
            if lost.is_running() {
                return None;
            }
            // A process that lost its lease in a stall and claims the entry back has not crashed.
            if taken_over && lost.counts() {
                before.begun = before.begun.saturating_sub(1);
            }
            self.lost.remove(&id);
        }
        let Entry::Vacant(vacant) = self.current.entry(id) else {
            return None;
        };
        self.last_token += 1;
        let lease = Lease::new(self.last_token, before, taken_over, since);
        let lease = Arc::new(lease.with_early_end(self.released_late.contains(&id)));
        vacant.insert(Arc::clone(&lease));
        Some(lease)
    }

    /// Frees the memory of a burst when no delivery is left.
    fn give_back_memory(&mut self) {
        if self.current.is_empty() && self.current.capacity() > POLICY.keep_memory_for {
            self.current = FxHashMap::default();
        }
    }

    fn lose(&mut self, id: DeliveryId) {
        let Some(lease) = self.current.remove(&id) else {
            return;
        };
        lease.lose();
        if self.lost.len() >= MOST_LOST {
            self.lost.retain(|_, lease| lease.is_running());
        }
        self.lost.insert(id, lease);
    }
}

impl InFlight {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a claim is about to be sent, until its answer is entered and the guard is dropped.
    /// One claim of each track is under way at a time.
    pub(crate) fn begin_claim(&self, partition: Option<u16>) -> ClaimUnderWay<'_> {
        self.table().ended.insert(partition, FxHashSet::default());
        ClaimUnderWay {
            in_flight: self,
            partition,
        }
    }

    /// Enters fetched deliveries. Returns the lease of each, and `None` for one
    ///
    /// - that is already here;
    /// - that was taken over and has ended here since its claim was sent;
    /// - whose handler still runs since this process lost an earlier hand-out of it: the store hands such
    ///   an entry out again when its lease has expired.
    ///
    /// `entries` name the attempts before; `since` is a time before the store handed them out.
    pub(crate) fn enter<A: Into<Attempts>>(
        &self,
        entries: impl Iterator<Item = (DeliveryId, A)>,
        taken_over: bool,
        since: Instant,
    ) -> Vec<Option<Arc<Lease>>> {
        let mut table = self.table();
        table.current.reserve(entries.size_hint().0);
        let enter = |(id, before): (_, A)| table.enter((id, before.into()), taken_over, since);
        entries.map(enter).collect()
    }

    /// Enters the next attempt at a delivery that this consumer keeps, in place of the last one, from
    /// which nothing more counts. `None` where that is not the current one.
    pub(crate) fn keep(&self, hand_out: HandOut, attempts: Attempts) -> Option<Arc<Lease>> {
        let mut table = self.table();
        let last = table.get(hand_out)?;
        let since = table.leased_since(hand_out.id, last);
        let may_end_early = last.may_end_early();
        table.last_token += 1;
        let next = Lease::new(table.last_token, attempts, true, since);
        let next = Arc::new(next.with_early_end(may_end_early));
        table.current.insert(hand_out.id, Arc::clone(&next));
        Some(next)
    }

    /// Whether this hand-out of a delivery is the current one.
    pub(crate) fn has(&self, hand_out: HandOut) -> bool {
        self.table().get(hand_out).is_some()
    }

    /// Removes deliveries that the store has settled.
    pub(crate) fn remove(&self, hand_outs: impl IntoIterator<Item = HandOut>) {
        let mut table = self.table();
        for hand_out in hand_outs {
            if table.get(hand_out).is_some() {
                table.current.remove(&hand_out.id);
                for (partition, ended) in &mut table.ended {
                    if partition.is_none_or(|number| number == hand_out.id.id.partition()) {
                        ended.insert(hand_out.id);
                    }
                }
            }
        }
        table.give_back_memory();
    }

    /// Removes deliveries that passed to other consumers and cancels their handlers. Returns how
    /// many were unfinished.
    pub(crate) fn lose(&self, hand_outs: impl IntoIterator<Item = HandOut>) -> u64 {
        let mut table = self.table();
        let mut lost = 0;
        for hand_out in hand_outs {
            let Some(lease) = table.get(hand_out) else {
                continue;
            };
            if lease.is_finished() {
                // It stays: the settler may have settled it while its lease was being checked. If
                // not, the consumer that holds it now may end it first.
                lease.expire();
            } else {
                table.lose(hand_out.id);
                lost += 1;
            }
        }
        table.give_back_memory();
        lost
    }

    /// Cancels every delivery: its result is no longer wanted.
    pub(crate) fn cancel_all(&self) {
        for lease in self.table().current.values() {
            lease.cancel();
        }
    }

    pub(crate) fn contains(&self, id: DeliveryId) -> bool {
        self.table().current.contains_key(&id)
    }

    /// The attempts before the hand-out that this process has or had. `None` for an entry that this
    /// process never saw.
    pub(crate) fn begun_before(&self, id: DeliveryId) -> Option<Attempts> {
        let table = self.table();
        let lease = table.current.get(&id).or_else(|| table.lost.get(&id));
        lease.map(|lease| lease.before())
    }

    /// Keeps the items whose hand-out is the current one of its entry.
    pub(crate) fn retain_current<T>(&self, items: &mut Vec<T>, of: impl Fn(&T) -> HandOut) {
        let table = self.table();
        items.retain(|item| table.get(of(item)).is_some());
    }

    /// Removes the hand-outs of entries that were handed to this process again. Keeps those that
    /// other consumers hold now.
    pub(crate) fn retain_not_replaced(&self, hand_outs: &mut Vec<HandOut>) {
        let table = self.table();
        hand_outs.retain(|hand_out| {
            let current = table.current.get(&hand_out.id);
            current.is_none_or(|lease| lease.token() == hand_out.token)
        });
    }

    /// The hand-outs that the store has a record of, and the last token.
    #[cfg(test)]
    pub(crate) fn hand_outs(&self) -> (Vec<HandOut>, u64) {
        self.hand_outs_of(None)
    }

    /// The hand-outs of a partition, or of all, that the store has a record of, and the last token.
    pub(crate) fn hand_outs_of(&self, partition: Option<u16>) -> (Vec<HandOut>, u64) {
        let table = self.table();
        let recorded = table.current.iter().filter(|(id, lease)| {
            partition.is_none_or(|number| number == id.id.partition()) && !lease.is_only_copy()
        });
        let hand_outs = recorded.map(|(id, lease)| HandOut {
            id: *id,
            token: lease.token(),
        });
        (hand_outs.collect(), table.last_token)
    }

    /// Notes that the store has extended the leases of a track's hand-outs up to a token, after `since`.
    pub(crate) fn note_extended(&self, partition: Option<u16>, since: Instant, last_token: u64) {
        let extended = (since, last_token);
        self.table().extended.insert(partition, extended);
    }

    /// Notes deliveries that a call may still release, if its error says that its outcome is unknown.
    pub(crate) fn note_late_releases(&self, error: &Error, commits: &Commits) {
        if !error.is_outcome_unknown() {
            return;
        }
        let releases = |commit: &&Commit| matches!(commit.end(), End::Release { .. });
        let releases = commits.fenced().iter().filter(releases);
        let mut table = self.table();
        if table.released_late.len() >= MOST_LOST {
            table.released_late.clear();
        }
        table.released_late.extend(releases.map(Commit::delivery));
    }

    /// Whether no other consumer can have claimed a delivery by `now`, because its lease has not
    /// expired and nothing can have released it.
    pub(crate) fn is_leased(&self, hand_out: HandOut, lease: Duration, now: Instant) -> bool {
        let table = self.table();
        let current = table.get(hand_out);
        let Some(entry) = current.filter(|lease| !lease.is_expired() && !lease.may_end_early())
        else {
            return false;
        };
        let since = table.leased_since(hand_out.id, entry);
        now.saturating_duration_since(since) < lease
    }

    /// Whether a missing record shows that something other than Redstart removed it. The record of a
    /// delivery that was taken over may be missing because its former owner has acknowledged it late.
    pub(crate) fn shows_removal(&self, hand_out: HandOut) -> bool {
        let table = self.table();
        let lease = table.get(hand_out);
        lease.is_some_and(|lease| !lease.is_taken_over())
    }

    /// Whether a delivery is here and no other consumer is known to hold it.
    pub(crate) fn may_commit(&self, hand_out: HandOut) -> bool {
        let table = self.table();
        let lease = table.get(hand_out);
        lease.is_some_and(|lease| !lease.is_expired())
    }

    /// Lets a delivery go on from memory, because the store lost its record of it. Returns whether
    /// that is news: it is unfinished, and current.
    pub(crate) fn keep_only_copy(&self, hand_out: HandOut) -> bool {
        let table = self.table();
        let lease = table.get(hand_out);
        let news = lease.filter(|lease| !lease.is_finished() && !lease.is_only_copy());
        if let Some(lease) = news {
            lease.keep_only_copy();
        }
        news.is_some()
    }

    /// Whether it is decided how the delivery ends, and the store has not settled it yet.
    pub(crate) fn is_finished(&self, id: DeliveryId) -> bool {
        let table = self.table();
        table
            .current
            .get(&id)
            .is_some_and(|lease| lease.is_finished())
    }

    /// The deliveries whose handlers have returned, or that end without one, and that the store has not settled.
    pub(crate) fn ending(&self) -> Vec<DeliveryId> {
        let table = self.table();
        let has_returned = |lease: &Lease| lease.is_begun() && !lease.is_running();
        let ending = table
            .current
            .iter()
            .filter(|(_, lease)| lease.is_finished() || has_returned(lease));
        ending.map(|(id, _)| *id).collect()
    }

    /// The number of handlers that were called and have not said how their delivery ends.
    pub(crate) fn begun(&self) -> u64 {
        let table = self.table();
        let begun = |lease: &&Arc<Lease>| lease.is_begun() && !lease.is_finished();
        table.current.values().filter(begun).count() as u64
    }

    /// Removes the deliveries of a partition, or of all, whose ending is not decided.
    pub(crate) fn remove_unfinished(&self, partition: Option<u16>) {
        self.table().current.retain(|id, lease| {
            lease.is_finished() || partition.is_some_and(|number| number != id.id.partition())
        });
    }

    /// The number of deliveries whose ending is not decided.
    pub(crate) fn unfinished(&self) -> usize {
        let table = self.table();
        let unfinished = |lease: &&Arc<Lease>| !lease.is_finished();
        table.current.values().filter(unfinished).count()
    }

    /// How long the deliveries have been here.
    pub(crate) fn progress(&self, now: Instant) -> Progress {
        let mut progress = Progress::default();
        for (id, lease) in &self.table().current {
            progress.add(*id, lease, now);
        }
        progress
    }

    pub(crate) fn len(&self) -> usize {
        self.table().current.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EntryId, ErrorKind};
    use crate::store::Lane;

    fn id(sequence: u64) -> DeliveryId {
        let id = EntryId::new(1, sequence);
        DeliveryId {
            lane: Lane::Log,
            id,
        }
    }

    fn enter(in_flight: &InFlight, sequences: &[u64]) -> Vec<Option<Arc<Lease>>> {
        let entries = sequences.iter().map(|sequence| (id(*sequence), 0));
        in_flight.enter(entries, false, Instant::now())
    }

    fn enter_one(in_flight: &InFlight) -> (Arc<Lease>, HandOut) {
        let lease = enter(in_flight, &[1]).remove(0).unwrap();
        let token = lease.token();
        (lease, HandOut { id: id(1), token })
    }

    #[test]
    fn a_delivery_is_entered_once() {
        let in_flight = InFlight::default();
        let (_, hand_out) = enter_one(&in_flight);
        assert!(enter(&in_flight, &[1])[0].is_none());
        in_flight.remove([hand_out]);
        assert!(enter(&in_flight, &[1])[0].is_some());
    }

    #[test]
    fn a_delivery_that_a_late_call_may_release_grows_old_like_others() {
        let in_flight = InFlight::default();
        let error = Error::new(ErrorKind::OutcomeUnknown, "release", "cut");
        let release = [Commit::release(id(1))].into_iter().collect();
        in_flight.note_late_releases(&error, &release);
        let (_, hand_out) = enter_one(&in_flight);
        let minute = Duration::from_secs(60);
        let later = Instant::now() + minute;
        assert!(in_flight.progress(later).oldest >= minute);
        assert!(!in_flight.is_leased(hand_out, 2 * minute, later));
    }

    #[test]
    fn a_delivery_that_ends_while_its_claim_is_under_way_is_not_entered_again() {
        let in_flight = InFlight::default();
        let claimed = |in_flight: &InFlight| {
            let entries = [(id(1), 0)].into_iter();
            in_flight.enter(entries, true, Instant::now()).remove(0)
        };
        let (_, hand_out) = enter_one(&in_flight);
        let claim = in_flight.begin_claim(None);
        // The store claims it; then the settler's answer comes, and after it that of the claim.
        in_flight.remove([hand_out]);
        assert!(claimed(&in_flight).is_none());
        drop(claim);
        let _next = in_flight.begin_claim(None);
        assert!(claimed(&in_flight).is_some());
    }

    #[test]
    fn losing_cancels_a_running_handler_and_spares_a_finished_one() {
        let in_flight = InFlight::default();
        let leases: Vec<_> = enter(&in_flight, &[1, 2]).into_iter().flatten().collect();
        let (mut hand_outs, _) = in_flight.hand_outs();
        hand_outs.push(HandOut {
            id: id(3),
            token: 3,
        });
        leases[1].finish();
        assert_eq!(in_flight.lose(hand_outs), 1);
        assert!(leases[0].is_cancelled() && leases[0].is_lost());
        assert!(!leases[1].is_cancelled() && !leases[1].is_lost());
        assert!(in_flight.contains(id(2)) && !in_flight.contains(id(1)));
        assert_eq!(in_flight.unfinished(), 0);
    }

    #[test]
    fn an_empty_table_gives_the_memory_of_a_burst_back() {
        let in_flight = InFlight::default();
        let numbers: Vec<u64> = (0..500).collect();
        enter(&in_flight, &numbers);
        let memory = || in_flight.table().current.capacity();
        let (hand_outs, _) = in_flight.hand_outs();
        in_flight.remove(hand_outs[1..].iter().copied());
        assert!(memory() >= 500);
        in_flight.remove([hand_outs[0]]);
        assert!(memory() <= POLICY.keep_memory_for, "{}", memory());

        enter(&in_flight, &numbers);
        assert!(memory() >= 500);
        let (hand_outs, _) = in_flight.hand_outs();
        assert_eq!(in_flight.lose(hand_outs), 500);
        assert!(memory() <= POLICY.keep_memory_for, "{}", memory());
    }

    #[test]
    fn an_earlier_hand_out_of_an_entry_changes_nothing_about_the_current_one() {
        let in_flight = InFlight::default();
        let (_, before) = enter_one(&in_flight);
        assert_eq!(in_flight.lose([before]), 1);
        let (lease, now) = enter_one(&in_flight);
        assert_ne!(before, now);

        let mut writes = vec![before, now];
        in_flight.retain_current(&mut writes, |one| *one);
        assert_eq!(writes, [now]);
        let elsewhere = HandOut {
            id: id(9),
            token: 1,
        };
        let mut acks = vec![before, now, elsewhere];
        in_flight.retain_not_replaced(&mut acks);
        assert_eq!(acks, [now, elsewhere]);

        in_flight.remove([before]);
        assert_eq!(in_flight.lose([before]), 0);
        assert!(in_flight.contains(id(1)) && !lease.is_cancelled());
    }

    #[test]
    fn a_delivery_is_leased_from_its_hand_out_or_its_last_extension() {
        let second = Duration::from_secs(1);
        let (in_flight, began) = (InFlight::default(), Instant::now());
        let entries = [(id(1), 0)].into_iter();
        let first = in_flight.enter(entries, false, began).remove(0).unwrap();
        let first = HandOut {
            id: id(1),
            token: first.token(),
        };
        let leased = |one, after| in_flight.is_leased(one, second, began + after);
        assert!(leased(first, second / 2) && !leased(first, second));
        in_flight.note_extended(None, began + second, first.token);
        assert!(leased(first, second * 3 / 2) && !leased(first, 2 * second));
        let later = in_flight.enter([(id(2), 0)].into_iter(), false, began);
        let later = HandOut {
            id: id(2),
            token: later[0].as_ref().unwrap().token(),
        };
        assert!(!leased(later, second), "it came after the extension");
        in_flight.remove([first]);
        assert!(!leased(first, second / 2), "it is not here");
    }

    #[test]
    fn a_finished_delivery_that_another_consumer_holds_is_not_leased() {
        let (in_flight, began) = (InFlight::default(), Instant::now());
        let (lease, hand_out) = enter_one(&in_flight);
        lease.finish();
        let leased = || in_flight.is_leased(hand_out, Duration::from_secs(60), began);
        in_flight.note_extended(None, began, hand_out.token);
        assert!(leased());
        assert_eq!(in_flight.lose([hand_out]), 0);
        // The same answer of the store extended other leases.
        in_flight.note_extended(None, began, hand_out.token);
        assert!(!leased() && in_flight.is_finished(hand_out.id));
    }

    #[test]
    fn an_only_copy_is_kept_once_and_asks_for_no_extension() {
        let in_flight = InFlight::default();
        let (lease, hand_out) = enter_one(&in_flight);
        assert!(in_flight.keep_only_copy(hand_out) && !in_flight.keep_only_copy(hand_out));
        assert!(lease.is_only_copy() && !lease.is_cancelled());
        assert!(in_flight.hand_outs().0.is_empty());
        let in_flight = InFlight::default();
        let (lease, hand_out) = enter_one(&in_flight);
        lease.finish();
        assert!(!in_flight.keep_only_copy(hand_out), "the settler decides");
    }

    #[test]
    fn an_entry_whose_lost_handler_still_runs_is_not_entered_again() {
        let in_flight = InFlight::default();
        let (lease, hand_out) = enter_one(&in_flight);
        lease.begin();
        assert_eq!(in_flight.lose([hand_out]), 1);
        assert!(enter(&in_flight, &[1])[0].is_none());
        lease.end_call();
        assert!(enter(&in_flight, &[1])[0].is_some());
    }

    #[test]
    fn an_own_hand_out_that_was_lost_counts_as_no_crash() {
        let again = |marked, begun| {
            let in_flight = InFlight::default();
            let (lease, hand_out) = enter_one(&in_flight);
            if marked {
                lease.mark();
            }
            in_flight.lose([hand_out]);
            let lease = in_flight
                .enter([(id(1), begun)].into_iter(), true, Instant::now())
                .remove(0);
            lease.unwrap().before()
        };
        assert_eq!(again(false, 1), 0.into());
        assert_eq!(again(true, 1), 0.into());
        assert_eq!(again(false, 2), 1.into(), "another consumer has crashed");
        let in_flight = InFlight::default();
        let taken = in_flight
            .enter([(id(1), 2)].into_iter(), true, Instant::now())
            .remove(0);
        let token = taken.unwrap().token();
        in_flight.lose([HandOut { id: id(1), token }]);
        assert_eq!(in_flight.begun_before(id(1)), Some(2.into()));
        let again = in_flight
            .enter([(id(1), 2)].into_iter(), true, Instant::now())
            .remove(0);
        assert_eq!(
            again.unwrap().before(),
            2.into(),
            "an unmarked claim counts nothing"
        );
    }
}
