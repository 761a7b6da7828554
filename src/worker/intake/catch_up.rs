//! Catches up on older deliveries before newer ones are read, and recreates a group that is gone.

use crate::domain::{Error, ErrorKind};
use crate::store::StartFrom;
use crate::worker::core::Core;
use crate::worker::intake::reclaim;
use crate::worker::intake::slots::free_slots;
use crate::worker::tracks::Track;

/// An upper bound for the deliveries that one consumer can hold.
pub(crate) const MOST_PENDING: usize = 100_000;

/// Takes over released and expired deliveries before the fetcher reads newer ones.
///
/// With one handler first deliveries therefore keep their order, also after a restart or a broken
/// connection.
pub(super) async fn catch_up(core: &Core, track: &Track) -> Result<(), Error> {
    let mut look = reclaim::Look::default();
    // After a standstill it would otherwise reclaim its own deliveries and count a crash.
    track.keeper.extend_all().await;
    loop {
        if track.unseen.take()
            && let Err(error) = release_unseen(core, track).await
        {
            track.unseen.note();
            return Err(error);
        }
        match reclaim::reclaim_some(core, track, &mut look).await {
            Ok(reclaim::Next::Again) => {}
            Ok(reclaim::Next::Full) => {
                if !free_slots(core, track, &mut false).await {
                    return Ok(());
                }
            }
            // The reclaimer may have lost an answer meanwhile.
            Ok(reclaim::Next::Done) if track.unseen.may_exist() => {}
            Ok(reclaim::Next::Done) => return Ok(()),
            Err(error) if error.is_retryable() => return Err(error),
            // The reclaimer reports it; reading need not stop for it.
            Err(_) => return Ok(()),
        }
    }
}

/// Releases, uncounted, the deliveries that the store assigns to this consumer and that are not in
/// flight here: their answer was lost.
async fn release_unseen(core: &Core, track: &Track) -> Result<(), Error> {
    let _claiming = track.claiming.lock().await;
    if let Some(owned) = &core.owned {
        // Without a call, which would wait for a partition that does not answer.
        owned.put_back_unknown(|id| core.in_flight.contains(id));
        return Ok(());
    }
    let pending = match core
        .store
        .deliveries()
        .pending_of(&track.member, MOST_PENDING)
        .await
    {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        pending => pending?,
    };
    let unseen = pending
        .into_iter()
        .filter(|id| !core.in_flight.contains(*id));
    core.release(unseen).await?;
    Ok(())
}

/// Recreates the group of a track at the beginning, after the store has lost it.
pub(crate) async fn recreate(core: &Core, track: &Track) {
    let member = &track.member;
    let recreating = async {
        let topics = core.store.topics();
        let held = topics.ensure_topic(member.topic(), core.settings).await?;
        if let Some(owned) = &core.owned {
            return owned.create(StartFrom::Beginning).await;
        }
        if track
            .partition
            .is_some_and(|number| number >= held.partitions())
        {
            let rule = "the topic was created again with fewer partitions; subscribe again";
            return Err(Error::new(ErrorKind::NotFound, "read", rule).on(member.to_string()));
        }
        topics
            .create_group(&member.at, StartFrom::Beginning)
            .await?;
        core.lease.set(&*core.store, &core.member).await
    };
    // After a failure the next read fails too, and the fetcher waits longer before it comes here.
    if recreating.await.is_ok() {
        core.meters.recreated.increment(1);
        tracing::warn!(subscription = %member, "the group was missing and has been recreated");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::SubscribeOptions;
    use crate::store::{ReclaimCursor, Unmarked};
    use crate::worker::fixture::{Fixture, hand_out, ids, queued};
    use crate::worker::script::Failure;

    #[tokio::test]
    async fn a_recovery_gives_back_only_what_is_not_in_flight() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(3).await;
        let (core, _settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched[..1], false);
        release_unseen(&core, core.tracks.first()).await.unwrap();
        let unseen = ids(&fetched[1..]).into_iter().map(|id| (id, 0));
        assert_eq!(fixture.given_back().await, unseen.collect::<Vec<_>>());
        assert_eq!(fixture.pending().await, ids(&fetched[..1]));
    }

    #[tokio::test]
    async fn a_failed_recovery_is_repeated() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, _settlements) = fixture.core(SubscribeOptions::new());
        core.tracks.first().unseen.note();
        fixture
            .script
            .fail("deliveries.pending_of", Failure::NotDone);
        catch_up(&core, core.tracks.first()).await.unwrap_err();
        catch_up(&core, core.tracks.first()).await.unwrap();
        assert_eq!(queued(&core).await, fetched[0].receipt);
    }

    #[tokio::test]
    async fn own_leases_are_extended_before_others_are_claimed() {
        let fixture = Fixture::new().await;
        let fetched = fixture.fetch(1).await;
        let (core, _settlements) = fixture.core(SubscribeOptions::new());
        hand_out(&core, &fetched, false);
        fixture.script.calls();
        catch_up(&core, core.tracks.first()).await.unwrap();
        let calls = fixture.script.calls();
        assert_eq!(
            calls[..2],
            ["deliveries.extend", "deliveries.claim_expired"]
        );
    }

    #[tokio::test]
    async fn a_single_slow_handler_does_not_keep_its_subscription_from_catching_up() {
        let fixture = Fixture::new().await;
        let (core, _settlements) = fixture.core(SubscribeOptions::new().with_concurrency(1));
        core.capacity.give_back(0);
        let caught_up = tokio::time::timeout(
            Duration::from_secs(20),
            catch_up(&core, core.tracks.first()),
        )
        .await;
        caught_up.expect("the end of catching up").unwrap();
    }

    #[tokio::test]
    async fn a_recreated_group_gets_its_lease_back() {
        let fixture = Fixture::new().await;
        let options = SubscribeOptions::new().with_lease(Duration::from_secs(7));
        let (core, _settlements) = fixture.core(options);
        let (at, force) = (&core.member.at, true);
        let removing = fixture
            .store
            .topics()
            .remove_group(at, Duration::ZERO, force);
        assert!(removing.await.unwrap().unwrap().removed);
        recreate(&core, core.tracks.first()).await;
        let found = fixture
            .store
            .deliveries()
            .claim_expired(
                &core.member,
                Duration::from_secs(5),
                Unmarked::Begun,
                ReclaimCursor::default(),
                1,
            )
            .await;
        assert_eq!(found.unwrap().lease, Duration::from_secs(7));
    }
}
