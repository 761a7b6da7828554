//! Reading: XREADGROUP on a connection of its own.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};

use super::backend::RedisBackend;
use super::pool::Pool;
use super::{error, reply, scripts};
use crate::backend::{Fetched, Interrupt, Lane, Member, Opened, Reader, Receipt, Start};
use crate::domain::{Error, ErrorKind, Group, Topic, whole_millis};
use crate::ports::BoxFuture;

/// How much longer than asked for a blocked read may take before the connection counts as dead.
const GRACE: Duration = Duration::from_secs(5);

impl RedisBackend {
    pub(super) async fn ensure_group(
        &self,
        topic: &Topic,
        group: &Group,
        start: Start,
    ) -> Result<(), Error> {
        let start = match start {
            Start::Beginning => "beginning",
            Start::Next => "next",
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

    pub(super) async fn open_reader(&self, member: &Member) -> Result<Opened, Error> {
        let fail = |e| error::not_sent("open reader", e).on(member.to_string());
        // Without a response timeout: a reply that is late is not a reply that is lost.
        let name = format!("redstart:sub:{}", member.consumer);
        let mut connection = self.server.connect(&name, None).await.map_err(fail)?;
        let asking = redis::cmd("CLIENT").arg("ID").to_owned();
        let client: i64 = tokio::time::timeout(GRACE, asking.query_async(&mut connection))
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
            .map_err(fail)?;
        let reader = RedisReader {
            connection,
            log: self.keys.log(&member.topic),
            redo: self.keys.redo(&member.topic, &member.group),
            member: member.clone(),
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
    connection: MultiplexedConnection,
    log: String,
    redo: String,
    member: Member,
}

impl RedisReader {
    async fn read(&mut self, max: usize, wait: Duration) -> Result<Vec<Fetched>, Error> {
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(self.member.group.as_str())
            .arg(self.member.consumer.as_str())
            .arg("COUNT")
            .arg(max)
            .arg("BLOCK")
            // A wait of 0 would be for ever.
            .arg(whole_millis(wait).max(1))
            .arg("STREAMS")
            .arg(&self.log)
            .arg(&self.redo)
            .arg(">")
            .arg(">");
        let reply = command.query_async::<Value>(&mut self.connection);
        let reply = tokio::time::timeout(wait + GRACE, reply)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()));
        reply
            .and_then(|reply| self.fetched(reply))
            .map_err(|e| failed(e).on(self.member.to_string()))
    }

    fn fetched(&self, reply: Value) -> Result<Vec<Fetched>, RedisError> {
        let mut fetched = Vec::new();
        for lane in reply::array(reply)? {
            let mut parts = reply::array(lane)?.into_iter();
            let (Some(Value::BulkString(key)), Some(entries)) = (parts.next(), parts.next()) else {
                return Err(reply::unexpected("XREADGROUP"));
            };
            let lane = if key == self.redo.as_bytes() {
                Lane::Redo
            } else {
                Lane::Log
            };
            let entries = reply::entries(entries)?;
            fetched.reserve(entries.len());
            fetched.extend(entries.into_iter().map(|(id, fields)| Fetched {
                receipt: Receipt { lane, id },
                fields,
                deliveries: 1,
            }));
        }
        Ok(fetched)
    }
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
