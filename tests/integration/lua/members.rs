//! The scripts of the members of an owned group.

use redis::{Connection, Script, Value};

use super::{META, call, run};
use crate::support::Server;

const MEMBERS: &str = "{t}:members";
const OWNERS: &str = "{t}:owners";
const FAR: u64 = 99_999_999_999_999;

/// Attends or leaves, and returns the members.
fn own(raw: &mut Connection, args: &[&str]) -> Vec<String> {
    let script = script!("own.lua" on "lib/types.lua" and "lib/members.lua");
    let keys = [MEMBERS, OWNERS, "{t}:tokens", META];
    let args = [&["g"], args].concat();
    let (mut members, _): (Vec<String>, Vec<Value>) = call(raw, &script, &keys, &args);
    members.sort();
    members
}

/// How long a member's lease still lasts at most, in milliseconds.
fn left(raw: &mut Connection, name: &str) -> u64 {
    let end: u64 = run(raw, &format!("ZSCORE {MEMBERS} {name}"));
    let (seconds, micros): (u64, u64) = run(raw, "TIME");
    end.saturating_sub(seconds * 1000 + micros / 1000)
}

/// The clock of the server was set back: the end of a dead member's lease is far ahead.
#[test]
fn a_lease_is_no_longer_than_its_member_asked_for() {
    let server = Server::start();
    let raw = &mut server.raw();
    let _: u64 = run(raw, &format!("HSET {META} owned:g 1"));
    own(raw, &["dead", "attend", "60000", "claim", "1", "0"]);
    own(raw, &["dead", "attend", "500"]);
    let _: u64 = run(raw, &format!("ZADD {MEMBERS} {FAR} dead"));
    let heir = ["heir", "attend", "60000", "claim", "1", "0"];
    assert_eq!(own(raw, &heir), ["dead", "heir"]);
    assert!(left(raw, "dead") <= 500 && left(raw, "heir") > 500);
    while own(raw, &heir) != ["heir"] {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let owner: String = run(raw, &format!("HGET {OWNERS} 1"));
    assert_eq!(owner, "heir");
    let forgotten: Option<String> = run(raw, &format!("HGET {OWNERS} lease:dead"));
    assert_eq!(forgotten, None);
    own(raw, &["heir", "leave", "0"]);
    let left: Vec<String> = run(raw, &format!("HKEYS {OWNERS}"));
    assert_eq!(left, ["changes"]);
}

/// A renewal of the same lease rings for nobody.
#[test]
fn a_renewal_changes_no_owner() {
    let server = Server::start();
    let raw = &mut server.raw();
    let _: u64 = run(raw, &format!("HSET {META} owned:g 1"));
    let digest = |raw: &mut Connection| -> Vec<String> { run(raw, &format!("HGETALL {OWNERS}")) };
    own(raw, &["one", "attend", "60000", "claim", "1", "0"]);
    let joined = digest(raw);
    let _: String = run(raw, "CONFIG RESETSTAT");
    own(raw, &["one", "attend", "60000"]);
    assert_eq!(digest(raw), joined);
    let stats: String = run(raw, "INFO commandstats");
    for write in ["hset", "hdel", "hincrby"] {
        assert!(!stats.contains(&format!("cmdstat_{write}:")), "{stats}");
    }
}
