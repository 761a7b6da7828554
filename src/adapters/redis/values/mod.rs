//! The key-value store on Redis strings.

mod listing;

use std::time::Duration;

use bytes::Bytes;
use redis::{RedisError, Value};

use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::net::Connection;
use crate::adapters::redis::resp::reply;
use crate::adapters::redis::scripts;
use crate::domain::{BoxFuture, Error, ErrorKind, ttl_millis};
use crate::store::{CasResult, ClaimResult, KeyCursor, KeyPage, Peeked, Values};

impl RedisAdapter {
    async fn on_key<T>(
        &self,
        operation: &'static str,
        key: &str,
        exchange: impl AsyncFnOnce(&mut Connection, &str) -> Result<T, RedisError> + Clone,
    ) -> Result<T, Error> {
        let name = self.keys.value(operation, key)?;
        self.net
            .run(operation, &name, async |connection| {
                exchange(connection, &name).await
            })
            .await
            .map_err(|e| e.on(key))
    }
}

/// The result of several writes. An error that says that nothing was written is returned only where
/// this holds for every key.
fn all_set<'a>(writes: impl Iterator<Item = (&'a str, Result<(), Error>)>) -> Result<(), Error> {
    let (mut first, mut maybe_written) = (None, false);
    for (key, write) in writes {
        match write {
            Ok(()) => maybe_written = true,
            Err(error) => {
                maybe_written |= may_be_done(error.kind());
                first.get_or_insert((key, error));
            }
        }
    }
    match first {
        None => Ok(()),
        Some((key, error)) if maybe_written => {
            let rule = format!("the value of {key:?} failed; values of other keys may be written");
            Err(Error::new(ErrorKind::OutcomeUnknown, "set", rule).because(error))
        }
        Some((_, error)) => Err(error),
    }
}

/// Whether a command that failed with this kind may have been done.
fn may_be_done(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::OutcomeUnknown | ErrorKind::Decode)
}

/// What stands before the owner's token in a claim, as `once_claim.lua` says.
const CLAIMED: &[u8] = b"\xC1\xC1c";

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(Bytes::from(bytes)),
        _ => None,
    }
}

