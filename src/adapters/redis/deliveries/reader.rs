//! Reading: XREADGROUP on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::entries::{Streams, key_of};
use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::bells::Bells;
use crate::adapters::redis::later_bells::Awaited;
use crate::adapters::redis::net::{ReadFailure, ReaderConnection, Unblock, error};
use crate::domain::{BoxFuture, Error, ErrorKind};
use crate::store::{Fetched, Interrupt, Lane, Opened, Opening, Reader, Reading};

const OPENING: &str = "open reader";

/// How often a read is ended that has nothing, because another one has something.
const END_AGAIN: Duration = Duration::from_millis(10);

impl RedisAdapter {
    /// Opens a reader on the connection that the opening asks for. Without a choice the first readers
    /// have connections of their own, unless they need one for each of several slots. Where a server does
    /// not let this client listen, all have.
    pub(in crate::adapters::redis) async fn open_reader(
        &self,
        opening: &Opening,
    ) -> Result<Opened, Error> {
        if opening.sources.is_empty() {
            let rule = "a reader needs at least one source";
            return Err(Error::new(ErrorKind::Invalid, OPENING, rule).on(opening.to_string()));
        }
        let own = match opening.reading {
            Reading::Own => None,
            Reading::Shared => return self.open_shared(opening).await,
            Reading::Automatic if self.needs_several_slots(opening) => {
                return self.open_shared(opening).await;
            }
            _ => match Arc::clone(&self.own_readers).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => return self.open_shared(opening).await,
            },
        };
        self.open_own(opening, own).await
    }

    fn needs_several_slots(&self, opening: &Opening) -> bool {
        let mut keys = opening
            .sources
            .iter()
            .map(|one| key_of(&self.keys, opening, one));
        let first = keys.next().unwrap_or_default();
        keys.any(|key| !self.net.share_a_slot(&first, &key))
    }

    async fn open_shared(&self, opening: &Opening) -> Result<Opened, Error> {
        match self.shared_reader(opening).await {
            Some(opened) => Ok(opened),
            None => self.open_own(opening, None).await,
        }
    }

    /// Opens a reader on a connection of its own.
    async fn open_own(
        &self,
        opening: &Opening,
        own: Option<OwnedSemaphorePermit>,
    ) -> Result<Opened, Error> {
        let mut parts: Vec<Part> = Vec::new();
        let name = format!("redstart:sub:{}", opening.consumer);
        for (number, source) in (0..).zip(&opening.sources) {
            let key = key_of(&self.keys, opening, source);
            let together = |part: &&mut Part| self.net.share_a_slot(part.streams.first_key(), &key);
            if let Some(part) = parts.iter_mut().find(together) {
                part.streams.push(number, source.lane, key);
                continue;
            }
            let opened = self.net.open_reader(OPENING, &key, &name).await;
            let (connection, unblock) = opened.map_err(|e| e.on(opening.to_string()))?;
            let mut streams = Streams::new(opening);
            streams.push(number, source.lane, key);
            parts.push(Part {
                connection,
                unblock,
                streams,
            });
        }
        let logs = opening.sources.iter().filter(|one| one.lane == Lane::Log);
        let bells = self.bells();
        let wait = |bells: &Arc<Bells>| {
            logs.map(|log| bells.wait_for_later(&log.partition))
                .collect()
        };
        let unblock = parts.iter().map(|part| part.unblock.clone()).collect();
        let reader = RedisReader {
            parts,
            opening: opening.clone(),
            failure: None,
            _own: own,
            _awaited: bells.as_ref().map_or_else(Vec::new, wait),
            _bells: bells,
        };
        Ok((Box::new(reader), Box::new(Interrupts(unblock))))
    }
}

#[derive(Debug)]
struct RedisReader {
    opening: Opening,
    /// One read for each slot. A single server has one slot.
    parts: Vec<Part>,
    /// Of a part whose last read failed while others brought something. The caller must learn that
    /// deliveries may have been lost on their way.
    failure: Option<Error>,
    /// One of the readers that have connections of their own without asking for them.
    _own: Option<OwnedSemaphorePermit>,
    /// The messages for later of its topics.
    _awaited: Vec<Awaited>,
    _bells: Option<Arc<Bells>>,
}

/// The sources whose streams one command can read.
#[derive(Debug)]
struct Part {
    connection: ReaderConnection,
    unblock: Unblock,
    streams: Streams,
}

impl RedisReader {
    async fn read(&mut self, max: usize, wait: Duration) -> Result<Vec<Fetched>, Error> {
        let fetched = match &mut self.parts[..] {
            [part] => part.read(max, wait).await,
            parts => match self.failure.take() {
                Some(failure) => Err(failure),
                None => {
                    let (mut all, mut failure) = read_each(parts, max, Duration::ZERO).await;
                    if all.is_empty() && failure.is_none() && !wait.is_zero() {
                        (all, failure) = read_each(parts, max, wait).await;
                    }
                    match failure {
                        Some(failure) if all.is_empty() => Err(failure),
                        failure => {
                            self.failure = failure;
                            Ok(all)
                        }
                    }
                }
            },
        };
        fetched.map_err(|e| e.on(self.opening.to_string()))
    }
}

/// Reads all parts at once. As soon as one has something, ends the other reads. Returns the error of a part
/// beside what the others brought.
async fn read_each(
    parts: &mut [Part],
    max: usize,
    wait: Duration,
) -> (Vec<Fetched>, Option<Error>) {
    let found = CancellationToken::new();
    let reads = parts.iter_mut().map(|part| {
        let (found, unblock) = (&found, part.unblock.clone());
        let ending = async move {
            found.cancelled().await;
            loop {
                // One that overtakes its read does nothing.
                let _ = unblock.unblock("read").await;
                sleep(END_AGAIN).await;
            }
        };
        async move {
            let fetched: Result<Vec<Fetched>, Error> = tokio::select! {
                biased;
                fetched = part.read(max, wait) => fetched,
                () = ending => Ok(Vec::new()),
            };
            if !fetched.as_ref().is_ok_and(Vec::is_empty) {
                found.cancel();
            }
            fetched
        }
    });
    let (mut all, mut failure) = (Vec::new(), None);
    for fetched in join_all(reads).await {
        match fetched {
            Ok(fetched) => all.extend(fetched),
            Err(error) => failure = Some(error),
        }
    }
    all.sort_by_key(|one| one.source);
    (all, failure)
}

impl Part {
    async fn read(&mut self, max: usize, wait: Duration) -> Result<Vec<Fetched>, Error> {
        let streams = &self.streams;
        let command = |wait: Duration| streams.command(max, wait);
        match self.connection.exchange("read", command, wait).await {
            Ok(reply) => self
                .streams
                .fetched(reply)
                .map_err(|e| error::sent("read", e.into())),
            Err(ReadFailure::Sent(cause)) => Err(error::sent("read", cause)),
            Err(ReadFailure::NotDone(error)) => Err(error),
        }
    }
}

impl Reader for RedisReader {
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
        Box::pin(self.read(max, wait))
    }
}

/// Ends the reads of all parts.
#[derive(Debug)]
struct Interrupts(Vec<Unblock>);

impl Interrupt for Interrupts {
    fn interrupt(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            let ended = join_all(self.0.iter().map(|one| one.unblock("interrupt"))).await;
            ended.into_iter().collect()
        })
    }
}
