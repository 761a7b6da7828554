//! What can go wrong while effects are written: all of a commit is left, or nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redstart::extract::Payload;
use redstart::schedules::{ScheduleId, When};
use redstart::store::{
    DeliveryId, Effect, EffectCommit, EffectFate, Member, NewEntry, NewLater, Opening, Partition,
    Refusal, StartFrom, Store,
};
use redstart::topics::{ConsumerName, TopicSettings};
use redstart::{Effects, Error, ErrorKind};

use crate::support::{
    self, PATIENCE, Server, builder, container, drained, finish, group, topic, until,
};

const LIST: &str = "shop:list";

pub(crate) fn bills() -> Partition {
    Partition::of(&topic("bills"))
}

pub(crate) fn publish(at: &Partition) -> Effect {
    Effect::Publish {
        at: at.clone(),
        entry: NewEntry {
            id: uuid::Uuid::now_v7(),
            name: "json",
            value: Bytes::from_static(b"{}"),
            slot: None,
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

pub(crate) fn increment(key: &str) -> Effect {
    Effect::Increment {
        key: key.to_owned(),
        by: 1,
        within: None,
    }
}

/// Schedules a message that stays scheduled.
fn schedule(at: &Partition) -> Effect {
    Effect::Schedule {
        at: at.clone(),
        message: NewLater {
            id: ScheduleId::new("new").unwrap(),
            due: When::After(Duration::from_secs(86_400)),
            keeps: false,
            name: "json",
            value: Bytes::from_static(b"{}"),
            slot: None,
        },
    }
}

fn cancel(at: &Partition) -> Effect {
    Effect::Cancel {
        at: at.clone(),
        id: ScheduleId::new("old").unwrap(),
    }
}

fn delete(key: &str) -> Effect {
    let key = key.to_owned();
    Effect::Delete { key }
}

/// Effects of every kind that writes, which end with a removal.
pub(crate) fn of_every_kind() -> Vec<Effect> {
    vec![
        publish(&bills()),
        identified(&bills()),
        set("name", "ann"),
        increment("sum"),
        delete("gone"),
        schedule(&bills()),
        cancel(&bills()),
    ]
}

/// A server, and a consumer that holds messages.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) member: Member,
    fetched: Vec<DeliveryId>,
}

impl Scene {
    pub(crate) async fn new(messages: usize) -> Self {
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
        scene.run(&["ZADD", "{shop:bills}:later", "9000000000000", "old"]);
        scene.run(&["HSET", "{shop:bills}:later:body", "old", "json {}"]);
        scene
    }

    pub(crate) fn run(&self, words: &[&str]) {
        let _: redis::Value = self.server.command(words);
    }

    pub(crate) fn commit_of(&self, at: usize, effects: Vec<Effect>) -> EffectCommit {
        EffectCommit {
            delivery: self.fetched[at],
            acknowledges: true,
            only_copy: false,
            effects,
        }
    }

    pub(crate) async fn commit(
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

    pub(crate) fn pending(&self) -> usize {
        let log = "{shop:orders}:log";
        let rows: Vec<redis::Value> = self
            .server
            .command(&["XPENDING", log, "billing", "-", "+", "1000"]);
        rows.len()
    }

    /// What the effects of every kind change.
    pub(crate) fn facts(&self) -> (Vec<String>, i64, Vec<String>, usize) {
        let mut keys: Vec<String> = self.server.command(&["KEYS", "*"]);
        keys.sort();
        let length = self.server.command(&["XLEN", "{shop:bills}:log"]);
        let later = ["ZRANGE", "{shop:bills}:later", "0", "-1"];
        let mut later: Vec<String> = self.server.command(&later);
        let bodies = ["HKEYS", "{shop:bills}:later:body"];
        later.extend(self.server.command::<Vec<String>>(&bodies));
        (keys, length, later, self.pending())
    }

    /// The error of a call that left nothing.
    async fn leaves_nothing(&self, number: u64, commits: &[EffectCommit]) -> Error {
        let before = self.state();
        let error = self.commit(number, commits).await.unwrap_err();
        assert!(self.state() == before, "{error} left something");
        error
    }
}

pub(crate) fn done(fates: &[EffectFate]) -> bool {
    fates.iter().all(|fate| matches!(fate, EffectFate::Done(_)))
}

#[tokio::test]
async fn a_key_of_another_type_leaves_nothing() {
    let (scene, other) = (Scene::new(4).await, Partition::of(&topic("other")));
    for (number, (key, bad)) in (1..).zip([
        ("{shop:other}:log", publish(&other)),
        ("{shop:other}:ids", identified(&other)),
        ("{shop:other}:ids:before", identified(&other)),
        (LIST, increment("list")),
        ("{shop:other}:later", schedule(&other)),
        ("{shop:other}:later:body", schedule(&other)),
        ("{shop:other}:meta", schedule(&other)),
        ("{shop:other}:later", cancel(&other)),
        ("{shop:other}:later:body", cancel(&other)),
    ]) {
        scene.run(&["LPUSH", key, "x"]);
        let mut effects = of_every_kind();
        let place = effects.len();
        effects.push(bad);
        let (before, pending) = scene.state();
        let commits = [scene.commit_of(0, effects)];
        let fates = scene.commit(number, &commits).await.unwrap();
        assert_eq!(
            fates,
            [EffectFate::Refused(place, Refusal::WrongType)],
            "{key}"
        );
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
    assert!(done(&scene.commit(99, &commits).await.unwrap()));
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

/// Every key that effects of any kind name, and those that a commit itself uses.
const KEYS: [&str; 12] = [
    "{shop:orders}:log",
    "{shop:orders}:group:billing:redo",
    "{shop:orders}:session:one",
    "{shop:bills}:log",
    "{shop:bills}:ids",
    "{shop:bills}:ids:before",
    "{shop:bills}:later",
    "{shop:bills}:later:body",
    "{shop:bills}:meta",
    "shop:name",
    "shop:sum",
    "shop:gone",
];

/// Each command on each key: without one of the rights, a commit that needs it leaves nothing, and
/// neither does the one before it in the call.
#[tokio::test]
async fn a_command_that_the_user_may_not_run_leaves_nothing() {
    let (mut scene, mut unchecked) = (Scene::new(2).await, Vec::new());
    let [
        log,
        _,
        session,
        bills_log,
        ids,
        before,
        later,
        bodies,
        meta,
        name,
        sum,
        gone,
    ] = KEYS;
    let remembering = [
        ("xadd", bills_log),
        ("xdel", bills_log),
        ("type", bills_log),
        ("hmget", ids),
        ("hmget", before),
        ("hset", ids),
        ("pexpireat", ids),
        ("unlink", before),
        ("rename", ids),
        ("rename", before),
        ("type", ids),
        ("type", before),
    ];
    let scheduling = [
        ("zadd", later),
        ("hset", bodies),
        ("zscore", later),
        ("zcard", later),
        ("hmget", meta),
        ("type", later),
        ("type", bodies),
        ("type", meta),
    ];
    let cancelling = [
        ("zrem", later),
        ("hdel", bodies),
        ("type", later),
        ("type", bodies),
    ];
    let unchanged = Effect::Unchanged {
        key: "name".to_owned(),
        seen: None,
    };
    let insert = Effect::Insert {
        key: "name".to_owned(),
        value: Bytes::from_static(b"ann"),
        ttl: None,
    };
    for (effect, rights) in [
        (publish(&bills()), &remembering[..3]),
        (identified(&bills()), &remembering),
        (
            set("name", "ann"),
            &[("set", name), ("set", session), ("xack", log)],
        ),
        (insert, &[("get", name), ("set", name)]),
        (unchanged, &[("get", name)]),
        (increment("sum"), &[("get", sum), ("incrby", sum)]),
        (delete("gone"), &[("del", gone)]),
        (schedule(&bills()), &scheduling),
        (cancel(&bills()), &cancelling),
    ] {
        for (command, denied) in rights {
            let others = KEYS.iter().filter(|key| *key != denied);
            let others: String = others.map(|key| format!("~{key} ")).collect();
            let without = format!("-{command}");
            let on_others = format!("({others}~shop:first +@all)");
            let user = [
                "reset", "on", ">secret", "~*", "+@all", &without, &on_others,
            ];
            scene.run(&[&["ACL", "SETUSER", "limited"], &user[..]].concat());
            let url = scene.server.url();
            let url = url.replace("redis://", "redis://limited:secret@");
            let limited = builder(&scene.server).with_redis_url(url).connect().await;
            scene.store = limited.unwrap().store();
            // The commit before it may run its own commands.
            let first = match *command {
                "del" => set("first", "x"),
                _ => delete("gone"),
            };
            let commits = [vec![first], vec![effect.clone()]];
            let commits = [0, 1].map(|at| scene.commit_of(at, commits[at].clone()));
            let before = scene.state();
            let told = scene.commit(1, &commits).await;
            let told = told.map_err(|error| error.to_string());
            let named = command.to_uppercase();
            // The look for the topic's partitions comes before the commit and needs the same right.
            let is_named =
                |told: &String| told.contains(&named) || told.contains("topic partitions");
            let is_refused = told.as_ref().is_err_and(is_named);
            if !is_refused || scene.state() != before {
                unchecked.push(format!("{command} {denied}: {told:?}"));
                scene = Scene::new(2).await;
            }
        }
    }
    assert_eq!(unchecked, [""; 0]);
    scene.store = container(&scene.server).await.store();
    let commits = [scene.commit_of(0, of_every_kind())];
    assert!(done(&scene.commit(1, &commits).await.unwrap()));
}

/// A stream that refuses an entry is full only if it has given its last id. Another commit of the call
/// writes what a full memory does not refuse.
#[tokio::test]
async fn a_full_memory_is_not_taken_for_a_full_stream() {
    let scene = Scene::new(2).await;
    scene.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let commits = [vec![publish(&bills())], vec![delete("gone")]];
    let commits = [0, 1].map(|at| scene.commit_of(at, commits[at].clone()));
    let error = scene.leaves_nothing(1, &commits).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    scene.run(&["CONFIG", "SET", "maxmemory", "0"]);
    assert!(done(&scene.commit(1, &commits).await.unwrap()));
}

#[tokio::test]
async fn a_full_memory_leaves_nothing_and_the_same_call_is_done_later() {
    let scene = Scene::new(4).await;
    scene.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let commits = [
        of_every_kind(),
        vec![increment("sum")],
        vec![schedule(&bills())],
        vec![Effect::Unchanged {
            key: "absent".to_owned(),
            seen: None,
        }],
    ];
    for (at, effects) in commits.iter().enumerate() {
        let commit = scene.commit_of(at, effects.clone());
        let error = scene.leaves_nothing(1, &[commit]).await;
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
            slot: None,
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
        let error = scene.leaves_nothing(number, &[commit]).await;
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
