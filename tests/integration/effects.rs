//! What can go wrong while effects are written: all of a commit is left, or nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redstart::extract::Payload;
use redstart::store::{
    DeliveryId, Effect, EffectCommit, EffectFate, Member, NewEntry, Opening, Partition, Refusal,
    StartFrom, Store,
};
use redstart::topics::{ConsumerName, TopicSettings};
use redstart::{Effects, Error, ErrorKind};

use crate::support::{
    self, PATIENCE, Server, builder, container, drained, finish, group, topic, until,
};

const LIST: &str = "shop:list";

fn bills() -> Partition {
    Partition::of(&topic("bills"))
}

fn publish(at: &Partition) -> Effect {
    Effect::Publish {
        at: at.clone(),
        entry: NewEntry {
            id: uuid::Uuid::now_v7(),
            name: "json",
            value: Bytes::from_static(b"{}"),
        },
        window: None,
    }
}

fn identified(at: &Partition) -> Effect {
    match publish(at) {
        Effect::Publish { at, entry, .. } => Effect::Publish {
            at,
            entry,
            window: Some(Duration::from_secs(600)),
        },
        other => other,
    }
}

fn set(key: &str, value: impl Into<Bytes>) -> Effect {
    Effect::Set {
        key: key.to_owned(),
        value: value.into(),
        ttl: None,
    }
}

fn increment(key: &str) -> Effect {
    Effect::Increment {
        key: key.to_owned(),
        by: 1,
        within: None,
    }
}

fn delete(key: &str) -> Effect {
    let key = key.to_owned();
    Effect::Delete { key }
}

/// Effects of every kind that writes, which end with a removal.
fn of_every_kind() -> Vec<Effect> {
    vec![
        publish(&bills()),
        identified(&bills()),
        set("name", "ann"),
        increment("sum"),
        delete("gone"),
    ]
}

/// A server, and a consumer that holds messages.
struct Scene {
    server: Server,
    store: Arc<dyn Store>,
    member: Member,
    fetched: Vec<DeliveryId>,
}

impl Scene {
    async fn new(messages: usize) -> Self {
        Self::on(Server::start(), messages).await
    }

    async fn on(server: Server, messages: usize) -> Self {
        let store = container(&server).await.store();
        let consumer = ConsumerName::new("one").unwrap();
        let member = Member::of(&topic("orders"), &group("billing"), consumer);
        let (topics, settings) = (store.topics(), TopicSettings::default());
        topics.ensure_topic(member.topic(), settings).await.unwrap();
        let start = StartFrom::Beginning;
        topics.create_group(&member.at, start).await.unwrap();
        let entries: Vec<NewEntry> = (0..messages)
            .map(|_| match publish(&member.at.partition) {
                Effect::Publish { entry, .. } => entry,
                _ => unreachable!("it publishes"),
            })
            .collect();
        let log = store.log();
        log.append(&member.at.partition, &entries).await.unwrap();
        let (mut reader, _) = store.open(&Opening::of(&member)).await.unwrap();
        let mut fetched = Vec::new();
        while fetched.len() < messages {
            let some = reader.fetch(messages, Duration::from_secs(1)).await;
            fetched.extend(some.unwrap().iter().map(|one| one.receipt));
        }
        let scene = Self {
            server,
            store,
            member,
            fetched,
        };
        scene.run(&["SET", "shop:gone", "x"]);
        scene
    }

    fn run(&self, words: &[&str]) {
        let _: redis::Value = self.server.command(words);
    }

    fn commit_of(&self, at: usize, effects: Vec<Effect>) -> EffectCommit {
        EffectCommit {
            delivery: self.fetched[at],
            acknowledges: true,
            only_copy: false,
            effects,
        }
    }

    async fn commit(
        &self,
        number: u64,
        commits: &[EffectCommit],
    ) -> Result<Vec<EffectFate>, Error> {
        let effects = self.store.effects();
        effects.commit(&self.member, number, commits).await
    }

    /// Everything but the scripts, and the number of unsettled messages.
    fn state(&self) -> (Vec<(String, Vec<u8>)>, usize) {
        let mut keys: Vec<String> = self.server.command(&["KEYS", "*"]);
        keys.sort();
        let dumps = keys.iter().map(|key| {
            let dump = self.server.command(&["DUMP", key]);
            (key.clone(), dump)
        });
        let dumps = dumps.collect();
        (dumps, self.pending())
    }

    fn pending(&self) -> usize {
        let log = "{shop:orders}:log";
        let rows: Vec<redis::Value> = self
            .server
            .command(&["XPENDING", log, "billing", "-", "+", "1000"]);
        rows.len()
    }

