//! Findings on the server.

use std::time::Duration;

use crate::operate::doctor::finding::{Finding, Severity, roughly};
use crate::operate::doctor::native;
use crate::operate::doctor::unseen::OF_SERVERS;
use crate::operate::doctor::version::version;
use crate::store::ServerInfo;

/// Clocks that differ by at most this count as equal.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);
/// From this share of the memory limit on, memory is scarce.
const SCARCE: f64 = 0.75;
/// From this share of the memory limit on, memory is nearly full.
const NEARLY_FULL: f64 = 0.9;

/// Judges all servers that answer. A finding that is the same for each stands once; every other one names
/// its server.
pub(super) fn judge_all(servers: &[ServerInfo]) -> Vec<Finding> {
    let each: Vec<Vec<Finding>> = servers.iter().map(judge).collect();
    let mut all: Vec<Finding> = Vec::new();
    for (facts, findings) in servers.iter().zip(&each) {
        for finding in findings {
            let mut finding = finding.clone();
            if each.iter().any(|others| !others.contains(&finding)) {
                let address = facts.address.as_deref().unwrap_or(&facts.name);
                finding.what = format!("{address}: {}", finding.what);
            }
            if !all.contains(&finding) {
                all.push(finding);
            }
        }
    }
    all
}

fn judge(facts: &ServerInfo) -> Vec<Finding> {
    if let Some(refusal) = &facts.refusal {
        let what = format!("answers and refuses the checks of the server: {refusal}");
        let finding = Finding::new(Severity::Problem, "server", what)
            .because(format!("not checked: {OF_SERVERS}"))
            .advise("fix the error, then run the doctor again");
        return vec![finding];
    }
    let mut findings = version(facts);
    if facts.is_replica {
        let finding = Finding::new(
            Severity::Problem,
            "server",
            "is a replica and takes no writes",
        )
        .because("the server refuses to publish and to settle")
        .advise("connect to the primary");
        findings.push(finding);
    }
    if facts.lacks_replicas {
        let what = "refuses writes: fewer replicas than min-replicas-to-write are connected";
        let finding = Finding::new(Severity::Problem, "server", what)
            .because("the server refuses to publish and to settle")
            .advise("connect the replicas, or lower min-replicas-to-write");
        findings.push(finding);
    }
    findings.push(eviction(facts));
    findings.extend(persistence(facts));
    findings.push(memory(facts));
    findings.push(clock(facts));
    findings.extend(scripts(facts));
    findings.extend(coverage(facts));
    findings.extend(alone(facts));
    findings.extend(notices(facts));
    findings.extend(native::judge(facts));
    findings
}

/// Whether the server can watch all keys that processes wait for.
fn notices(facts: &ServerInfo) -> Option<Finding> {
    let (watched, most) = facts.watched_keys?;
    if (watched as f64) < NEARLY_FULL * most as f64 {
        return None;
    }
    let what = format!("watches {watched} keys of at most {most}, tracking-table-max-keys");
    Some(
        Finding::new(Severity::Warning, "notices", what)
            .because("above the limit the server forgets keys, and the processes that read them ask again and again")
            .advise("double tracking-table-max-keys"),
    )
}

/// What a failover behind sentinels loses.
fn alone(facts: &ServerInfo) -> Option<Finding> {
    let check = "sentinels";
    if !facts.writes_alone? {
        let what = "a primary that has lost its replicas refuses writes";
        return Some(Finding::ok(check, what));
    }
    let what = "min-replicas-to-write is 0, the default";
    Some(
        Finding::new(Severity::Warning, check, what)
            .because("a primary that is cut off takes writes of other programs until it hears of the failover, and all of them are lost")
            .advise("set min-replicas-to-write to 1 and min-replicas-max-lag to 2 on every server"),
    )
}

