//! Sweeps while time passes, visitors leave, and operators click twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redstart::console::ConsoleService;
use redstart::envelope::Timestamp;
use redstart::memory::{ManualClock, MemoryStore};
use redstart::ports::BoxFuture;
use redstart::store::DeadLettersOp;
use redstart::store::decorate::{Answer as Told, Decorated, Decorator, Next, Op};
use redstart::{Container, Error};
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};

use crate::act::{dead, ended, ids};
use crate::site::{console, dies, get, hidden, post, send};
use crate::support::{PATIENCE, group, topic, until};

const SWEEP: &str = "/dead/orders/billing/sweep";

/// Two dead letters, 2 and 0.5 seconds old.
async fn two_ages() -> (Container, ManualClock) {
    let start: Timestamp = "2026-03-01T14:00:00Z".parse().unwrap();
    let clock = ManualClock::new(start);
    let store = MemoryStore::with_clock(clock.clone());
    let builder = Container::builder().with_memory(store);
    let container = builder.with_service(group("billing")).connect().await;
    let container = container.unwrap();
    dies(&container, 1).await;
    clock.advance(Duration::from_millis(1_500));
    dies(&container, 1).await;
    clock.advance(Duration::from_millis(500));
    (container, clock)
}

#[tokio::test]
async fn an_age_selects_the_dead_letters_of_the_preview() {
    let (container, clock) = two_ages().await;
    let console = console(&container);
    let newer = ids(&container).await[1];
    let ages = format!("{SWEEP}?action=purge&since=3s&until=1s");
    let page = get(&console, &ages).await.ok();
    let page = page.shows(&["1 dead letter"]);
    let [since, until, up_to] = ["since", "until", "up_to"].map(|name| hidden(&page, name));
    // The preview's times are also those of the export that it offers, and of the command.
    assert!(!page.text.contains("=3s") && !page.text.contains(" 3s"));
    clock.advance(Duration::from_secs(2));
    let fields = |since, until| {
        [
            ("action", "purge"),
            ("all", "1"),
            ("since", since),
            ("until", until),
            ("up_to", up_to.as_str()),
            ("typed", "1"),
        ]
    };
    let refused = post(&console, SWEEP, &fields("3s", "1s")).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(dead(&container).await, 2);
    let begun = post(&console, SWEEP, &fields(&since, &until)).await;
    ended(&console, &begun).await.shows(&["done; 1 taken"]);
    assert_eq!(ids(&container).await, [newer]);
}

#[tokio::test]
async fn programs_confirm_the_times_of_a_plan_and_no_ages() {
    let (container, clock) = two_ages().await;
    let console = console(&container);
    let order = async |body: &Value| {
        let request = http::Request::post(format!("/api/v1{SWEEP}"))
            .header("host", "console.test")
            .header("content-type", "application/json");
        send(&console, request.body(body.to_string()).unwrap()).await
    };
    let mut body = json!({"action": "purge", "since": "3s", "until": "1s", "dryRun": true});
    let plan: Value = serde_json::from_str(&order(&body).await.ok().text).unwrap();
    assert_eq!(plan["matching"], 1, "{plan}");
    clock.advance(Duration::from_secs(2));
    body["dryRun"] = json!(false);
    body["confirm"] = json!(1);
    body["watermark"] = plan["watermark"].clone();
    let refused = order(&body).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    refused.shows(&["an age", "of the plan"]);
    assert_eq!(dead(&container).await, 2);
    for name in ["since", "until"] {
        assert!(plan[name].as_str().unwrap().ends_with('Z'), "{plan}");
        body[name] = plan[name].clone();
    }
    assert_eq!(order(&body).await.status, 200);
}

/// Holds back the begin of an operation until the test lets it go, and every move for good.
#[derive(Debug)]
struct Slow {
    begins: Notify,
    let_begin: Semaphore,
    moves: Notify,
    moving: Arc<AtomicUsize>,
}

/// One move under way.
struct Moving(Arc<AtomicUsize>);

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Decorator for Slow {
    fn call<'a>(&'a self, op: Op<'a>, mut to: Next<'a>) -> BoxFuture<'a, Result<Told, Error>> {
        Box::pin(async move {
            match op {
                Op::DeadLetters(DeadLettersOp::BeginOperation { .. }) => {
                    self.begins.notify_one();
                    self.let_begin.acquire().await.unwrap().forget();
                }
                Op::DeadLetters(DeadLettersOp::MoveOut { .. }) => {
                    self.moving.fetch_add(1, Ordering::SeqCst);
                    let _moving = Moving(Arc::clone(&self.moving));
                    self.moves.notify_one();
                    std::future::pending::<()>().await;
                }
                _ => {}
            }
            to.run(op).await
        })
    }
}