    /// What the effects of every kind change.
    fn facts(&self) -> (Vec<String>, i64, usize) {
        let mut keys: Vec<String> = self.server.command(&["KEYS", "*"]);
        keys.sort();
        let length = self.server.command(&["XLEN", "{shop:bills}:log"]);
        (keys, length, self.pending())
    }

    /// The error of a commit that left nothing.
    async fn leaves_nothing(&self, number: u64, commit: EffectCommit) -> Error {
        let before = self.state();
        let error = self.commit(number, &[commit]).await.unwrap_err();
        assert!(self.state() == before, "{error} left something");
        error
    }
}

fn done(fates: &[EffectFate]) -> bool {
    fates.iter().all(|fate| matches!(fate, EffectFate::Done(_)))
}

#[tokio::test]
async fn a_key_of_another_type_leaves_nothing() {
    let scene = Scene::new(4).await;
    for (number, (key, bad)) in (1..).zip([
        ("{shop:other}:log", publish(&Partition::of(&topic("other")))),
        (
            "{shop:other}:ids",
            identified(&Partition::of(&topic("other"))),
        ),
        (LIST, increment("list")),
    ]) {
        scene.run(&["LPUSH", key, "x"]);
        let mut effects = of_every_kind();
        effects.push(bad);
        let (before, pending) = scene.state();
        let commits = [scene.commit_of(0, effects)];
        let fates = scene.commit(number, &commits).await.unwrap();
        assert_eq!(fates, [EffectFate::Refused(5, Refusal::WrongType)], "{key}");
        let (mut after, still) = scene.state();
        after.retain(|(key, _)| !key.contains(":session:"));
        let before: Vec<_> = before
            .into_iter()
            .filter(|(key, _)| !key.contains(":session:"))
            .collect();
        assert!(before == after && pending == still, "{key}");
        scene.run(&["DEL", key]);
    }
    // These replace or remove a key of any type.
    scene.run(&["LPUSH", LIST, "x"]);
    let commits = [scene.commit_of(0, vec![set("list", "now")])];
    assert!(done(&scene.commit(9, &commits).await.unwrap()));
}

#[tokio::test]
async fn a_stream_at_its_last_id_takes_the_other_entries_back() {
    let scene = Scene::new(1).await;
    let (full, last) = (
        "{shop:full}:log",
        "18446744073709551615-18446744073709551615",
    );
    scene.run(&["XADD", full, last, "json", "{}"]);
    let effects = vec![
        publish(&bills()),
        identified(&bills()),
        publish(&Partition::of(&topic("full"))),
        increment("sum"),
    ];
    let commits = [scene.commit_of(0, effects)];
    let fates = scene.commit(1, &commits).await.unwrap();
    assert_eq!(fates, [EffectFate::Refused(2, Refusal::StreamFull)]);
    let length = |key| scene.server.command::<usize>(&["XLEN", key]);
    assert_eq!((length("{shop:bills}:log"), length(full)), (0, 1));
    let known: Vec<String> = scene.server.command(&["KEYS", "{shop:bills}:ids*"]);
    assert!(known.is_empty(), "{known:?}");
    let sum: Option<i64> = scene.server.command(&["GET", "shop:sum"]);
    assert_eq!((sum, scene.pending()), (None, 1));
}

#[tokio::test]
async fn a_command_that_the_user_may_not_run_leaves_nothing() {
    let mut scene = Scene::new(1).await;
    for command in ["del", "incrby", "set", "xadd", "xack", "hset", "pexpireat"] {
        let denied = format!("-{command}");
        let user = ["reset", "on", ">secret", "~*", "+@all", &denied];
        scene.run(&[&["ACL", "SETUSER", "limited"], &user[..]].concat());
        let url = scene.server.url();
        let url = url.replace("redis://", "redis://limited:secret@");
        let limited = builder(&scene.server).with_redis_url(url).connect().await;
        scene.store = limited.unwrap().store();
        let commit = scene.commit_of(0, of_every_kind());
        let error = scene.leaves_nothing(1, commit).await;
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        let told = error.to_string();
        assert!(told.contains(&command.to_uppercase()), "{told}");
    }
    scene.store = container(&scene.server).await.store();
    let commits = [scene.commit_of(0, of_every_kind())];
    assert!(done(&scene.commit(1, &commits).await.unwrap()));
}

