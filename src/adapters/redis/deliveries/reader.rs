//! Reading: XREADGROUP on a connection of its own.

use std::time::Duration;

use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::net::{ReadFailure, ReaderConnection, Unblock, error};
use crate::adapters::redis::resp::{Broken, Walk, reply};
use crate::domain::{BoxFuture, Error, ErrorKind, whole_millis};
use crate::store::{
    DeliveryId, Fetched, GroupAt, Interrupt, Lane, Opened, Opening, Reader, Source,
};
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What a reply says of its own length is believed up to this.
const MAX_RESERVE: usize = 10_000;

const OPENING: &str = "open reader";

/// How often a read is ended that has nothing, because another one has something.
const END_AGAIN: Duration = Duration::from_millis(10);

impl RedisAdapter {
    pub(in crate::adapters::redis) async fn open_reader(
        &self,
        opening: &Opening,
    ) -> Result<Opened, Error> {
        let key = |source: &Source| {
            let at = GroupAt {
                partition: source.partition.clone(),
                group: opening.group.clone(),
            };
            self.keys.lane(&at, source.lane)
        };
        let mut parts: Vec<Part> = Vec::new();
        let name = format!("redstart:sub:{}", opening.consumer);
        for (number, source) in (0..).zip(&opening.sources) {
            let stream = Stream {
                number,
                lane: source.lane,
                key: key(source),
            };
            let together =
                |part: &&mut Part| self.net.share_a_slot(&part.streams[0].key, &stream.key);
            if let Some(part) = parts.iter_mut().find(together) {
                part.streams.push(stream);
                continue;
            }
            let opened = self.net.open_reader(OPENING, &stream.key, &name).await;
            let (connection, unblock) = opened.map_err(|e| e.on(opening.to_string()))?;
            parts.push(Part {
                connection,
                unblock,
                streams: vec![stream],
            });
        }
        if parts.is_empty() {
            let rule = "a reader needs at least one source";
            return Err(Error::new(ErrorKind::Invalid, OPENING, rule).on(opening.to_string()));
        }
        let unblock = parts.iter().map(|part| part.unblock.clone()).collect();
        let reader = RedisReader {
            parts,
            opening: opening.clone(),
        };
        Ok((Box::new(reader), Box::new(Interrupts(unblock))))
    }
}

#[derive(Debug)]
struct RedisReader {
    opening: Opening,
    /// One read for each slot. A single server has one slot.
    parts: Vec<Part>,
}

/// The sources whose streams one command can read.
#[derive(Debug)]
struct Part {
    connection: ReaderConnection,
    unblock: Unblock,
    streams: Vec<Stream>,
}

/// The stream of a source.
#[derive(Debug)]
struct Stream {
    number: u16,
    lane: Lane,
    key: String,
}

impl RedisReader {
    async fn read(&mut self, max: usize, wait: Duration) -> Result<Vec<Fetched>, Error> {
        let opening = &self.opening;
        let fetched = match &mut self.parts[..] {
            [part] => part.read(opening, max, wait).await,
            parts => match read_each(parts, opening, max, Duration::ZERO).await {
                Ok(none) if none.is_empty() && !wait.is_zero() => {
                    read_each(parts, opening, max, wait).await
                }
                fetched => fetched,
            },
        };
        fetched.map_err(|e| e.on(opening.to_string()))
    }
}

/// Reads all parts at once. As soon as one has something, ends the other reads.
async fn read_each(
    parts: &mut [Part],
    opening: &Opening,
    max: usize,
    wait: Duration,
) -> Result<Vec<Fetched>, Error> {
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
                fetched = part.read(opening, max, wait) => fetched,
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
    match failure {
        // The next read of that part fails, too.
        Some(_) if !all.is_empty() => Ok(all),
        Some(failure) => Err(failure),
        None => Ok(all),
    }
}

impl Part {
    async fn read(
        &mut self,
        opening: &Opening,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Fetched>, Error> {
        let streams = &self.streams;
        let command = |wait: Duration| {
            let mut command = redis::cmd("XREADGROUP");
            command
                .arg("GROUP")
                .arg(opening.group.as_str())
                .arg(opening.consumer.as_str())
                .arg("COUNT")
                .arg(max);
            // A wait of 0 would be for ever.
            let millis = whole_millis(wait);
            if millis > 0 {
                command.arg("BLOCK").arg(millis);
            }
            command.arg("STREAMS");
            for stream in streams {
                command.arg(&stream.key);
            }
            for _ in streams {
                command.arg(">");
            }
            command
        };
        match self.connection.exchange("read", command, wait).await {
            Ok(reply) => self
                .fetched(reply)
                .map_err(|e| error::sent("read", e.into())),
            Err(ReadFailure::Sent(cause)) => Err(error::sent("read", cause)),
            Err(ReadFailure::NotDone(error)) => Err(error),
        }
    }

    /// The stream with this key.
    fn stream(&self, key: &[u8]) -> Result<&Stream, Broken> {
        let mut streams = self.streams.iter();
        let found = streams.find(|stream| stream.key.as_bytes() == key);
        found.ok_or(Broken::new("a stream that was not asked for"))
    }

    /// `[[key, [[id, fields], …]], …]`, or nothing.
    fn fetched(&self, reply: Bytes) -> Result<Vec<Fetched>, Broken> {
        let mut walk = Walk::new(reply);
        let mut fetched = Vec::new();
        for _ in 0..walk.array()? {
            pair(walk.array()?)?;
            let Stream { number, lane, .. } = *self.stream(&walk.payload()?)?;
            let entries = walk.array()?;
            fetched.reserve(entries.min(MAX_RESERVE));
            for _ in 0..entries {
                pair(walk.array()?)?;
                let id = reply::parse_id(&walk.payload()?).ok_or(Broken::new("no entry id"))?;
                let mut fields = Vec::with_capacity(1);
                for _ in 0..walk.array()? / 2 {
                    fields.push((walk.payload()?, walk.payload()?));
                }
                fetched.push(Fetched {
                    source: number,
                    receipt: DeliveryId { lane, id },
                    fields,
                    begun: 0,
                });
            }
        }
        Ok(fetched)
    }
}

fn pair(length: usize) -> Result<(), Broken> {
    if length == 2 {
        return Ok(());
    }
    Err(Broken::new("no pair where one was expected"))
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
