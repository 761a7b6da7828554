//! Fetching: one reader per subscription, as much as there is room for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::domain::{Error, ErrorKind};
use crate::store::{DeliveryId, Fetched, Interrupt, Opened, Reader, ReclaimCursor, StartFrom};
use crate::worker::core::{Core, back_off};
use crate::worker::intake::reclaim;
use crate::worker::services::lease_keeper;

/// How long a read waits on the server. A connection that is dead without a sign is noticed
/// after this and the adapter's grace.
const WAIT: Duration = Duration::from_secs(5);
/// For how long messages gather where many come.
const GATHERING: Duration = Duration::from_millis(2);
/// How often a read that does not end is interrupted again.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(50);
/// The most that one consumer can hold, with room to spare.
pub(crate) const HOLDINGS: usize = 100_000;

/// Reads until the subscription stops.
pub(crate) async fn run(core: Arc<Core>, opened: Opened) {
    let mut opened = Some(opened);
    let mut failures = 0;
    // What the consumer before this one has given back is older than anything new.
    let mut behind = true;
    while let Some(room) = room(&core).await {
        let (mut reader, interrupt) = match opened.take() {
            Some(opened) => opened,
            None => match reopen(&core).await {
                Ok(opened) => opened,
                Err(error) => {
                    failures += 1;
                    pause(&core, &error, failures).await;
                    continue;
                }
            },
        };
        // Between two reads: what a read brings is held before it is entered, and would be
        // taken for stranded.
        if behind || core.stranded.load(Ordering::Acquire) {
            behind = match catch_up(&core).await {
                Ok(()) => false,
                Err(error) => {
                    failures += 1;
                    pause(&core, &error, failures).await;
                    true
                }
            };
            opened = Some((reader, interrupt));
            continue;
        }
        // The limit holds for each of the two lanes.
        let max = (room / 2).max(1);
        match read(&core, &mut *reader, &*interrupt, max).await {
            Ok(fetched) => {
                if failures > 0 {
                    tracing::info!(subscription = %core.member, "reading again");
                    core.reading.over();
                    failures = 0;
                }
                let gathers = core.room.gathers(fetched.len(), max);
                core.hand_over(fetched);
                core.room.adapt(Instant::now());
                if gathers {
                    sleep(GATHERING).await;
                }
                opened = Some((reader, interrupt));
            }
            Err(error) => {
                failures += 1;
                let gone = error.kind() == ErrorKind::NotFound;
                pause(&core, &error, failures).await;
                if gone {
                    recreate(&core).await;
                    opened = Some((reader, interrupt));
                } else {
                    // It may have taken what its answer did not bring.
                    core.stranded.store(true, Ordering::Release);
                }
            }
        }
    }
}

/// Waits for room; `None` when the subscription stops.
async fn room(core: &Core) -> Option<usize> {
    tokio::select! {
        biased;
        () = core.stop.cancelled() => None,
        room = core.room.wait() => Some(room),
    }
}

/// Reads once. The future of a read is never dropped: what it has taken on the server would be
/// stranded until its lease ends. A stop interrupts the read instead.
async fn read(
    core: &Core,
    reader: &mut dyn Reader,
    interrupt: &dyn Interrupt,
    max: usize,
) -> Result<Vec<Fetched>, Error> {
    let interrupting = async {
        core.stop.cancelled().await;
        loop {
            // The read may not have reached the server yet, so once is not enough.
            let _ = interrupt.interrupt().await;
            sleep(INTERRUPT_AGAIN).await;
        }
    };
    tokio::select! {
        biased;
        fetched = reader.fetch(max, WAIT) => fetched,
        () = interrupting => unreachable!("interrupting never ends"),
    }
}

/// Says once why reading does not work, then waits.
async fn pause(core: &Core, error: &Error, failures: u32) {
    if failures == 1 {
        tracing::warn!(
            subscription = %core.member,
            error = %crate::domain::describe(error),
            "reading failed; trying again until it works",
        );
    }
    core.reading.say(error);
    tokio::select! {
        () = core.stop.cancelled() => {}
        () = sleep(back_off(failures)) => {}
    }
}

async fn reopen(core: &Core) -> Result<Opened, Error> {
    let opened = core.store.open(&core.member).await?;
    core.meters.reconnects.increment(1);
    Ok(opened)
}

/// Takes over what was given back or has expired, before anything newer is read: with one handler
/// first deliveries so come in their order, also after a restart or a broken connection.
async fn catch_up(core: &Core) -> Result<(), Error> {
    let mut cursor = ReclaimCursor::default();
    // After a standstill it would otherwise take its own deliveries over, and count a crash.
    lease_keeper::keep(core).await;
    loop {
        if core.stranded.swap(false, Ordering::AcqRel)
            && let Err(error) = recover(core).await
        {
            core.stranded.store(true, Ordering::Release);
            return Err(error);
        }
        match reclaim::take_over(core, &mut cursor).await {
            Ok(reclaim::Next::Again) => {}
            Ok(reclaim::Next::Full) => {
                if room(core).await.is_none() {
                    return Ok(());
                }
            }
            // The reclaimer may have lost an answer meanwhile.
            Ok(reclaim::Next::Done) if core.stranded.load(Ordering::Acquire) => {}
            Ok(reclaim::Next::Done) => return Ok(()),
            Err(error) if error.is_retryable() => return Err(error),
            // The reclaimer says so, and reading need not stand still for it.
            Err(_) => return Ok(()),
        }
    }
}

/// Gives back, uncounted, what the store thinks this consumer holds and it does not.
async fn recover(core: &Core) -> Result<(), Error> {
    let _claiming = core.claiming.lock().await;
    let holdings = match core.store.pending_of(&core.member, HOLDINGS).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        holdings => holdings?,
    };
    let stranded: Vec<DeliveryId> = holdings
        .into_iter()
        .filter(|receipt| !core.held.contains(*receipt))
        .collect();
    if !stranded.is_empty() {
        core.store.release(&core.member, &stranded).await?;
    }
    Ok(())
}

/// Creates the group anew, at the beginning, after the store has lost it.
async fn recreate(core: &Core) {
    let member = &core.member;
    let recreating = async {
        core.store
            .ensure_topic(&member.topic, core.settings)
            .await?;
        core.store
            .create_group(&member.topic, &member.group, StartFrom::Beginning)
            .await
    };
    // A failure shows again at the next read, which waits longer before it comes here.
    if recreating.await.is_ok() {
        core.meters.recreated.increment(1);
        tracing::warn!(subscription = %member, "the group was gone and has been created anew");
    }
}