/// What a failover of one primary of a cluster stops.
fn coverage(facts: &ServerInfo) -> Option<Finding> {
    let check = "cluster";
    if !facts.needs_all_slots? {
        let what = "a failover of one primary stops only the topics of that primary";
        return Some(Finding::ok(check, what));
    }
    let what = "cluster-require-full-coverage is yes, the default";
    Some(
        Finding::new(Severity::Warning, check, what)
            .because("a failover of one primary stops all topics of the cluster until it is over")
            .advise("set cluster-require-full-coverage to no on every node"),
    )
}

fn eviction(facts: &ServerInfo) -> Finding {
    let check = "eviction";
    let Some(policy) = &facts.eviction_policy else {
        return Finding::new(Severity::Unknown, check, "the server does not report it");
    };
    let what = match facts.evicted {
        0 => format!("maxmemory-policy {policy}"),
        count => {
            format!("maxmemory-policy {policy}; {count} keys evicted since the server started")
        }
    };
    if policy == "noeviction" {
        return Finding::ok(check, what);
    }
    let why = if policy.starts_with("volatile-") {
        "with full memory, the server drops values with a time to live, and so claims of `once`"
    } else {
        "with full memory, the server drops whole topics with all their messages"
    };
    // A server without a memory limit evicts nothing yet.
    let level = if policy.starts_with("volatile-") || facts.memory_limit.is_none() {
        Severity::Warning
    } else {
        Severity::Problem
    };
    Finding::new(level, check, what)
        .because(why)
        .advise("set maxmemory-policy noeviction")
}

fn persistence(facts: &ServerInfo) -> Vec<Finding> {
    let check = "persistence";
    let errors = facts.persistence_errors.iter().map(|error| {
        Finding::new(Severity::Problem, check, format!("failed: {error}"))
            .because("a restart may lose the messages published since")
            .advise("check the server's log and its disk")
    });
    let kept = match (facts.append_only, facts.append_sync.as_deref()) {
        (None, _) => Finding::new(Severity::Unknown, check, "the server does not report it"),
        (Some(false), _) => Finding::new(Severity::Problem, check, "appendonly no")
            .because("a restart loses every message since the last snapshot, or all messages")
            .advise("set appendonly yes"),
        (Some(true), Some("always")) => Finding::ok(check, "appendonly yes, appendfsync always"),
        (Some(true), Some("everysec")) => Finding::ok(
            check,
            "appendonly yes, appendfsync everysec: a power cut can lose the last second",
        ),
        (Some(true), Some(other)) => Finding::new(
            Severity::Warning,
            check,
            format!("appendonly yes, appendfsync {other}"),
        )
        .because("a power cut can lose all data that the operating system has not written yet")
        .advise("set appendfsync everysec or always"),
        (Some(true), None) => Finding::new(
            Severity::Unknown,
            check,
            "appendonly yes, appendfsync unknown",
        )
        .because("this user may not read the server's settings")
        .advise("make sure that it is everysec or always"),
    };
    std::iter::once(kept).chain(errors).collect()
}

fn memory(facts: &ServerInfo) -> Finding {
    let check = "memory";
    let used = mebibytes(facts.memory_used);
    let Some(limit) = facts.memory_limit else {
        let of = facts.machine_memory.map(mebibytes);
        let of = of.map_or_else(String::new, |of| format!(" on a machine of {of}"));
        return Finding::new(Severity::Warning, check, format!("{used} used{of}, no limit"))
            .because("the system kills a server that takes all memory; a server with a limit only refuses to publish")
            .advise("set maxmemory");
    };
    let what = format!("{used} used of {}", mebibytes(limit));
    let share = facts.memory_used as f64 / limit as f64;
    if share < SCARCE {
        return Finding::ok(check, what);
    }
    let level = if share < NEARLY_FULL {
        Severity::Warning
    } else {
        Severity::Problem
    };
    Finding::new(level, check, what)
        .because("with full memory, the server refuses to publish")
        .advise("find the groups that lag, or raise maxmemory")
}

fn mebibytes(bytes: u64) -> String {
    const MEBIBYTE: u64 = 1024 * 1024;
    match bytes / MEBIBYTE {
        0 => format!("{} KiB", bytes / 1024),
        count => format!("{count} MiB"),
    }
}

