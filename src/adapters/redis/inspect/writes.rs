//! Whether the server takes writes now, asked without writing.
//!
//! `XADD … NOMKSTREAM` to a stream and `SET … XX` of a value that never exist do nothing. The server
//! still refuses them for each reason for which it refuses a publish or a value: a full memory, a
//! failing disk, missing replicas, its being a replica, a missing right, a slot of another node.

use futures_util::future::join_all;
use redis::RedisError;

use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::net::{Replies, error};
use crate::adapters::redis::resp::{Head, Walk, pack, reply};
use crate::domain::{Error, ErrorKind, Topic};
use crate::store::Partition;

const OPERATION: &str = "write check";
/// The key whose read shows that values can be read.
const VALUE: &str = "redstart:health";
/// How many slots of a cluster are asked for. With this many, a server that lacks a tenth of the
/// slots goes unnoticed once in 800 times.
const SLOTS: usize = 64;
/// How many logs are tried to find one on each primary.
const LOGS: usize = 4096;

impl RedisAdapter {
    /// Asks on the publisher's link.
    pub(super) async fn try_to_publish(&self) -> Result<(), Error> {
        let key = self.keys.health();
        if !self.net.is_clustered() {
            let server = self.try_key(&key).await?;
            if server.is_clustered {
                self.ask_for_slots(&key).await?;
            }
            return Ok(());
        }
        let (own, others) = tokio::join!(self.try_key(&key), self.try_each_primary(&key));
        first_of([others, own.map(drop)])
    }

    /// Asks the server of a key, and returns what it says of itself.
    async fn try_key(&self, key: &str) -> Result<Facts, Error> {
        let mut packed = Vec::new();
        // Every user may run HELLO. Without arguments it changes nothing and tells the role and
        // the mode.
        pack(&mut packed, &[b"HELLO"]);
        let write: [&[u8]; 6] = [
            b"XADD",
            key.as_bytes(),
            b"NOMKSTREAM",
            b"*",
            b"health",
            b"1",
        ];
        pack(&mut packed, &write);
        let mut replies = self.ask(key, &packed, 2).await?.into_iter();
        let server = replies.next().and_then(Result::ok);
        let server = server.map(facts).unwrap_or_default();
        let written = replies.next();
        let written = written.unwrap_or_else(|| Err(reply::unexpected("no reply")));
        written.map_err(|cause| self.refused(cause))?;
        if server.is_replica {
            return Err(Error::new(ErrorKind::Refused, OPERATION, REPLICA));
        }
        Ok(server)
    }

    /// Sends the commands, and once more when the connection failed: the server or a proxy may have
    /// closed it at this moment, and only a failing reconnect is a fault.
    async fn ask(&self, key: &str, packed: &[u8], commands: usize) -> Result<Replies, Error> {
        match self.net.try_now(OPERATION, key, packed, commands).await {
            Err(failure) if failure.is_outcome_unknown() => {
                self.net.try_now(OPERATION, key, packed, commands).await
            }
            answered => answered,
        }
    }

    /// Asks each primary of a cluster that does not hold this key, by the log of a topic that never
    /// exists.
    async fn try_each_primary(&self, asked: &str) -> Result<(), Error> {
        let mut primaries = self.net.primaries(OPERATION).await?;
        let unserved = self.net.unserved_slots();
        if unserved > 0 {
            let rule = format!("no node of the cluster serves {unserved} of the 16384 slots");
            return Err(Error::new(ErrorKind::Unavailable, OPERATION, rule));
        }
        primaries.retain(|one| !one.holds(&self.net, asked));
        let mut keys = Vec::new();
        for n in 0..LOGS {
            if primaries.is_empty() {
                break;
            }
            let log = self.log_of_health(n)?;
            if let Some(at) = primaries.iter().position(|one| one.holds(&self.net, &log)) {
                primaries.swap_remove(at);
                keys.push(log);
            }
        }
        let asking = keys.iter().map(|log| async move {
            let mut packed = Vec::new();
            let write: [&[u8]; 6] = [
                b"XADD",
                log.as_bytes(),
                b"NOMKSTREAM",
                b"*",
                b"health",
                b"1",
            ];
            pack(&mut packed, &write);
            self.ask(log, &packed, 1).await
        });
        let judge = |answers: Replies| {
            answers.into_iter().try_for_each(|answer| match answer {
                // The user may write to some topics only.
                Err(cause) if error::code(&cause).as_deref() == Some("NOPERM") => Ok(()),
                answer => answer.map(drop).map_err(|cause| self.refused(cause)),
            })
        };
        let answers = join_all(asking).await.into_iter();
        first_of(answers.map(|answers| answers.and_then(judge)))
    }

