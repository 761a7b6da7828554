//! Reading: XREADGROUP on a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use redis::RedisError;

use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::net::{ReaderConnection, Unblock, error};
use crate::adapters::redis::resp::{Broken, Walk, reply};
use crate::domain::{BoxFuture, Error, ErrorKind, whole_millis};
use crate::store::{
    DeliveryId, Fetched, GroupAt, Interrupt, Lane, Opened, Opening, Reader, Source,
};

/// What a reply says of its own length is believed up to this.
const MAX_RESERVE: usize = 10_000;

const OPENING: &str = "open reader";

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
        let keys: Vec<String> = opening.sources.iter().map(key).collect();
        let Some(first) = keys.first() else {
            let rule = "a reader needs at least one source";
            return Err(Error::new(ErrorKind::Invalid, OPENING, rule).on(opening.to_string()));
        };
        let name = format!("redstart:sub:{}", opening.consumer);
        let opened = self.net.open_reader(OPENING, first, &name).await;
        let (connection, unblock) = opened.map_err(|e| e.on(opening.to_string()))?;
        let reader = RedisReader {
            connection,
            keys,
            opening: opening.clone(),
        };
        Ok((Box::new(reader), Box::new(unblock)))
    }
}

#[derive(Debug)]
struct RedisReader {
    connection: ReaderConnection,
    opening: Opening,
    /// The stream of each source.
    keys: Vec<String>,
}

impl RedisReader {
    async fn read(&mut self, max: usize, wait: Duration) -> Result<Vec<Fetched>, Error> {
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(self.opening.group.as_str())
            .arg(self.opening.consumer.as_str())
            .arg("COUNT")
            .arg(max);
        // A wait of 0 would be for ever.
        let millis = whole_millis(wait);
        if millis > 0 {
            command.arg("BLOCK").arg(millis);
        }
        command.arg("STREAMS").arg(&self.keys);
        for _ in &self.keys {
            command.arg(">");
        }
        let reply = self.connection.exchange(&command, wait).await;
        reply
            .and_then(|reply| Ok(self.fetched(reply)?))
            .map_err(|e| failed(e).on(self.opening.to_string()))
    }

    /// The source whose stream has this key.
    fn source(&self, key: &[u8]) -> Result<(u16, Lane), Broken> {
        let keyed = self.keys.iter().zip(&self.opening.sources);
        let mut numbered = (0..).zip(keyed);
        numbered
            .find(|(_, (known, _))| known.as_bytes() == key)
            .map(|(number, (_, source))| (number, source.lane))
            .ok_or(Broken::new("a stream that was not asked for"))
    }

    /// `[[key, [[id, fields], …]], …]`, or nothing.
    fn fetched(&self, reply: Bytes) -> Result<Vec<Fetched>, Broken> {
        let mut walk = Walk::new(reply);
        let mut fetched = Vec::new();
        for _ in 0..walk.array()? {
            pair(walk.array()?)?;
            let (source, lane) = self.source(&walk.payload()?)?;
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
                    source,
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

/// After FLUSHALL a blocked read ends with UNBLOCKED, and the next one with NOGROUP: the group is
/// gone either way.
fn failed(cause: RedisError) -> Error {
    match cause.code() {
        Some("UNBLOCKED") => {
            Error::new(ErrorKind::NotFound, "read", "the group is gone").because(cause)
        }
        _ => error::sent("read", cause),
    }
}

impl Reader for RedisReader {
    fn fetch(&mut self, max: usize, wait: Duration) -> BoxFuture<'_, Result<Vec<Fetched>, Error>> {
        Box::pin(self.read(max, wait))
    }
}

impl Interrupt for Unblock {
    fn interrupt(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.unblock("interrupt"))
    }
}