/// A container with dead letters whose moves never end, and the page of a sweep that a visitor
/// began and left before the journal had it.
async fn left_early() -> (Arc<Slow>, ConsoleService, String) {
    let slow = Arc::new(Slow {
        begins: Notify::new(),
        let_begin: Semaphore::new(0),
        moves: Notify::new(),
        moving: Arc::default(),
    });
    let store = MemoryStore::new().store(None);
    let store = Decorated::new(Arc::clone(&slow) as Arc<dyn Decorator>, store);
    let builder = Container::builder().with_service(group("billing"));
    let container = builder.with_store(Arc::new(store)).connect().await.unwrap();
    dies(&container, 2).await;
    let console = console(&container);
    let page = get(&console, &format!("{SWEEP}?action=redrive&all=1")).await;
    let up_to = hidden(&page.ok(), "up_to");
    let fields = [("all", "1"), ("typed", "2"), ("up_to", up_to.as_str())];
    tokio::select! {
        answer = post(&console, SWEEP, &fields) => panic!("{answer:?}"),
        () = slow.begins.notified() => {}
    }
    slow.let_begin.add_permits(1);
    slow.moves.notified().await;
    let (on, of) = (topic("orders"), group("billing"));
    let journal = container.dead_letters().journal(&on, &of).await.unwrap();
    let operation = format!("/operations/orders/billing/{}", journal[0].id);
    (slow, console, operation)
}

async fn stops(slow: &Slow, console: &ConsoleService, operation: &str) {
    let stopped = post(console, &format!("{operation}/stop"), &[]).await;
    assert_eq!(stopped.status, 303, "{}", stopped.text);
    let began = tokio::time::Instant::now();
    while slow.moving.load(Ordering::SeqCst) > 0 {
        assert!(began.elapsed() < PATIENCE, "the sweep goes on after Stop");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn stop_ends_a_sweep_whose_visitor_left_before_it_began() {
    let (slow, console, operation) = left_early().await;
    stops(&slow, &console, &operation).await;
}

#[tokio::test]
async fn two_clicks_on_resume_resume_once() {
    let (slow, console, operation) = left_early().await;
    stops(&slow, &console, &operation).await;
    let resume = format!("{operation}/resume");
    let (one, two) = tokio::join!(post(&console, &resume, &[]), post(&console, &resume, &[]));
    assert_eq!((one.status, two.status), (303, 409), "{}", two.text);
    stops(&slow, &console, &operation).await;
}

/// Counts the calls that read whole dead letters.
#[derive(Debug, Default)]
struct Bodies(AtomicUsize);

impl Decorator for Bodies {
    fn call<'a>(&'a self, op: Op<'a>, mut to: Next<'a>) -> BoxFuture<'a, Result<Told, Error>> {
        if let Op::DeadLetters(DeadLettersOp::Find { .. }) = op {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Box::pin(async move { to.run(op).await })
    }
}

#[tokio::test]
async fn causes_and_previews_read_no_whole_dead_letters() {
    let bodies = Arc::new(Bodies::default());
    let store = MemoryStore::new().store(None);
    let store = Decorated::new(Arc::clone(&bodies) as Arc<dyn Decorator>, store);
    let builder = Container::builder().with_service(group("billing"));
    let container = builder.with_store(Arc::new(store)).connect().await.unwrap();
    dies(&container, 6).await;
    let console = console(&container);
    let all = ids(&container).await;
    let causes: Value =
        serde_json::from_str(&get(&console, "/api/v1/dead").await.ok().text).unwrap();
    assert!(causes[0]["sample"].is_string(), "{causes}");
    get(&console, "/dead").await.ok();
    let two = format!("{SWEEP}?action=purge&id={}&id={}&id=9-9", all[1], all[0]);
    let page = get(&console, &two).await.ok();
    page.shows(&["2 dead letters", "No longer there"]);
    assert_eq!(bodies.0.load(Ordering::SeqCst), 0);
}

/// Panics at the first move of dead letters.
#[derive(Debug, Default)]
struct Panics(AtomicUsize);

impl Decorator for Panics {
    fn call<'a>(&'a self, op: Op<'a>, mut to: Next<'a>) -> BoxFuture<'a, Result<Told, Error>> {
        Box::pin(async move {
            if let Op::DeadLetters(DeadLettersOp::MoveOut { .. }) = op {
                let moves = self.0.fetch_add(1, Ordering::SeqCst);
                assert!(moves > 0, "the store is broken");
            }
            to.run(op).await
        })
    }
}

#[tokio::test]
async fn a_sweep_that_panics_says_so_and_can_be_resumed() {
    let store = MemoryStore::new().store(None);
    let store = Decorated::new(Arc::new(Panics::default()), store);
    let builder = Container::builder().with_service(group("billing"));
    let container = builder.with_store(Arc::new(store)).connect().await.unwrap();
    dies(&container, 2).await;
    let console = console(&container);
    let page = get(&console, &format!("{SWEEP}?action=purge&all=1")).await;
    let up_to = hidden(&page.ok(), "up_to");
    let fields = [
        ("action", "purge"),
        ("all", "1"),
        ("typed", "2"),
        ("up_to", up_to.as_str()),
    ];
    let begun = post(&console, SWEEP, &fields).await;
    assert_eq!(begun.status, 303, "{}", begun.text);
    let path = begun.header("location").to_owned();
    until("the page to say why the sweep failed", async || {
        let page = get(&console, &path).await.ok();
        page.text.contains("the store is broken").then_some(())
    })
    .await;
    let page = get(&console, &path).await.ok();
    assert!(!page.text.contains(">Stop<"), "{}", page.text);
    page.shows(&["not ended", ">Resume<"]);
    let resumed = post(&console, &format!("{path}/resume"), &[]).await;
    assert_eq!(resumed.status, 303, "{}", resumed.text);
    ended(&console, &resumed).await.shows(&["done; 2 taken"]);
    assert_eq!(dead(&container).await, 0);
}