    /// The log of a topic that never exists.
    fn log_of_health(&self, n: usize) -> Result<String, Error> {
        let topic = Topic::new(format!("redstart.health.{n}"))?;
        Ok(self.keys.log(&Partition::of(&topic)))
    }

    /// Asks a node of a cluster whether it serves all slots, as a URL of one server needs.
    async fn ask_for_slots(&self, key: &str) -> Result<(), Error> {
        let mut packed = Vec::new();
        for n in 0..SLOTS {
            let log = self.log_of_health(n)?;
            pack(&mut packed, &[b"EXISTS", log.as_bytes()]);
        }
        for answer in self.ask(key, &packed, SLOTS).await? {
            match answer {
                Err(cause) if is_elsewhere(&cause) => return Err(self.refused(cause)),
                // A user with rights to some topics only is refused here, and may still publish.
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks on a pooled connection: reads a value that never exists, and replaces it if it exists. A
    /// user with rights to values only may do both.
    pub(in crate::adapters::redis) async fn try_to_store(&self) -> Result<(), Error> {
        let value = self.keys.value(OPERATION, VALUE)?;
        let ask = async || {
            let asking = self.net.run(OPERATION, &value, async |connection| {
                let mut read = redis::cmd("EXISTS");
                let _: bool = read.arg(&value).query_async(connection).await?;
                let mut write = redis::cmd("SET");
                let write = write.arg(&value).arg("").arg("XX");
                write.query_async::<Option<String>>(connection).await
            });
            asking.await
        };
        let asked = match ask().await {
            Err(failure) if failure.is_outcome_unknown() => ask().await,
            asked => asked,
        };
        asked
            .map(drop)
            .map_err(|refusal| in_plain_words(refusal, self.net.is_clustered()))
    }

    fn refused(&self, cause: RedisError) -> Error {
        in_plain_words(error::sent(OPERATION, cause), self.net.is_clustered())
    }
}

/// The first refusal of several servers, or else the first failure to ask one: a server that does not
/// answer hides none that refuses.
fn first_of(answers: impl IntoIterator<Item = Result<(), Error>>) -> Result<(), Error> {
    let failures = answers.into_iter().filter_map(Result::err);
    let first = failures.min_by_key(|failure| match std::error::Error::source(failure) {
        Some(source) => {
            let cause = source.downcast_ref::<RedisError>();
            cause.and_then(error::code).is_none()
        }
        None => false,
    });
    first.map_or(Ok(()), Err)
}

/// What HELLO tells.
#[derive(Debug, Default)]
struct Facts {
    is_replica: bool,
    is_clustered: bool,
}

/// Reads HELLO's list of names and values; nothing where a server answers in another form.
fn facts(reply: bytes::Bytes) -> Facts {
    let mut walk = Walk::new(reply);
    let (mut facts, mut name) = (Facts::default(), bytes::Bytes::new());
    // Values can be lists, whose elements follow them: only text counts.
    while let Ok(head) = walk.next() {
        let Head::Bulk(text) = head else {
            name.clear();
            continue;
        };
        match (&name[..], &text[..]) {
            (b"role", b"replica" | b"slave") => facts.is_replica = true,
            (b"mode", b"cluster") => facts.is_clustered = true,
            _ => {}
        }
        name = text;
    }
    facts
}

const REPLICA: &str = "the server is a replica and takes no writes; connect to the primary";
const UNSERVED: &str = "no node of the cluster serves the slot of the key";
/// What a server says of a slot that no node serves.
const SLOT_UNSERVED: &str = "slot not served";

/// The reason in plain words, for the codes by which a server refuses every write.
fn reason(cause: &RedisError, clustered: bool) -> Option<&'static str> {
    Some(match error::code(cause)?.as_str() {
        "OOM" => "the server's memory is full (maxmemory), so it refuses writes",
        "READONLY" => REPLICA,
        "NOREPLICAS" => {
            "the server refuses writes: it has fewer replicas than min-replicas-to-write"
        }
        "MISCONF" => "the server cannot save to its disk, so it refuses writes",
        "NOPERM" => "this user may not write",
        "CLUSTERDOWN" if clustered && cause.to_string().contains(SLOT_UNSERVED) => UNSERVED,
        "CLUSTERDOWN" if clustered => {
            "the cluster serves no slot while one has no primary: cluster-require-full-coverage is \
             yes, or most primaries do not answer"
        }
        // The URL is a cluster's already.
        "MOVED" | "ASK" | "CROSSSLOT" if clustered => return None,
        "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" => {
            "the server is a node of a Redis Cluster and does not serve all keys; a cluster's URL \
             begins with redis+cluster://"
        }
        _ => return None,
    })
}

fn is_elsewhere(cause: &RedisError) -> bool {
    let code = error::code(cause);
    matches!(code.as_deref(), Some("MOVED" | "ASK" | "CLUSTERDOWN"))
}

/// Puts the reason in front of the server's own words. `clustered` says that the URL names a cluster.
fn in_plain_words(refusal: Error, clustered: bool) -> Error {
    let source = std::error::Error::source(&refusal);
    let Some(cause) = source.and_then(|cause| cause.downcast_ref::<RedisError>()) else {
        return refusal;
    };
    match reason(cause, clustered) {
        Some(reason) => Error::new(refusal.kind(), OPERATION, reason).because(cause.clone()),
        None => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(cause: RedisError) -> Error {
        in_plain_words(error::sent(OPERATION, cause), false)
    }

    fn reply(text: &str) -> RedisError {
        let reply = redis::parse_redis_value(format!("-{text}\r\n").as_bytes());
        match reply {
            Ok(redis::Value::ServerError(error)) => error.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_refusal_of_writes_has_a_reason_in_plain_words() {
        for (text, expected) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                "memory is full",
            ),
            (
                "READONLY You can't write against a read only replica.",
                "is a replica",
            ),
            (
                "NOREPLICAS Not enough good replicas to write.",
                "min-replicas-to-write",
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots",
                "cannot save",
            ),
            (
                "NOPERM User ann has no permissions to run the 'xadd' command",
                "may not write",
            ),
            ("MOVED 866 127.0.0.1:7001", "Redis Cluster"),
            ("CLUSTERDOWN Hash slot not served", "Redis Cluster"),
        ] {
            let error = refused(reply(text));
            assert!(error.to_string().contains(expected), "{error}");
            assert!(std::error::Error::source(&error).is_some(), "{text}");
        }
    }

    #[test]
    fn a_cluster_that_is_down_says_why_to_the_url_of_a_cluster() {
        let told = |text| {
            let error = in_plain_words(error::sent(OPERATION, reply(text)), true);
            error.to_string()
        };
        let down = told("CLUSTERDOWN The cluster is down");
        assert!(
            down.contains("cluster-require-full-coverage is yes"),
            "{down}"
        );
        let unserved = told("CLUSTERDOWN Hash slot not served");
        assert!(
            unserved.contains("no node of the cluster serves"),
            "{unserved}"
        );
        for told in [down, unserved, told("MOVED 866 127.0.0.1:7001")] {
            assert!(!told.contains("is a node of a Redis Cluster and"), "{told}");
        }
    }

    #[test]
    fn a_server_that_does_not_answer_hides_none_that_refuses() {
        let cut = || {
            let cause = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            Err(error::sent(OPERATION, cause.into()))
        };
        let refusal = || Err(refused(reply("MISCONF unable to persist")));
        let told = |answers: Vec<Result<(), Error>>| first_of(answers).map_err(|e| e.to_string());
        assert_eq!(told(vec![Ok(()), Ok(())]), Ok(()));
        for answers in [vec![cut(), refusal()], vec![refusal(), Ok(()), cut()]] {
            let told = told(answers).unwrap_err();
            assert!(told.contains("cannot save"), "{told}");
        }
        assert!(told(vec![Ok(()), cut()]).is_err());
    }

    #[test]
    fn hello_tells_role_and_mode() {
        let hello = |mode: &str, role: &str| {
            let list = format!(
                "*6\r\n$4\r\nmode\r\n${}\r\n{mode}\r\n$4\r\nrole\r\n${}\r\n{role}\r\n$7\r\nmodules\r\n*0\r\n",
                mode.len(),
                role.len()
            );
            facts(list.into_bytes().into())
        };
        let primary = hello("standalone", "master");
        assert!(!primary.is_replica && !primary.is_clustered);
        assert!(hello("standalone", "replica").is_replica);
        assert!(hello("cluster", "master").is_clustered);
    }
}