fn clock(facts: &ServerInfo) -> Finding {
    let check = "clock";
    let off = Duration::from_millis(facts.clock_offset.unsigned_abs());
    if off <= CLOCK_TOLERANCE + facts.round_trip / 2 {
        return Finding::ok(check, "agrees with this machine's");
    }
    let side = if facts.clock_offset > 0 {
        "ahead of"
    } else {
        "behind"
    };
    Finding::new(Severity::Warning, check, format!("{} {side} this machine's", roughly(off)))
        .because("services set the times of messages and failures, the server those of entries and retries: a search by time misses some")
        .advise("synchronise both clocks")
}

fn scripts(facts: &ServerInfo) -> Option<Finding> {
    let check = "scripts";
    Some(match facts.scripts.as_ref()? {
        Ok(count) => Finding::ok(check, format!("all {count} loaded")),
        Err(error) => Finding::new(Severity::Problem, check, error.clone())
            .because("Redstart settles, retries and reclaims with scripts")
            .advise("allow this user SCRIPT LOAD and EVALSHA"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> ServerInfo {
        ServerInfo {
            name: "redis".to_owned(),
            version: "8.2.2".to_owned(),
            eviction_policy: Some("noeviction".to_owned()),
            memory_used: 1 << 20,
            memory_limit: Some(1 << 30),
            append_only: Some(true),
            append_sync: Some("everysec".to_owned()),
            scripts: Some(Ok(17)),
            ..ServerInfo::default()
        }
    }

    /// The severity of each finding of a check, after a change to a sound server.
    fn levels(check: &str, change: impl FnOnce(&mut ServerInfo)) -> Vec<Severity> {
        let mut facts = sound();
        change(&mut facts);
        let findings = judge(&facts).into_iter();
        let of_check = findings.filter(|finding| finding.check == check);
        of_check
            .inspect(Finding::assert_helpful)
            .map(|finding| finding.severity)
            .collect()
    }

    #[test]
    fn a_sound_server_is_ok_in_everything() {
        let findings = judge(&sound());
        assert!(
            findings.iter().all(|one| one.severity == Severity::Ok),
            "{findings:?}"
        );
        assert_eq!(findings.len(), 6);
    }

    #[test]
    fn a_finding_names_its_server_where_servers_differ() {
        let at = |port: u16| ServerInfo {
            address: Some(format!("h:{port}")),
            ..sound()
        };
        let mut servers = vec![at(1), at(2)];
        assert_eq!(judge_all(&servers).len(), 6);
        servers[1].eviction_policy = Some("allkeys-lru".to_owned());
        let findings = judge_all(&servers);
        assert_eq!(findings.len(), 7);
        let of = |check| findings.iter().filter(move |one| one.check == check);
        let what: Vec<&str> = of("eviction").map(|one| &*one.what).collect();
        assert!(
            what[0].starts_with("h:1: ") && what[1].starts_with("h:2: "),
            "{what:?}"
        );
        assert!(of("clock").all(|one| !one.what.starts_with("h:")));
    }

    #[test]
    fn a_server_that_refuses_is_not_judged_by_facts_that_it_did_not_tell() {
        let refusing = ServerInfo {
            address: Some("h:2".to_owned()),
            refusal: Some("lacks the right to run INFO".to_owned()),
            ..ServerInfo::default()
        };
        let findings = judge_all(&[sound(), refusing]);
        let mut of_it = findings.iter().filter(|one| one.what.starts_with("h:2: "));
        let refused = of_it.next().unwrap();
        refused.assert_helpful();
        assert_eq!(
            (refused.severity, &*refused.what),
            (
                Severity::Problem,
                "h:2: answers and refuses the checks of the server: lacks the right to run INFO"
            )
        );
        assert_eq!(of_it.next(), None);
    }

    #[test]
    fn a_cluster_that_stops_as_a_whole_is_a_warning() {
        let of = |answer| levels("cluster", |facts| facts.needs_all_slots = answer);
        assert_eq!(of(None), []);
        assert_eq!(of(Some(false)), [Severity::Ok]);
        assert_eq!(of(Some(true)), [Severity::Warning]);
    }

    #[test]
    fn a_primary_behind_sentinels_that_writes_alone_is_a_warning() {
        let of = |answer| levels("sentinels", |facts| facts.writes_alone = answer);
        assert_eq!(of(None), []);
        assert_eq!(of(Some(false)), [Severity::Ok]);
        assert_eq!(of(Some(true)), [Severity::Warning]);
    }

    #[test]
    fn a_server_that_can_hardly_watch_more_keys_is_a_warning() {
        let of = |keys| levels("notices", |facts| facts.watched_keys = keys);
        assert_eq!(of(None), []);
        assert_eq!(of(Some((89, 100))), []);
        assert_eq!(of(Some((90, 100))), [Severity::Warning]);
    }

    #[test]
    fn eviction_is_worst_where_the_server_can_drop_topics() {
        let of = |policy: &str, limit: Option<u64>| {
            levels("eviction", |facts| {
                facts.eviction_policy = Some(policy.to_owned());
                facts.memory_limit = limit;
            })
        };
        assert_eq!(of("allkeys-lru", Some(1)), [Severity::Problem]);
        assert_eq!(of("allkeys-lru", None), [Severity::Warning]);
        assert_eq!(of("volatile-ttl", Some(1)), [Severity::Warning]);
        assert_eq!(
            levels("eviction", |facts| facts.eviction_policy = None),
            [Severity::Unknown]
        );
    }

    #[test]
    fn persistence_follows_the_settings_that_are_known() {
        let of = |kept: Option<bool>, synced: Option<&str>| {
            levels("persistence", |facts| {
                facts.append_only = kept;
                facts.append_sync = synced.map(str::to_owned);
            })
        };
        assert_eq!(of(Some(true), Some("always")), [Severity::Ok]);
        assert_eq!(of(Some(true), Some("no")), [Severity::Warning]);
        assert_eq!(of(Some(true), None), [Severity::Unknown]);
        assert_eq!(of(Some(false), None), [Severity::Problem]);
        assert_eq!(of(None, None), [Severity::Unknown]);
        let failing = |facts: &mut ServerInfo| facts.persistence_errors.push("saving".to_owned());
        assert_eq!(
            levels("persistence", failing),
            [Severity::Ok, Severity::Problem]
        );
    }

    #[test]
    fn memory_is_ok_scarce_or_nearly_full() {
        let of = |used: u64, limit: Option<u64>| {
            levels("memory", |facts| {
                (facts.memory_used, facts.memory_limit) = (used, limit)
            })
        };
        assert_eq!(of(70, Some(100)), [Severity::Ok]);
        assert_eq!(of(80, Some(100)), [Severity::Warning]);
        assert_eq!(of(95, Some(100)), [Severity::Problem]);
        assert_eq!(of(1, None), [Severity::Warning]);
    }

    #[test]
    fn a_slow_answer_excuses_a_clock_difference() {
        let of = |ahead: i64, took: u64| {
            levels("clock", |facts| {
                (facts.clock_offset, facts.round_trip) = (ahead, Duration::from_secs(took));
            })
        };
        assert_eq!(of(-1_900, 0), [Severity::Ok]);
        assert_eq!(of(3_600_000, 0), [Severity::Warning]);
        assert_eq!(of(-3_600_000, 0), [Severity::Warning]);
        assert_eq!(of(5_000, 10), [Severity::Ok]);
    }

    #[test]
    fn a_server_that_cannot_be_written_to_is_a_problem() {
        assert_eq!(
            levels("server", |facts| facts.is_replica = true),
            [Severity::Problem]
        );
        assert_eq!(
            levels("server", |facts| facts.lacks_replicas = true),
            [Severity::Problem]
        );
        let refused = |facts: &mut ServerInfo| facts.scripts = Some(Err("no".to_owned()));
        assert_eq!(levels("scripts", refused), [Severity::Problem]);
    }
}
