//! Reading on the connection that subscriptions share: XREADGROUP without BLOCK, after a ring.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::courtesy::Courtesy;
use super::entries::{Streams, key_of};
use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::bells::{Bells, SharedReaders, Watched};
use crate::adapters::redis::net::{Net, error};
use crate::adapters::redis::resp::pack;
use crate::domain::{BoxFuture, Error, ErrorKind};
use crate::store::{Bell, Fetched, GroupAt, Interrupt, Opened, Opening, Reader, Ring};

/// The most entries of each stream that one read brings, so that busy topics take turns. As many as a
/// subscription with quick handlers asks for.
const MOST_AT_ONCE: usize = 512;
/// How often a reader looks while the server does not tell of changes.
const LOOK_DEAF: Duration = Duration::from_secs(2);

impl RedisAdapter {
    /// Opens a reader on the shared connections. `None` where a server does not tell of changes.
    pub(in crate::adapters::redis) async fn shared_reader(
        &self,
        opening: &Opening,
    ) -> Option<Opened> {
        let bells = self.bells()?;
        let mut parts: Vec<Part> = Vec::new();
        for (number, source) in (0..).zip(&opening.sources) {
            let at = GroupAt {
                partition: source.partition.clone(),
                group: opening.group.clone(),
            };
            let key = key_of(&self.keys, opening, source);
            let known = parts.iter_mut().find(|part| part.at == at);
            let part = match known {
                Some(part) => part,
                None => {
                    let bell = bells.bell_of(&at);
                    // Entries may be there already.
                    let seen = bell.count(Ring::Entries).wrapping_sub(1);
                    let streams = Streams::new(opening);
                    parts.push(Part {
                        at,
                        streams,
                        keys: Vec::new(),
                        bell,
                        seen,
                    });
                    parts.last_mut()?
                }
            };
            part.keys
                .extend(bells.watched(&key).map(|watched| (key.clone(), watched)));
            part.streams.push(number, source.lane, key);
        }
        let of_parts: Vec<_> = parts.iter().map(|part| Arc::clone(&part.bell)).collect();
        if !bells.listen(&of_parts).await {
            return None;
        }
        let bell = match &of_parts[..] {
            [] => return None,
            [bell] => Arc::clone(bell),
            _ => Bell::over(of_parts),
        };
        let interrupted = Arc::<Notify>::default();
        let reader = SharedReader {
            net: self.net.clone(),
            opening: opening.clone(),
            parts,
            seen: bell.count(Ring::Entries).wrapping_sub(1),
            bell,
            one_of: bells.enter_reader(),
            bells,
            is_ready: false,
            has_rung: false,
            failure: None,
            courtesy: Courtesy::default(),
            looked: Instant::now(),
            interrupted: Arc::clone(&interrupted),
        };
        Some((Box::new(reader), Box::new(SharedInterrupt(interrupted))))
    }
}

/// The streams of one partition, which one command reads.
#[derive(Debug)]
struct Part {
    at: GroupAt,
    streams: Streams,
    /// The keys of the streams, and whether the server watches them.
    keys: Vec<(String, Arc<Watched>)>,
    bell: Arc<Bell>,
    /// The count of rings before the last read that found all that there was.
    seen: u64,
}

impl Part {
    /// Whether it has rung since the last read that found all that there was.
    fn has_rung(&self) -> bool {
        self.bell.count(Ring::Entries) != self.seen
    }

    async fn read(&mut self, net: &Net, max: usize) -> Result<Vec<Fetched>, Error> {
        let rings = self.bell.count(Ring::Entries);
        let read = self
            .streams
            .command(max, Duration::ZERO)
            .get_packed_command();
        // Lets the server tell of the next change of those that it does not watch.
        let unwatched = self
            .keys
            .iter()
            .filter(|(_, watched)| !watched.is_watched());
        let unwatched: Vec<_> = unwatched
            .map(|(key, watched)| (key.as_bytes(), watched, watched.told()))
            .collect();
        let (packed, commands) = match &unwatched[..] {
            [] => (read, 1),
            unwatched => {
                let keys = unwatched.iter().map(|(key, ..)| *key);
                let parts: Vec<&[u8]> = std::iter::once(&b"EXISTS"[..]).chain(keys).collect();
                let mut packed = Vec::new();
                pack(&mut packed, &parts);
                packed.extend_from_slice(&read);
                (packed, 2)
            }
        };
        let key = self.streams.first_key();
        let reply = net.read("read", key, &packed, commands).await;
        if let Ok((_, true)) = reply {
            let watched = unwatched.iter();
            watched.for_each(|(_, watched, told)| watched.note(*told));
        }
        let fetched = reply.and_then(|(reply, _)| {
            let fetched = self.streams.fetched(reply);
            fetched.map_err(|broken| error::sent("read", broken.into()))
        });
        let fetched = fetched.map_err(|e| e.on(self.at.to_string()))?;
        // A full stream may hold more.
        self.seen = match fetched.len() < max {
            true => rings,
            false => rings.wrapping_sub(1),
        };
        Ok(fetched)
    }
}

