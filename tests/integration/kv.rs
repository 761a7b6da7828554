//! The key-value store on a real server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::Server;
use redstart::{
    ErrorKind, Kv, Namespace,
    envelope::Codec,
    kv::{Once, OnceError, OnceOptions, first_time, once, once_with},
    ports::{CasResult, ClaimResult},
};

const HOUR: Duration = Duration::from_secs(3600);

fn store(server: &Server) -> Kv {
    Kv::connect(&server.url(), Some(Namespace::new("shop").unwrap())).unwrap()
}

fn raw_get(server: &Server, key: &str) -> Option<Vec<u8>> {
    redis::cmd("GET").arg(key).query(&mut server.raw()).unwrap()
}

fn raw_set(server: &Server, key: &str, value: &[u8]) {
    redis::cmd("SET")
        .arg(key)
        .arg(value)
        .exec(&mut server.raw())
        .unwrap();
}

#[tokio::test]
async fn values_are_stored_read_and_removed() {
    let server = Server::start();
    let kv = store(&server);
    assert_eq!(kv.get::<String>("a").await.unwrap(), None);
    kv.set("a", "one").await.unwrap();
    kv.set_many(&[("b", 2), ("c", 3)], Some(HOUR))
        .await
        .unwrap();
    assert_eq!(kv.get::<String>("a").await.unwrap().as_deref(), Some("one"));
    let many: Vec<Option<i32>> = kv.get_many(&["b", "none", "c"]).await.unwrap();
    assert_eq!(many, [Some(2), None, Some(3)]);
    assert!(kv.exists("a").await.unwrap());
    assert!(kv.delete("a").await.unwrap());
    assert!(!kv.delete("a").await.unwrap());
    assert!(!kv.exists("a").await.unwrap());
    assert!(
        raw_get(&server, "shop:b").is_some(),
        "the namespace is a prefix"
    );
}

