//! What each server says of itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::Value;

use crate::adapters::redis::adapter::RedisAdapter;
use crate::adapters::redis::net::{
    Primary, REMEMBERED, REPEATED_FOR, error, native_found, native_questions,
};
use crate::adapters::redis::scripts;
use crate::domain::{Error, NativeCommands, Timestamp, describe};
use crate::store::ServerInfo;

const OPERATION: &str = "ask server";

impl RedisAdapter {
    /// Asks every primary. Fails if none of them tells its facts.
    pub(super) async fn ask_servers(&self) -> Result<Vec<ServerInfo>, Error> {
        let primaries = self.net.primaries(OPERATION).await?;
        let (clustered, watched) = (self.net.is_clustered(), self.net.has_sentinels());
        // A primary that does not answer in time may have lost its slots by then.
        let slots: Vec<_> = primaries.iter().map(|one| one.slots(&self.net)).collect();
        let asked = primaries
            .iter()
            .map(|primary| ask(primary, clustered, watched));
        let answers = join_all(asked).await;
        if let [Err(failure), others @ ..] = &answers[..]
            && others.iter().all(Result::is_err)
        {
            return Err(failure.clone());
        }
        let facts =
            |((primary, slots), answer): ((&Primary, _), Result<ServerInfo, Error>)| ServerInfo {
                address: Some(primary.address().to_owned()),
                slots,
                native_chosen: self.net.native(),
                ..answer.unwrap_or_else(|failure| unknown(&failure))
            };
        let primaries = primaries.iter().zip(slots);
        Ok(primaries.zip(answers).map(facts).collect())
    }
}

/// What is known of a server that told no facts.
fn unknown(failure: &Error) -> ServerInfo {
    let why = Some(describe(failure));
    match error::is_answer(failure) {
        true => ServerInfo {
            refusal: why,
            ..ServerInfo::default()
        },
        false => ServerInfo {
            failure: why,
            ..ServerInfo::default()
        },
    }
}

async fn ask(primary: &Primary, clustered: bool, watched: bool) -> Result<ServerInfo, Error> {
    let info: String = primary
        .run(OPERATION, async |connection| {
            redis::cmd("INFO").query_async(connection).await
        })
        .await?;
    let mut facts = read(&info);
    (facts.clock_offset, facts.round_trip) = compare_clocks(primary).await?;
    let connected = connected_replicas(&info);
    facts.writes_alone = watched.then_some(connected.is_none());
    if let Some(connected) = connected {
        let wanted = setting(primary, "min-replicas-to-write").await;
        // The server reports the number of replicas only if it needs one at least.
        let wanted = wanted.and_then(|text| text.parse().ok()).unwrap_or(1_u64);
        facts.lacks_replicas = connected < wanted;
    }
    let watches = number(&info, "tracking_total_keys");
    let most = setting(primary, "tracking-table-max-keys").await;
    let most = most.and_then(|text| text.parse().ok());
    facts.watched_keys = watches.zip(most.filter(|most| *most > 0));
    facts.append_sync = setting(primary, "appendfsync").await;
    facts.native = native(primary).await;
    facts.drops_numbers = drops_numbers(primary).await;
    if clustered {
        let coverage = setting(primary, "cluster-require-full-coverage").await;
        facts.needs_all_slots = coverage.map(|answer| answer == "yes");
    }
    let loaded = primary
        .run("load scripts", async |connection| {
            scripts::load_all(connection).await
        })
        .await;
    facts.scripts = Some(loaded.map_err(|error| describe(&error)));
    Ok(facts)
}

/// A setting of the server. Not every role may look at the settings, and no role needs to.
async fn setting(primary: &Primary, name: &'static str) -> Option<String> {
    let asked: Result<Vec<String>, Error> = primary
        .run(OPERATION, async |connection| {
            let mut command = redis::cmd("CONFIG");
            command.arg("GET").arg(name);
            command.query_async(connection).await
        })
        .await;
    asked.ok().and_then(|pair| pair.into_iter().nth(1))
}

/// The native commands of the server. Not every role may ask for them.
async fn native(primary: &Primary) -> Option<NativeCommands> {
    let [info, docs] = native_questions();
    let asked = primary.run(OPERATION, async |connection| {
        let info: Value = info.query_async(connection).await?;
        let docs: Value = docs.query_async(connection).await?;
        Ok(native_found(&info, &docs))
    });
    asked.await.ok()
}

/// Whether a stream without settings of its own forgets numbers while they may be sent again.
async fn drops_numbers(primary: &Primary) -> bool {
    let limits = [
        ("stream-idmp-maxsize", u64::from(REMEMBERED)),
        ("stream-idmp-duration", REPEATED_FOR.as_secs()),
    ];
    for (name, least) in limits {
        let value = setting(primary, name).await;
        let value = value.and_then(|text| text.parse::<u64>().ok());
        if value.is_some_and(|value| value < least) {
            return true;
        }
    }
    false
}