#[tokio::test]
async fn a_full_memory_leaves_nothing_and_the_same_call_is_done_later() {
    let scene = Scene::new(3).await;
    scene.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let commits = [
        of_every_kind(),
        vec![increment("sum")],
        vec![Effect::Unchanged {
            key: "absent".to_owned(),
            seen: None,
        }],
    ];
    for (at, effects) in commits.iter().enumerate() {
        let commit = scene.commit_of(at, effects.clone());
        let error = scene.leaves_nothing(1, commit).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    scene.run(&["CONFIG", "SET", "maxmemory", "0"]);
    let commits: Vec<_> = (0..)
        .zip(commits)
        .map(|(at, effects)| scene.commit_of(at, effects))
        .collect();
    assert!(done(&scene.commit(1, &commits).await.unwrap()));
    assert_eq!(scene.pending(), 0);
}

#[tokio::test]
async fn a_memory_that_becomes_full_in_the_middle_refuses_nothing() {
    let scene = Scene::new(2).await;
    let used = || {
        let info: String = scene.server.command(&["INFO", "memory"]);
        let line = info.lines().find(|line| line.starts_with("used_memory:"));
        line.unwrap()["used_memory:".len()..]
            .parse::<u64>()
            .unwrap()
    };
    let big = Partition::of(&topic("big"));
    let message = Effect::Publish {
        at: big.clone(),
        entry: NewEntry {
            id: uuid::Uuid::nil(),
            name: "json",
            value: Bytes::from(vec![b'x'; 100_000]),
        },
        window: None,
    };
    let commits = [0, 1].map(|at| {
        let messages = std::iter::repeat_n(message.clone(), 60);
        EffectCommit {
            acknowledges: false,
            ..scene.commit_of(at, messages.chain([increment("sum")]).collect())
        }
    });
    let (mut number, mut refused) = (0, 0);
    // The server counts the call itself too, so the first limit that lets it begin is less than a
    // step above what the call begins with, and its twelve megabytes of entries cross the limit.
    let step = 2 * 1024 * 1024;
    let fates = loop {
        let limit = used() + (refused + 1) * step;
        scene.run(&["CONFIG", "SET", "maxmemory", &limit.to_string()]);
        number += 1;
        match scene.commit(number, &commits).await {
            Ok(fates) => break fates,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
        let length = scene.server.command::<u64>(&["XLEN", "{shop:big}:log"]);
        assert_eq!(length, 0, "a refused call left something");
        refused += 1;
        assert!(refused < 100, "no limit is enough");
    };
    assert!(done(&fates) && refused > 0, "{refused}: {fates:?}");
    let length: u64 = scene.server.command(&["XLEN", "{shop:big}:log"]);
    let sum: i64 = scene.server.command(&["GET", "shop:sum"]);
    assert_eq!((length, sum), (120, 2));
}

#[tokio::test]
async fn a_server_that_takes_no_writes_leaves_nothing() {
    let scene = Scene::new(1).await;
    for (number, (begin, end)) in (1..).zip([
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"][..],
            &["CONFIG", "SET", "min-replicas-to-write", "0"][..],
        ),
        (
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"],
        ),
    ]) {
        scene.run(begin);
        let commit = scene.commit_of(0, of_every_kind());
        let error = scene.leaves_nothing(number, commit).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{begin:?}: {error}");
        scene.run(end);
    }
    let commits = [scene.commit_of(0, of_every_kind())];
    until("the server to take writes", async || {
        scene.commit(3, &commits).await.ok()
    })
    .await;
    assert_eq!(scene.pending(), 0);
}

#[tokio::test]
async fn a_time_to_live_out_of_range_leaves_nothing() {
    let scene = Scene::new(1).await;
    // The adapter refuses such a time before, so only another caller of the script can pass it.
    let script = concat!(
        include_str!("../../lua/lib/ids.lua"),
        include_str!("../../lua/lib/effects.lua"),
        include_str!("../../lua/apply.lua")
    );
    let before = scene.state();
    for ttl in ["9223372036854775807", "-1", "x"] {
        let keys = ["{shop}:session:s", "shop:a", "shop:b"];
        let last = format!("set 3 {ttl}");
        let words = ["1", "1000", "2", "set 2 0", "v", &last, "v"];
        let mut call = redis::cmd("EVAL");
        call.arg(script).arg(keys.len()).arg(&keys).arg(&words);
        let told = call.query::<redis::Value>(&mut scene.server.raw());
        assert!(told.is_err(), "{ttl}: {told:?}");
        assert!(scene.state() == before, "{ttl}");
    }
}

/// Kills the scripts of a server until it is dropped.
struct Killer(Arc<std::sync::atomic::AtomicBool>);

impl Killer {
    fn of(server: &Server) -> Self {
        let running = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let (go_on, mut raw) = (Arc::clone(&running), server.raw());
        std::thread::spawn(move || {
            while go_on.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = redis::cmd("SCRIPT")
                    .arg("KILL")
                    .query::<redis::Value>(&mut raw);
            }
        });
        Self(running)
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.0.store(false, std::sync::atomic::Ordering::Relaxed);
    }
}

