//! Reading on the connection that subscriptions share: XREADGROUP without BLOCK, after a ring.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::entries::{Streams, key_of};
use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::bells::{Bells, SharedReaders};
use crate::adapters::redis::net::error;
use crate::domain::{BoxFuture, Error, ErrorKind};
use crate::store::{Bell, Fetched, GroupAt, Interrupt, Opened, Opening, Reader, Ring};

/// The most entries of each stream that one read brings, so that busy topics take turns.
const MOST_AT_ONCE: usize = 100;
/// How often a reader looks while the server does not tell of changes.
const LOOK_DEAF: Duration = Duration::from_secs(2);

/// How many reads in a row may find that other processes were quicker, before a reader lets them go
/// first.
const MISSES: u32 = 4;
const SHORTEST_COURTESY: Duration = Duration::from_millis(2);
const LONGEST_COURTESY: Duration = Duration::from_millis(20);

/// The longest wait between a ring and a read. All processes of a group hear a ring, and each read that
/// comes too late costs the server as much as one that finds the message.
fn courtesy(misses: u32) -> Duration {
    match misses.checked_sub(MISSES) {
        None => Duration::ZERO,
        Some(more) => SHORTEST_COURTESY
            .saturating_mul(1 << more.min(8))
            .min(LONGEST_COURTESY),
    }
}

impl RedisAdapter {
    /// Opens a reader on the shared connection. `None` where the server does not tell of changes, or
    /// where the sources lie in several slots.
    pub(in crate::adapters::redis) async fn shared_reader(
        &self,
        opening: &Opening,
    ) -> Option<Opened> {
        let mut streams = Streams::new(opening);
        for (number, source) in (0..).zip(&opening.sources) {
            let key = key_of(&self.keys, opening, source);
            if number > 0 && !self.net.share_a_slot(streams.first_key(), &key) {
                return None;
            }
            streams.push(number, source.lane, key);
        }
        let at = GroupAt {
            partition: opening.sources.first()?.partition.clone(),
            group: opening.group.clone(),
        };
        let bells = self.bells()?;
        let bell = bells.bell_of(&at);
        if !bells.listen(&bell).await {
            return None;
        }
        let interrupted = Arc::<Notify>::default();
        let reader = SharedReader {
            adapter: self.net.clone(),
            opening: opening.clone(),
            streams,
            // Entries may be there already.
            seen: bell.count(Ring::Entries).wrapping_sub(1),
            bell,
            one_of: bells.enter_reader(),
            bells,
            is_ready: false,
            misses: 0,
            looked: Instant::now(),
            interrupted: Arc::clone(&interrupted),
        };
        Some((Box::new(reader), Box::new(SharedInterrupt(interrupted))))
    }
}

#[derive(Debug)]
struct SharedReader {
    adapter: crate::adapters::redis::net::Net,
    opening: Opening,
    streams: Streams,
    bell: Arc<Bell>,
    bells: Arc<Bells>,
    one_of: SharedReaders,
    /// The count of rings before the last read that found all that there was.
    seen: u64,
    /// The next fetch looks once and does not wait.
    is_ready: bool,
    /// How many reads after a ring have found nothing since the last that found something.
    misses: u32,
    looked: Instant,
    interrupted: Arc<Notify>,
}

impl SharedReader {
    /// Waits until a read may find something.
    async fn wait_for_ring(&self) {
        let pause = if self.bell.hears() {
            self.one_of.pause()
        } else {
            LOOK_DEAF
        };
        // Spread out, because all readers look at the beginning.
        let look = self.looked + pause.mul_f64(0.75 + fastrand::f64() / 4.0);
        tokio::select! {
            biased;
            () = self.bell.rung_since(Ring::Entries, self.seen) => {}
            () = sleep_until(look) => return,
        }
        let courtesy = courtesy(self.misses);
        if !courtesy.is_zero() {
            sleep(courtesy.mul_f64(fastrand::f64())).await;
        }
    }

    async fn read(&mut self, max: usize, wait: Duration) -> Result<Vec<Fetched>, Error> {
        let until = Instant::now() + wait;
        let mut only_once = std::mem::take(&mut self.is_ready) || wait.is_zero();
        loop {
            if let Some(cause) = self.bells.refusal() {
                let error = Error::new(
                    ErrorKind::Unavailable,
                    "read",
                    "the server does not tell which topics have changed",
                );
                return Err(error.because(cause).on(self.opening.to_string()));
            }
            let fetched = self.look(max).await?;
            if !fetched.is_empty() || only_once {
                return Ok(fetched);
            }
            tokio::select! {
                biased;
                () = self.interrupted.notified() => return Ok(Vec::new()),
                () = self.wait_for_ring() => {}
                // A last look: a ring may be late.
                () = sleep_until(until) => only_once = true,
            }
        }
    }

    async fn look(&mut self, max: usize) -> Result<Vec<Fetched>, Error> {
        let max = max.min(MOST_AT_ONCE);
        let rings = self.bell.count(Ring::Entries);
        self.looked = Instant::now();
        let command = self
            .streams
            .command(max, Duration::ZERO)
            .get_packed_command();
        let key = self.streams.first_key();
        let reply = self.adapter.read("read", key, &command).await;
        let fetched = reply.and_then(|reply| {
            let fetched = self.streams.fetched(reply);
            fetched.map_err(|broken| error::sent("read", broken.into()))
        });
        let fetched = fetched.map_err(|e| e.on(self.opening.to_string()))?;
        self.misses = match fetched.is_empty() {
            true => self.misses.saturating_add(1),
            false => 0,
        };
        // A full stream may hold more.
        if fetched.len() < max {
            self.seen = rings;
        } else {
            self.seen = rings.wrapping_sub(1);
        }
        Ok(fetched)
    }
}

impl Reader for SharedReader {
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
        Box::pin(self.read(max, wait))
    }

    fn ready(&mut self) -> Option<BoxFuture<'_, ()>> {
        Some(Box::pin(async {
            self.wait_for_ring().await;
            self.is_ready = true;
        }))
    }
}

#[derive(Debug)]
struct SharedInterrupt(Arc<Notify>);

impl Interrupt for SharedInterrupt {
    fn interrupt(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.0.notify_waiters();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_always_comes_too_late_lets_others_go_first() {
        let millis: Vec<_> = (0..10).map(|n| courtesy(n).as_millis()).collect();
        assert_eq!(millis, [0, 0, 0, 0, 2, 4, 8, 16, 20, 20]);
        assert_eq!(courtesy(u32::MAX), LONGEST_COURTESY);
    }
}
