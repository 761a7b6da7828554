//! Begins deliveries, and marks the attempts that the store must know of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::api::delivery::Delivery;
use crate::api::lease::Lease;
use crate::store::{Attempts, Begin, Holder, Lane};
use crate::worker::core::Core;
use crate::worker::fault::back_off;
use crate::worker::handle::count::Count;
use crate::worker::handle::decode::Entry;
use crate::worker::intake::in_flight::HandOut;
use crate::worker::ownership::OwnedGroup;
use crate::worker::tracks::Track;

/// A delivery that a handler is called with.
pub(super) struct Begun {
    pub(super) delivery: Delivery,
    pub(super) count: Count,
    pub(super) entry: Entry,
    pub(super) lease: Arc<Lease>,
    /// This process tries the message again from memory.
    pub(super) is_again: bool,
}

impl Begun {
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) fn hand_out(&self) -> HandOut {
        HandOut {
            id: self.entry.id,
            token: self.lease.token(),
        }
    }

    /// Records the time from the publish to this call, unless the message was handled or put off
    /// before.
    pub(super) fn record_queue_time(&self, core: &Core) {
        let id = self.entry.id;
        if id.lane == Lane::Log && self.count.attempt() == 1 {
            let now = u64::try_from(core.store.now().as_millis()).unwrap_or(0);
            let waited = Duration::from_millis(now.saturating_sub(id.id.millis));
            core.meters.queue_time.record(waited.as_secs_f64());
        }
    }

    /// Whether the store must know of the attempt before the handler is called.
    pub(super) fn needs_mark(&self, core: &Core) -> bool {
        (self.lease.is_taken_over() || core.marks_attempts)
            && !self.lease.is_marked()
            && !self.lease.is_only_copy()
    }
}

/// Begins deliveries: marks the attempts that need it. Returns those that this consumer still holds, and gives
/// those back whose partition does not answer; when the subscription stops, an error with all of them.
pub(super) async fn begin(core: &Core, deliveries: Vec<Begun>) -> Result<Vec<Begun>, Vec<Begun>> {
    let deliveries = match &core.owned {
        Some(owned) => {
            let is_silent = |one: &Begun| owned.is_silent(one.entry.id);
            let (silent, others): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(is_silent);
            core.put_back(owned, silent.iter().map(Begun::hand_out));
            others
        }
        None => deliveries,
    };
    let marking = || deliveries.iter().filter(|one| one.needs_mark(core));
    let (hand_outs, begins): (Vec<_>, Vec<_>) = marking()
        .map(|one| {
            let begin = Begin {
                delivery: one.entry.id,
                attempts: Attempts {
                    begun: one.lease.before().begun.saturating_add(1),
                    ..one.lease.before()
                },
            };
            (one.hand_out(), begin)
        })
        .unzip();
    let leases: Vec<&Lease> = marking().map(|one| &*one.lease).collect();
    let marks = mark(core, &begins, &leases).await;
    if !begins.is_empty() && core.stop.is_cancelled() {
        return Err(deliveries);
    }
    let is_ours = |(_, mark): &(_, &Option<Holder>)| **mark == Some(Holder::Member);
    let ours = leases.iter().zip(&marks).filter(is_ours);
    ours.for_each(|(lease, _)| lease.mark());
    let marked = hand_outs.into_iter().zip(marks);
    let (answered, silent): (Vec<_>, Vec<_>) = marked.partition(|(_, mark)| mark.is_some());
    let mut begun = deliveries;
    if !silent.is_empty() {
        let is_silent = |one: &Begun| silent.iter().any(|(silent, _)| *silent == one.hand_out());
        let back: Vec<_>;
        (back, begun) = begun.into_iter().partition(is_silent);
        if let Some(owned) = &core.owned {
            leave_owned(core, owned, &back);
        }
    }
    let answered = answered.into_iter();
    let answered = answered.filter_map(|(hand_out, holder)| Some((hand_out, holder?)));
    let (hand_outs, holders): (Vec<_>, Vec<_>) = answered.unzip();
    core.note_holders(&hand_outs, &holders);
    let begun = begun.into_iter();
    let begun = begun.filter(|one| !one.lease.is_cancelled());
    Ok(begun.inspect(|one| one.lease.begin()).collect())
}