#[derive(Debug)]
struct SharedReader {
    net: Net,
    opening: Opening,
    parts: Vec<Part>,
    /// Rings with the bell of each part.
    bell: Arc<Bell>,
    bells: Arc<Bells>,
    one_of: SharedReaders,
    /// The count of rings before the last read that found all that there was.
    seen: u64,
    /// The next fetch looks once and does not wait.
    is_ready: bool,
    /// It does so because of a ring.
    has_rung: bool,
    /// Of a part whose last read failed while others brought something. The caller must learn that
    /// deliveries may have been lost on their way.
    failure: Option<Error>,
    courtesy: Courtesy,
    looked: Instant,
    interrupted: Arc<Notify>,
}

impl SharedReader {
    /// Waits until a read may find something. Returns whether it rang.
    async fn wait_for_ring(&mut self) -> bool {
        let look = match self.bell.hears() {
            true => self.one_of.next_look(self.looked),
            false => self.looked + LOOK_DEAF.mul_f64(0.75 + fastrand::f64() / 4.0),
        };
        tokio::select! {
            biased;
            () = self.bell.rung_since(Ring::Entries, self.seen) => {}
            () = sleep_until(look) => return false,
        }
        let now = Instant::now();
        let turn = self.courtesy.turn(now);
        if turn > now {
            sleep_until(turn).await;
        }
        true
    }

    async fn read(&mut self, max: usize, wait: Duration) -> Result<Vec<Fetched>, Error> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let until = Instant::now() + wait;
        let interrupted = Arc::clone(&self.interrupted);
        let mut only_once = std::mem::take(&mut self.is_ready) || wait.is_zero();
        let mut rang = std::mem::take(&mut self.has_rung);
        loop {
            if let Some(cause) = self.bells.refusal() {
                let error = Error::new(
                    ErrorKind::Unavailable,
                    "read",
                    "the server does not tell which topics have changed",
                );
                return Err(error.because(cause).on(self.opening.to_string()));
            }
            let fetched = self.look(max, rang).await?;
            if !fetched.is_empty() || only_once {
                return Ok(fetched);
            }
            tokio::select! {
                biased;
                () = interrupted.notified() => return Ok(Vec::new()),
                heard = self.wait_for_ring() => rang = heard,
                // A last look: a ring may be late.
                () = sleep_until(until) => (only_once, rang) = (true, false),
            }
        }
    }

    /// Reads the parts that may have something. A look that comes of itself reads all of them, because a ring
    /// may be lost.
    async fn look(&mut self, max: usize, rang: bool) -> Result<Vec<Fetched>, Error> {
        let max = max.min(MOST_AT_ONCE);
        let all = !rang || self.parts.len() == 1;
        let rings = self.bell.count(Ring::Entries);
        self.looked = Instant::now();
        let net = &self.net;
        let parts = self.parts.iter_mut();
        let parts = parts.filter(|part| all || part.has_rung() || !part.bell.hears());
        let mut reads = join_all(parts.map(|part| part.read(net, max))).await;
        let full = reads.iter().flatten().any(|read| read.len() >= max);
        let fetched = match reads.len() {
            1 => reads.swap_remove(0)?,
            _ => self.joined(reads)?,
        };
        match rang {
            true => self.courtesy.note(fetched.len(), full),
            false => self.courtesy.end_turn(),
        }
        self.seen = match self.parts.iter().any(Part::has_rung) {
            true => rings.wrapping_sub(1),
            false => rings,
        };
        Ok(fetched)
    }

    /// What several reads brought.
    fn joined(&mut self, reads: Vec<Result<Vec<Fetched>, Error>>) -> Result<Vec<Fetched>, Error> {
        let (mut all, mut failure) = (Vec::new(), None);
        for read in reads {
            match read {
                Ok(fetched) => all.extend(fetched),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(failure) if all.is_empty() => Err(failure),
            failure => {
                self.failure = failure;
                Ok(all)
            }
        }
    }
}

impl Reader for SharedReader {
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
        Box::pin(self.read(max, wait))
    }

    fn ready(&mut self) -> Option<BoxFuture<'_, ()>> {
        Some(Box::pin(async {
            self.has_rung = self.wait_for_ring().await;
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