/// How far the server's clock is before this one, in milliseconds, and how long it took to ask.
async fn compare_clocks(primary: &Primary) -> Result<(i64, Duration), Error> {
    let mut times = (Timestamp::now(), Instant::now(), Duration::ZERO);
    let (seconds, micros): (i64, i64) = primary
        .run(OPERATION, async |connection| {
            // From when there is a connection.
            times = (Timestamp::now(), Instant::now(), Duration::ZERO);
            let answer = redis::cmd("TIME").query_async(connection).await;
            times.2 = times.1.elapsed();
            answer
        })
        .await?;
    let (before, _, took) = times;
    let server = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    let half = i64::try_from(took.as_millis() / 2).unwrap_or(i64::MAX);
    Ok((server - before.as_millis().saturating_add(half), took))
}

/// How many replicas are connected and up to date, if the server needs some to take writes.
fn connected_replicas(info: &str) -> Option<u64> {
    number(info, "min_slaves_good_slaves")
}

/// A number in the answer to INFO.
fn number(info: &str, name: &str) -> Option<u64> {
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(one, _)| *one == name)?;
    value.trim().parse().ok()
}

/// Reads the lines of INFO.
fn read(info: &str) -> ServerInfo {
    let lines = info.lines().filter_map(|line| line.split_once(':'));
    let held: HashMap<&str, &str> = lines.collect();
    let text = |name: &str| held.get(name).map(|value| (*value).to_owned());
    let number = |name: &str| held.get(name).and_then(|value| value.parse::<u64>().ok());
    let name = text("server_name").unwrap_or_else(|| "redis".to_owned());
    let own_version = text(&format!("{name}_version"));
    let disk = [
        ("aof_last_write_status", "writing the append-only file"),
        (
            "aof_last_bgrewrite_status",
            "rewriting the append-only file",
        ),
        ("rdb_last_bgsave_status", "saving a snapshot"),
    ];
    let failed = |status: &str| held.get(status).is_some_and(|status| *status != "ok");
    ServerInfo {
        version: own_version
            .or_else(|| text("redis_version"))
            .unwrap_or_default(),
        name,
        is_replica: held.get("role") == Some(&"slave"),
        eviction_policy: text("maxmemory_policy"),
        evicted: number("evicted_keys").unwrap_or(0),
        memory_used: number("used_memory").unwrap_or(0),
        memory_limit: number("maxmemory").filter(|limit| *limit > 0),
        machine_memory: number("total_system_memory").filter(|bytes| *bytes > 0),
        append_only: number("aof_enabled").map(|enabled| enabled == 1),
        persistence_errors: disk
            .iter()
            .filter(|(status, _)| failed(status))
            .map(|(_, what)| (*what).to_owned())
            .collect(),
        ..ServerInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_what_a_server_says() {
        let facts = read(
            "# Server\r\nredis_version:7.0.15\r\nrole:master\r\nused_memory:1000\r\nmaxmemory:0\r\n\
             maxmemory_policy:noeviction\r\naof_enabled:1\r\naof_last_write_status:err\r\n\
             rdb_last_bgsave_status:ok\r\nevicted_keys:3\r\n",
        );
        assert_eq!((&*facts.name, &*facts.version), ("redis", "7.0.15"));
        assert_eq!((facts.memory_used, facts.memory_limit), (1000, None));
        assert_eq!(facts.eviction_policy.as_deref(), Some("noeviction"));
        assert_eq!(facts.append_only, Some(true));
        assert_eq!(facts.persistence_errors, ["writing the append-only file"]);
        assert_eq!((facts.evicted, facts.is_replica), (3, false));
    }

    #[test]
    fn another_server_is_called_by_its_name_and_its_version() {
        let facts =
            read("redis_version:7.2.4\nserver_name:valkey\nvalkey_version:8.0.1\nrole:slave\n");
        assert_eq!((&*facts.name, &*facts.version), ("valkey", "8.0.1"));
        assert!(facts.is_replica);
    }

    #[test]
    fn connected_replicas_are_known_only_where_the_server_needs_some() {
        assert_eq!(connected_replicas("role:master\r\n"), None);
        let needed = "role:master\r\nmin_slaves_good_slaves:0\r\n";
        assert_eq!(connected_replicas(needed), Some(0));
    }

    #[test]
    fn what_is_not_said_is_not_known() {
        assert_eq!(read("").append_only, None);
        assert_eq!(read("nonsense").eviction_policy, None);
    }
}