#[tokio::test]
async fn killing_scripts_leaves_whole_commits() {
    let scene = Scene::new(32 * 4).await;
    scene.run(&["CONFIG", "SET", "busy-reply-threshold", "1"]);
    let killer = Killer::of(&scene.server);
    for call in 0..4 {
        let commits: Vec<_> = (32 * call..32 * (call + 1))
            .map(|at| {
                let keys = (0..100).map(|k| increment(&format!("k{k}")));
                scene.commit_of(at, keys.collect())
            })
            .collect();
        let number = call as u64 + 1;
        let fates = until("a call to be done", async || {
            scene.commit(number, &commits).await.ok()
        })
        .await;
        assert!(done(&fates));
        let sums: Vec<i64> = (0..100)
            .map(|k| scene.server.command(&["GET", &format!("shop:k{k}")]))
            .collect();
        assert_eq!(sums, [32 * (call as i64 + 1); 100]);
    }
    drop(killer);
    assert_eq!(scene.pending(), 0);
}

#[tokio::test]
async fn a_server_that_is_killed_keeps_whole_commits_and_their_answers() {
    let mut scene = Scene::new(60).await;
    for (number, at) in (1..).zip(0..60) {
        let commits = [scene.commit_of(at, vec![publish(&bills()), increment("sum")])];
        if at % 6 == 3 {
            let (store, member) = (Arc::clone(&scene.store), scene.member.clone());
            let sent = commits.clone();
            let sending =
                tokio::spawn(async move { store.effects().commit(&member, number, &sent).await });
            tokio::time::sleep(Duration::from_micros(u64::from(fastrand::u16(0..3000)))).await;
            scene.server.restart();
            let _ = sending.await.unwrap();
        }
        let fates = until("the call to be answered", async || {
            scene.commit(number, &commits).await.ok()
        })
        .await;
        assert!(done(&fates), "{fates:?}");
    }
    let sum: i64 = scene.server.command(&["GET", "shop:sum"]);
    let length: i64 = scene.server.command(&["XLEN", "{shop:bills}:log"]);
    assert_eq!((sum, length, scene.pending()), (60, 60, 0));
}

#[tokio::test]
async fn an_append_only_file_that_ends_inside_a_commit_has_nothing_of_it() {
    let mut scene = Scene::new(1).await;
    let file = || {
        let files = std::fs::read_dir(scene.server.folder().join("appendonlydir")).unwrap();
        let mut paths = files.map(|file| file.unwrap().path());
        let path = paths.find(|path| path.to_string_lossy().ends_with(".incr.aof"));
        path.unwrap()
    };
    let path = file();
    let before = std::fs::metadata(&path).unwrap().len();
    let state = scene.facts();
    let commits = [scene.commit_of(0, of_every_kind())];
    assert!(done(&scene.commit(1, &commits).await.unwrap()));
    let written = scene.facts();
    scene.server.kill();
    let whole = std::fs::read(&path).unwrap();
    let after = whole.len() as u64;
    assert!(after > before + 200, "the commit is in the file");
    let cuts = (before..after).step_by(23).chain([after]);
    for cut in cuts {
        std::fs::write(&path, &whole[..usize::try_from(cut).unwrap()]).unwrap();
        scene.server.start_again();
        let expected = if cut == after { &written } else { &state };
        assert!(
            scene.facts() == *expected,
            "cut at {cut} of {before} to {after}"
        );
        scene.server.kill();
    }
}

/// The keys of a consumer's numbered calls go with the consumer.
#[tokio::test]
async fn unsubscribing_leaves_no_session() {
    let server = Server::start();
    let container = container(&server).await;
    let orders = topic("orders");
    let handler = |Payload(_): Payload<u32>| async {
        let mut effects = Effects::new();
        effects.incr("handled", 1);
        Ok::<_, Error>(effects)
    };
    let bus = container.bus();
    let subscription = bus.subscribe(&orders, handler).await.unwrap();
    support::publish(&container, &orders, 0..5).await;
    drained(&container, &orders, &group("billing")).await;
    let sessions = || server.command::<Vec<String>>(&["KEYS", "{shop:orders}:session:*"]);
    assert_eq!(sessions().len(), 1);
    assert!(subscription.unsubscribe(PATIENCE).await.is_clean());
    assert_eq!(sessions(), [""; 0]);
    finish(container).await;
}
