//! Fetching: one reader per subscription, as much as there is room for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::core::{Core, back_off};
use crate::backend::{Fetched, Interrupt, Opened, Reader, Receipt, Start};
use crate::domain::{Error, ErrorKind};

/// How long a read waits on the server. A connection that is dead without a sign is noticed
/// after this and the adapter's grace.
const WAIT: Duration = Duration::from_secs(5);
/// How often a read that does not end is interrupted again.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(50);
/// The most that one consumer can hold, with room to spare.
pub(super) const HOLDINGS: usize = 100_000;

/// Reads until the subscription stops.
pub(super) async fn run(core: Arc<Core>, opened: Opened) {
    let mut opened = Some(opened);
    let mut failures = 0;
    while let Some(room) = room(&core).await {
        // Between two reads: what a read brings is held before it is entered, and would be
        // taken for stranded.
        if core.stranded.swap(false, Ordering::AcqRel) && recover(&core).await.is_err() {
            core.stranded.store(true, Ordering::Release);
        }
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
        // The limit holds for each of the two lanes.
        match read(&core, &mut *reader, &*interrupt, (room / 2).max(1)).await {
            Ok(fetched) => {
                if failures > 0 {
                    tracing::info!(subscription = %core.member, "reading again");
                    core.reading.over();
                    failures = 0;
                }
                core.hand_over(fetched);
                core.room.adapt(Instant::now());
                opened = Some((reader, interrupt));
            }
            Err(error) => {
                failures += 1;
                let gone = error.kind() == ErrorKind::NotFound;
                pause(&core, &error, failures).await;
                if gone {
                    recreate(&core).await;
                    opened = Some((reader, interrupt));
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

/// Opens a reader again, and gives back what the last one took without handing it over.
async fn reopen(core: &Core) -> Result<Opened, Error> {
    let opened = core.backend.open(&core.member).await?;
    core.meters.reconnects.increment(1);
    recover(core).await?;
    Ok(opened)
}

/// Gives back, uncounted, what the store thinks this consumer holds and it does not.
pub(super) async fn recover(core: &Core) -> Result<(), Error> {
    let _claiming = core.claiming.lock().await;
    let holdings = match core.backend.holdings(&core.member, HOLDINGS).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        holdings => holdings?,
    };
    let stranded: Vec<Receipt> = holdings
        .into_iter()
        .filter(|receipt| !core.held.contains(*receipt))
        .collect();
    if !stranded.is_empty() {
        core.backend.release(&core.member, &stranded).await?;
        core.reclaim_now.notify_one();
    }
    Ok(())
}

/// Creates the group anew, at the beginning, after the store has lost it.
async fn recreate(core: &Core) {
    let member = &core.member;
    let recreating = async {
        core.backend
            .ensure_topic(&member.topic, core.settings)
            .await?;
        core.backend
            .create_group(&member.topic, &member.group, Start::Beginning)
            .await
    };
    // A failure shows again at the next read, which waits longer before it comes here.
    if recreating.await.is_ok() {
        core.meters.recreated.increment(1);
        tracing::warn!(subscription = %member, "the group was gone and has been created anew");
    }
}