/// Gives deliveries of an owned group back whose handler does not begin.
pub(super) fn leave_owned(core: &Core, owned: &OwnedGroup, deliveries: &[Begun]) {
    // The store may have the marks of these attempts.
    let (marked, others): (Vec<&Begun>, Vec<_>) =
        deliveries.iter().partition(|one| one.needs_mark(core));
    core.put_back_marked(owned, marked.into_iter().map(Begun::hand_out));
    core.put_back(owned, others.into_iter().map(Begun::hand_out));
}

/// Marks attempts as begun, those of each partition by themselves. `None` for each where the partition of an
/// owned group does not answer, or the subscription stops.
async fn mark(core: &Core, begins: &[Begin], leases: &[&Lease]) -> Vec<Option<Holder>> {
    if begins.is_empty() {
        return Vec::new();
    }
    if core.settling.count() == 1 {
        return mark_in(core, core.settling.first(), begins, leases).await;
    }
    let mut parts: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for (place, begin) in begins.iter().enumerate() {
        let number = begin.delivery.id.partition();
        parts.entry(number).or_default().push(place);
    }
    let marks = parts.into_values().map(|places| async move {
        let begins: Vec<Begin> = places.iter().map(|place| begins[*place]).collect();
        let leases: Vec<&Lease> = places.iter().map(|place| leases[*place]).collect();
        let track = core.settling.of(begins[0].delivery);
        let holders = mark_in(core, track, &begins, &leases).await;
        places.into_iter().zip(holders)
    });
    let marked = join_all(marks).await.into_iter();
    let mut marked: Vec<_> = marked.flatten().collect();
    marked.sort_unstable_by_key(|(place, _)| *place);
    marked.into_iter().map(|(_, holder)| holder).collect()
}