#[tokio::test]
async fn ttl_timing_old_fault_4_is_read_back_and_never_waited_for() {
    let server = Server::start();
    let kv = store(&server);
    kv.set("kept", &1).await.unwrap();
    kv.set_with_ttl("timed", &1, HOUR).await.unwrap();
    let ttl = |key: &str| -> i64 {
        redis::cmd("PTTL")
            .arg(key)
            .query(&mut server.raw())
            .unwrap()
    };
    assert_eq!(ttl("shop:kept"), -1);
    assert!((1..=3_600_000).contains(&ttl("shop:timed")));
    let error = kv
        .set_with_ttl("timed", &1, Duration::ZERO)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn integers_can_be_incremented_and_other_values_cannot() {
    let server = Server::start();
    let kv = store(&server);
    kv.set("n", &40).await.unwrap();
    assert_eq!(kv.incr("n", 2).await.unwrap(), 42);
    assert_eq!(kv.incr("fresh", -1).await.unwrap(), -1);
    assert_eq!(kv.get::<i64>("n").await.unwrap(), Some(42));
    kv.set("text", "x").await.unwrap();
    let error = kv.incr("text", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.subject(), Some("text"));
    assert_eq!(
        kv.get::<String>("text").await.unwrap().as_deref(),
        Some("x")
    );
}

#[tokio::test]
async fn a_wrong_key_type_is_refused_and_left_alone() {
    let server = Server::start();
    let kv = store(&server);
    redis::cmd("SADD")
        .arg("shop:set")
        .arg("x")
        .exec(&mut server.raw())
        .unwrap();
    assert_eq!(
        kv.get::<i32>("set").await.unwrap_err().kind(),
        ErrorKind::Refused
    );
    let error = kv.cas("set", None, &1, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let count: i64 = redis::cmd("SCARD")
        .arg("shop:set")
        .query(&mut server.raw())
        .unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn values_of_the_typescript_store_are_read_and_swapped() {
    let server = Server::start();
    let kv = store(&server);
    raw_set(&server, "shop:json", br#"{"b":1,"a":2}"#);
    raw_set(&server, "shop:text", b"plain text");
    let map: HashMap<String, i32> = kv.get("json").await.unwrap().unwrap();
    assert_eq!(map["a"], 2);
    assert_eq!(
        kv.get::<String>("text").await.unwrap().as_deref(),
        Some("plain text")
    );
    // Another codec, another key order: the same value.
    let new = HashMap::from([("a".to_owned(), 3)]);
    assert!(kv.cas("json", Some(&map), &new, None).await.unwrap());
    assert!(!kv.cas("json", Some(&map), &new, None).await.unwrap());
    assert_eq!(raw_get(&server, "shop:json").unwrap()[0], 0xC1);
}

#[tokio::test]
async fn every_return_value_of_kv_cas() {
    let server = Server::start();
    let kv = store(&server);
    let bytes = |text: &'static str| bytes::Bytes::from(text);
    let differs = kv
        .port()
        .cas_bytes("k", Some(bytes("1")), bytes("2"), None)
        .await
        .unwrap();
    assert_eq!(differs, CasResult::Differs(None));
    assert_eq!(
        kv.port()
            .cas_bytes("k", None, bytes("1"), None)
            .await
            .unwrap(),
        CasResult::Swapped
    );
    let differs = kv
        .port()
        .cas_bytes("k", None, bytes("2"), None)
        .await
        .unwrap();
    assert_eq!(differs, CasResult::Differs(Some(bytes("1"))));
    let swapped = kv
        .port()
        .cas_bytes("k", Some(bytes("1")), bytes("2"), Some(HOUR))
        .await
        .unwrap();
    assert_eq!(swapped, CasResult::Swapped);
    let ttl: i64 = redis::cmd("PTTL")
        .arg("shop:k")
        .query(&mut server.raw())
        .unwrap();
    assert!(ttl > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_updates_lose_nothing() {
    let server = Server::start();
    let kv = store(&server).with_codec(Codec::Json);
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let kv = kv.clone();
            tokio::spawn(async move {
                for step in 0..25 {
                    kv.update("list", None, |list: Option<Vec<i32>>| {
                        let mut list = list.unwrap_or_default();
                        list.push(n * 25 + step);
                        list
                    })
                    .await
                    .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut list: Vec<i32> = kv.get("list").await.unwrap().unwrap();
    list.sort_unstable();
    assert_eq!(list, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn scripts_are_loaded_again_after_script_flush_and_restart() {
    let mut server = Server::start();
    let kv = store(&server);
    assert!(kv.cas("k", None, &1, None).await.unwrap());
    redis::cmd("SCRIPT")
        .arg("FLUSH")
        .exec(&mut server.raw())
        .unwrap();
    assert!(kv.cas("k", Some(&1), &2, None).await.unwrap());
    server.restart();
    // The connections in the pool are dead; each fails at most once.
    let mut unknown = 0;
    let value = loop {
        match kv.get::<i32>("k").await {
            Ok(value) => break value,
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                unknown += 1;
                assert!(
                    unknown <= 8,
                    "a dead connection was handed out again: {error:?}"
                );
            }
        }
    };
    assert_eq!(
        value,
        Some(2),
        "appendfsync always: nothing acknowledged is missing"
    );
    assert!(kv.cas("k", Some(&2), &3, None).await.unwrap());
}

#[tokio::test]
async fn every_state_of_once() {
    let server = Server::start();
    let kv = store(&server);
    let run = async |result: Result<i32, &'static str>| {
        once(&kv, "job", HOUR, || async move { result }).await
    };
    // The function's error releases the claim.
    assert!(matches!(
        run(Err("no")).await,
        Err(OnceError::Function("no"))
    ));
    assert_eq!(run(Ok(7)).await.unwrap(), Once::Executed(7));
    assert_eq!(run(Ok(8)).await.unwrap(), Once::AlreadyDone(Some(7)));
    raw_set(&server, "shop:job", b"true");
    assert_eq!(run(Ok(9)).await.unwrap(), Once::AlreadyDone(None));
    kv.delete("job").await.unwrap();
    assert_eq!(
        kv.port().claim("job", "other", HOUR).await.unwrap(),
        ClaimResult::Claimed
    );
    assert_eq!(run(Ok(9)).await.unwrap(), Once::InProgress);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_function_that_blocks_its_thread_keeps_its_claim() {
    let server = Server::start();
    let lease = Duration::from_secs(2);
    let options = OnceOptions::new(HOUR).with_lease(lease);
    let kv = store(&server);
    let blocking = tokio::spawn({
        let kv = kv.clone();
        async move {
            let function = async || {
                std::thread::sleep(lease * 2);
                tokio::time::sleep(lease / 10).await;
                std::thread::sleep(lease * 2);
                Ok::<_, std::io::Error>(1)
            };
            once_with(&kv, "job", options, function).await
        }
    });
    for _ in 0..2 {
        tokio::time::sleep(lease * 3 / 2).await;
        let looked = once_with(&kv, "job", options, async || Ok::<_, std::io::Error>(2)).await;
        assert_eq!(looked.unwrap(), Once::InProgress);
    }
    assert_eq!(blocking.await.unwrap().unwrap(), Once::Executed(1));
}

#[tokio::test]
async fn memory_that_is_full_for_a_moment_does_not_run_a_function_twice() {
    let server = Server::start();
    let kv = store(&server);
    let limit = |bytes: &str| {
        redis::cmd("CONFIG")
            .arg("SET")
            .arg("maxmemory")
            .arg(bytes)
            .exec(&mut server.raw())
            .unwrap();
    };
    let runs = AtomicU32::new(0);
    let run = async || {
        let function = async || {
            runs.fetch_add(1, Ordering::SeqCst);
            limit("1");
            Ok::<_, std::io::Error>("receipt".to_owned())
        };
        once(&kv, "job", HOUR, function).await
    };
    let mends = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        limit("0");
    };
    let (first, ()) = tokio::join!(run(), mends);
    assert_eq!(first.unwrap(), Once::Executed("receipt".to_owned()));
    let again = run().await.unwrap();
    assert_eq!(again, Once::AlreadyDone(Some("receipt".to_owned())));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_superseded_claim_cannot_complete() {
    let server = Server::start();
    let kv = store(&server);
    let result = once(&kv, "job", HOUR, async || {
        // As if this process had been frozen beyond its lease and another had taken over.
        kv.delete("job").await.unwrap();
        assert_eq!(
            kv.port().claim("job", "successor", HOUR).await.unwrap(),
            ClaimResult::Claimed
        );
        Ok::<_, std::io::Error>(1)
    })
    .await;
    let Err(OnceError::Store(error)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    let done = bytes::Bytes::from_static(b"2");
    assert!(
        kv.port()
            .extend_claim("job", "successor", HOUR)
            .await
            .unwrap()
    );
    assert!(
        !kv.port()
            .extend_claim("job", "stranger", HOUR)
            .await
            .unwrap()
    );
    assert!(!kv.port().release_claim("job", "stranger").await.unwrap());
    assert!(
        kv.port()
            .complete_claim("job", "successor", done.clone(), HOUR)
            .await
            .unwrap()
    );
    // The reply may be lost: a second completion with the same result succeeds.
    assert!(
        kv.port()
            .complete_claim("job", "successor", done.clone(), HOUR)
            .await
            .unwrap()
    );
    assert_eq!(
        kv.port().claim("job", "late", HOUR).await.unwrap(),
        ClaimResult::Done(Some(done))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn once_and_deduplicate_do_not_race_as_the_older_helpers_did() {
    let server = Server::start();
    let kv = store(&server);
    let runs = std::sync::Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let (kv, runs) = (kv.clone(), runs.clone());
            tokio::spawn(async move {
                let outcome = once(&kv, "job", HOUR, || async {
                    runs.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok::<_, std::io::Error>(1)
                })
                .await
                .unwrap();
                let first = first_time(&kv, "event-1", HOUR).await.unwrap();
                (matches!(outcome, Once::Executed(_)), first)
            })
        })
        .collect();
    let (mut executed, mut first) = (0, 0);
    for task in tasks {
        let (ran, was_first) = task.await.unwrap();
        executed += u32::from(ran);
        first += u32::from(was_first);
    }
    assert_eq!((executed, first, runs.load(Ordering::SeqCst)), (1, 1, 1));
    assert!(raw_get(&server, "shop:seen:event-1").is_some());
}

#[tokio::test]
async fn an_unreachable_server_means_not_published_and_shows_no_secret() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("redis://user:canary-secret@127.0.0.1:{free}/");
    let kv = Kv::connect(&url, None).unwrap();
    let error = kv.set("k", &1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    let bad = Kv::connect("redis://user:canary-secret@[::bad", None).unwrap_err();
    for shown in [
        format!("{error} {error:?}"),
        format!("{bad} {bad:?}"),
        format!("{kv:?}"),
    ] {
        assert!(!shown.contains("canary-secret"), "{shown}");
    }
}

#[tokio::test]
async fn several_values_are_maybe_written_where_one_is_refused() {
    let server = Server::start();
    let words = ["ACL", "SETUSER", "narrow", "on", ">secret", "~a", "+@all"];
    let _: String = server.command(&words);
    let url = server.url();
    let url = url.replace("redis://", "redis://narrow:secret@");
    let kv = Kv::connect(&url, None).unwrap();
    let error = kv.set_many(&[("a", 1), ("b", 2)], None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    let told = "the value of \"b\" failed; values of other keys may be written";
    assert!(error.to_string().contains(told), "{error}");
    assert_eq!(raw_get(&server, "a").as_deref(), Some(&b"1"[..]));
    let error = kv.set_many(&[("b", 1), ("c", 2)], None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
}