impl Values for RedisAdapter {
    fn get<'a>(&'a self, keys: &'a [&'a str]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>, Error>> {
        Box::pin(async move {
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            if let [key] = keys {
                let found: Option<Vec<u8>> = self
                    .on_key("get", key, async |connection, name| {
                        redis::cmd("GET").arg(name).query_async(connection).await
                    })
                    .await?;
                return Ok(vec![found.map(Bytes::from)]);
            }
            // Single GETs in a pipeline, not MGET: keys of several slots are no error then.
            let mut commands = Vec::with_capacity(keys.len());
            for key in keys {
                let name = self.keys.value("get", key)?;
                let command = redis::Cmd::get(&name);
                commands.push((name, command));
            }
            let found = self.net.run_each::<Option<Vec<u8>>>("get", &commands);
            let values = found.await.into_iter();
            let values = values.map(|value| Ok(value?.map(Bytes::from)));
            let values: Result<Vec<_>, Error> = values.collect();
            values.map_err(|e| e.on(keys.join(" ")))
        })
    }

    fn set<'a>(
        &'a self,
        entries: &'a [(&'a str, Bytes)],
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            if entries.is_empty() {
                return Ok(());
            }
            let names = || {
                let names: Vec<&str> = entries.iter().map(|(key, _)| *key).collect();
                names.join(" ")
            };
            let ttl = ttl_millis("set", ttl).map_err(|e| e.on(names()))?;
            let command = |key, value: &Bytes| {
                let name = self.keys.value("set", key)?;
                let mut command = redis::cmd("SET");
                command.arg(&name).arg(&value[..]);
                if ttl > 0 {
                    command.arg("PX").arg(ttl);
                }
                Ok::<_, Error>((name, command))
            };
            if let [(key, value)] = entries {
                let (name, command) = command(key, value)?;
                return self
                    .net
                    .run("set", &name, async |connection| {
                        command.exec_async(connection).await
                    })
                    .await
                    .map_err(|e| e.on(*key));
            }
            let mut commands = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                commands.push(command(key, value)?);
            }
            let set = self.net.run_each::<()>("set", &commands).await;
            let keys = entries.iter().map(|(key, _)| *key);
            all_set(keys.zip(set)).map_err(|e| e.on(names()))
        })
    }

    fn insert<'a>(
        &'a self,
        key: &'a str,
        value: &'a Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let ttl = ttl_millis("insert", Some(ttl)).map_err(|e| e.on(key))?;
            self.on_key("insert", key, async |connection, name| {
                let mut command = redis::cmd("SET");
                command
                    .arg(name)
                    .arg(&value[..])
                    .arg("NX")
                    .arg("PX")
                    .arg(ttl);
                Ok(command
                    .query_async::<Option<String>>(connection)
                    .await?
                    .is_some())
            })
            .await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.on_key("delete", key, async |connection, name| {
            redis::cmd("DEL").arg(name).query_async(connection).await
        }))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        from: Option<&'a KeyCursor>,
        count: usize,
    ) -> BoxFuture<'a, Result<KeyPage, Error>> {
        Box::pin(self.scan_keys(prefix, from, count))
    }

    fn peek<'a>(
        &'a self,
        keys: &'a [&'a str],
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<Option<Peeked>>, Error>> {
        Box::pin(self.peek_values(keys, most))
    }

    fn exists<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.on_key("exists", key, async |connection, name| {
            redis::cmd("EXISTS").arg(name).query_async(connection).await
        }))
    }

    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.try_to_store())
    }

    fn incr<'a>(&'a self, key: &'a str, by: i64) -> BoxFuture<'a, Result<i64, Error>> {
        Box::pin(self.on_key("incr", key, async move |connection, name| {
            redis::cmd("INCRBY")
                .arg(name)
                .arg(by)
                .query_async(connection)
                .await
        }))
    }

    fn cas<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a Bytes>,
        new: &'a Bytes,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<CasResult, Error>> {
        Box::pin(async move {
            let ttl = ttl_millis("cas", ttl).map_err(|e| e.on(key))?;
            let reply: Vec<Value> = self
                .on_key("cas", key, async |connection, name| {
                    let call = scripts::kv_cas()
                        .key(name)
                        .arg(i32::from(expected.is_some()))
                        .arg(expected.map(|bytes| &bytes[..]).unwrap_or_default())
                        .arg(&new[..])
                        .arg(ttl);
                    reply::array(call.run(connection).await?)
                })
                .await?;
            let mut reply = reply.into_iter();
            Ok(match reply.next() {
                Some(Value::Int(1)) => CasResult::Swapped,
                _ => CasResult::Differs(reply.next().and_then(bytes)),
            })
        })
    }

    fn delete_if<'a>(
        &'a self,
        key: &'a str,
        expected: &'a Bytes,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let reply: Vec<Value> = self
                .on_key("delete", key, async |connection, name| {
                    let call = scripts::kv_cas()
                        .key(name)
                        .arg(1)
                        .arg(&expected[..])
                        .arg("")
                        .arg("delete");
                    reply::array(call.run(connection).await?)
                })
                .await?;
            Ok(matches!(reply.first(), Some(Value::Int(1))))
        })
    }

    fn claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<ClaimResult, Error>> {
        Box::pin(async move {
            let lease = ttl_millis("claim", Some(lease)).map_err(|e| e.on(key))?;
            self.on_key("claim", key, async |connection, name| {
                // Most keys are claimed for the first time, and a script costs more than this.
                let mark = [CLAIMED, token.as_bytes()].concat();
                let mut first = redis::cmd("SET");
                first.arg(name).arg(mark).arg("NX").arg("PX").arg(lease);
                if first.query_async::<Option<()>>(connection).await?.is_some() {
                    return Ok(ClaimResult::Claimed);
                }
                let call = scripts::once_claim().key(name).arg(token).arg(lease);
                let reply = reply::array(call.run(connection).await?)?;
                let mut reply = reply.into_iter().filter_map(bytes);
                match reply.next().as_deref() {
                    Some(b"claimed") => Ok(ClaimResult::Claimed),
                    Some(b"busy") => Ok(ClaimResult::Busy),
                    Some(b"done") => Ok(ClaimResult::Done(reply.next())),
                    Some(b"begun") => Ok(ClaimResult::Begun),
                    Some(b"value") => Ok(ClaimResult::Value),
                    _ => Err(reply::unexpected("once_claim.lua")),
                }
            })
            .await
        })
    }

    fn begin_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let lease = ttl_millis("begin", Some(lease)).map_err(|e| e.on(key))?;
            let lease = lease.to_string();
            let begun = self.settle_claim("begin", key, token, Some(ttl), lease.as_bytes());
            begun.await
        })
    }

    fn extend_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.settle_claim("extend", key, token, Some(lease), b""))
    }

    fn complete_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
        result: &'a Bytes,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.settle_claim("complete", key, token, Some(ttl), result))
    }

    fn release_claim<'a>(
        &'a self,
        key: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.settle_claim("release", key, token, None, b""))
    }
}

impl RedisAdapter {
    async fn settle_claim(
        &self,
        action: &'static str,
        key: &str,
        token: &str,
        time: Option<Duration>,
        more: &[u8],
    ) -> Result<bool, Error> {
        let time = ttl_millis(action, time).map_err(|e| e.on(key))?;
        self.on_key(action, key, async |connection, name| {
            let call = scripts::once_settle()
                .key(name)
                .arg(token)
                .arg(action)
                .arg(time)
                .arg(more);
            reply::typed(call.run(connection).await?)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_writes_are_not_done_only_where_none_of_them_may_be() {
        let failed = |kind| Err(Error::new(kind, "set", "it failed"));
        let all = |writes: Vec<Result<(), Error>>| all_set(["a", "b", "c"].into_iter().zip(writes));
        assert!(all(vec![Ok(()), Ok(()), Ok(())]).is_ok());
        let (unknown, refused) = (ErrorKind::OutcomeUnknown, ErrorKind::Refused);
        let unavailable = ErrorKind::Unavailable;
        for (writes, kind) in [
            (vec![failed(refused), failed(unavailable)], refused),
            (vec![failed(unavailable), failed(unavailable)], unavailable),
            (vec![Ok(()), failed(refused)], unknown),
            (vec![failed(unavailable), Ok(())], unknown),
            (vec![failed(unavailable), failed(unknown)], unknown),
        ] {
            let error = all(writes).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
        let error = all(vec![Ok(()), failed(refused), Ok(())]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "set: the value of \"b\" failed; values of other keys may be written"
        );
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.to_string(), "set: it failed");
    }
}