/// Marks the attempts of one track. Repeats until the store answers or every lease is lost: a handler whose
/// attempt is not marked could be called more often than the policy allows. In an owned group, a worker waits
/// no longer than until the partition counts as silent.
async fn mark_in(
    core: &Core,
    track: &Track,
    begins: &[Begin],
    leases: &[&Lease],
) -> Vec<Option<Holder>> {
    let mut failures = 0;
    while !core.stop.is_cancelled() {
        // Where a partition of an owned group was lost, another worker may have the message by now.
        let live = (0..begins.len()).filter(|place| !leases[*place].is_over());
        let live: Vec<usize> = live.collect();
        let mut marked = vec![Some(Holder::Other); begins.len()];
        if live.is_empty() {
            track.faults.marking.clear();
            return marked;
        }
        let tried: Vec<Begin> = live.iter().map(|place| begins[*place]).collect();
        match core.store.deliveries().begin(&core.member, &tried).await {
            Ok(answers) => {
                for (place, holder) in live.into_iter().zip(answers) {
                    marked[place] = Some(holder);
                }
                if failures > 0 {
                    track.faults.marking.clear();
                }
                return marked;
            }
            Err(_) if leases.iter().all(|lease| lease.is_lost()) => {
                track.faults.marking.clear();
                return marked;
            }
            Err(_) if core.is_silent(begins[0].delivery) => {
                // The partition's own faults name it.
                track.faults.marking.clear();
                break;
            }
            Err(error) => {
                failures += 1;
                track.faults.marking.set(&error);
                tracing::debug!(subscription = %track.member, %error, "an attempt could not be marked");
                tokio::select! {
                    biased;
                    () = core.stop.cancelled() => {}
                    () = sleep(back_off(failures)) => {}
                }
            }
        }
    }
    vec![None; begins.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Fence;
    use crate::api::ownership::Tenure;
    use crate::domain::Outcome;
    use crate::worker::fixture::{Fixture, all, at_most, handler, lose};
    use crate::worker::handle::pipeline::run;
    use crate::worker::script::Failure;
    use tokio::time::Instant;

    const BEGIN: &str = "deliveries.begin";

    #[tokio::test]
    async fn an_attempt_is_marked_where_the_entry_was_taken_over_or_one_is_allowed() {
        for (most, taken_over, marks) in [(5, false, 0), (5, true, 1), (1, false, 1)] {
            let fixture = Fixture::new().await;
            let held = fixture.holding(at_most(most), (1, taken_over)).await;
            let (core, _settlements, fetched) = held;
            let (handler, mut calls) = handler(Outcome::Ack);
            run(core, handler).await;
            let case = format!("{most} attempts, taken over: {taken_over}");
            assert_eq!(all(&mut calls), [(0, 1)], "{case}");
            assert_eq!(fixture.script.calls(), vec![BEGIN; marks], "{case}");
            if marks == 1 {
                let claimed = fixture.claimed_by_another(Duration::ZERO).await;
                assert_eq!(claimed, [(fetched[0].receipt, 1)], "{case}");
            }
        }
    }

    #[tokio::test]
    async fn a_delivery_that_another_consumer_holds_does_not_begin() {
        let fixture = Fixture::new().await;
        let (core, _settlements, fetched) = fixture.holding(at_most(5), (2, true)).await;
        fixture.take_over(fetched[0].receipt).await;
        let (handler, mut calls) = handler(Outcome::Ack);
        run(Arc::clone(&core), handler).await;
        assert_eq!(all(&mut calls), [(1, 1)]);
        assert!(!core.in_flight.contains(fetched[0].receipt));
    }

    #[tokio::test]
    async fn a_handler_waits_until_the_store_has_marked_its_attempt() {
        let fixture = Fixture::new().await;
        let (core, _settlements, _) = fixture.holding(at_most(5), (1, true)).await;
        fixture.script.fail(BEGIN, Failure::NotDone);
        let (handler, mut calls) = handler(Outcome::Ack);
        run(Arc::clone(&core), handler).await;
        assert_eq!(all(&mut calls), [(0, 1)]);
        assert_eq!(fixture.script.calls(), [BEGIN, BEGIN]);
        assert_eq!(core.faults.problem(), None);
    }

    #[tokio::test]
    async fn a_delivery_that_is_lost_while_its_attempt_is_marked_does_not_begin() {
        let fixture = Fixture::new().await;
        let (core, _settlements, fetched) = fixture.holding(at_most(5), (1, true)).await;
        let losing = Arc::clone(&core);
        fixture
            .script
            .on(BEGIN, move || lose(&losing, fetched[0].receipt));
        let (handler, mut calls) = handler(Outcome::Ack);
        run(core, handler).await;
        assert_eq!(all(&mut calls), []);
    }

    #[tokio::test]
    async fn no_attempt_is_marked_whose_partition_was_lost_meanwhile() {
        let fixture = Fixture::new().await;
        let (core, _settlements, fetched) = fixture.holding(at_most(5), (1, true)).await;
        let fence = Fence {
            partition: 0,
            token: 7,
        };
        let tenure = Tenure::new(fence, Instant::now() + Duration::from_secs(60));
        let tenure = Arc::new(tenure);
        let lease = Lease::new(1, 0, true, Instant::now());
        lease.bind(Arc::clone(&tenure));
        fixture.script.fail(BEGIN, Failure::NotDone);
        fixture.script.on(BEGIN, move || tenure.end());
        let begin = Begin {
            delivery: fetched[0].receipt,
            attempts: Attempts::from(1),
        };
        let marked = mark_in(&core, core.tracks.first(), &[begin], &[&lease]).await;
        assert_eq!(marked, [Some(Holder::Other)]);
        assert_eq!(fixture.script.calls(), [BEGIN]);
    }

    #[tokio::test]
    async fn nothing_begins_whose_attempt_was_marked_during_a_stop() {
        let fixture = Fixture::new().await;
        let (core, _settlements, _) = fixture.holding(at_most(5), (1, true)).await;
        let stop = core.stop.clone();
        fixture.script.on(BEGIN, move || stop.cancel());
        core.only_copies_known.cancel();
        let (handler, mut calls) = handler(Outcome::Ack);
        run(core, handler).await;
        assert_eq!(all(&mut calls), []);
    }
}
