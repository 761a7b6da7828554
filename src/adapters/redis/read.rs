//! Reading: XREADGROUP on a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use redis::RedisError;

use super::adapter::RedisAdapter;
use super::net::{Pool, Socket, error, within};
use super::resp::{Broken, Head, Walk, reply};
use super::scripts;
use crate::domain::BoxFuture;
use crate::domain::{Error, ErrorKind, Group, Topic, whole_millis};
use crate::store::{
    DeliveryId, Fetched, Interrupt, Lane, Opened, Opening, Reader, Source, StartFrom,
};

/// What a reply says of its own length is believed up to this.
const MAX_RESERVE: usize = 10_000;
/// How much longer than asked for a blocked read may take before the connection counts as dead.
const GRACE: Duration = Duration::from_secs(5);

impl RedisAdapter {
    pub(super) async fn ensure_group(
        &self,
        topic: &Topic,
        group: &Group,
        start: StartFrom,
    ) -> Result<(), Error> {
        let start = match start {
            StartFrom::Beginning => "beginning",
            StartFrom::End => "next",
        };
        let call = scripts::group_create()
            .key(self.keys.log(topic))
            .key(self.keys.redo(topic, group))
            .arg(group.as_str())
            .arg(start);
        self.pool
            .run("create group", async |connection| {
                call.run::<bool>(connection).await
            })
            .await
            .map(|_| ())
            .map_err(|e| e.on(format!("{topic}/{group}")))
    }

    pub(super) async fn open_reader(&self, opening: &Opening) -> Result<Opened, Error> {
        let connecting = async {
            let name = format!("redstart:sub:{}", opening.consumer);
            let mut socket = self.server.connect_socket(&name).await?;
            let asking = redis::cmd("CLIENT").arg("ID").to_owned();
            match within(GRACE, socket.command(&asking)).await? {
                Head::Integer(client) => Ok((socket, client)),
                _ => Err(reply::unexpected("CLIENT ID")),
            }
        };
        let (socket, client) = connecting
            .await
            .map_err(|e| error::not_sent("open reader", e).on(opening.to_string()))?;
        let key = |source: &Source| {
            let topic = source.partition.topic();
            self.keys.lane(topic, &opening.group, source.lane)
        };
        let reader = RedisReader {
            socket,
            keys: opening.sources.iter().map(key).collect(),
            opening: opening.clone(),
        };
        let interrupt = RedisInterrupt {
            pool: self.pool.clone(),
            client,
        };
        Ok((Box::new(reader), Box::new(interrupt)))
    }
}

#[derive(Debug)]
struct RedisReader {
    socket: Socket,
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
        // A reply that is late is not a reply that is lost: there is no other time limit.
        let reply = within(wait + GRACE, self.socket.exchange(&command)).await;
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
                    deliveries: 1,
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

#[derive(Debug)]
struct RedisInterrupt {
    pool: Pool,
    client: i64,
}

impl Interrupt for RedisInterrupt {
    fn interrupt(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.pool.run("interrupt", async |connection| {
            redis::cmd("CLIENT")
                .arg("UNBLOCK")
                .arg(self.client)
                .exec_async(connection)
                .await
        }))
    }
}
