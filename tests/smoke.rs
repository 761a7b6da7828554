//! A first check: bootstrap, container, health, envelopes, cleanup.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::{
    Container, Delivery, Envelope, Error, ErrorKind, Subscription, container::Coordinator,
    ports::BoxFuture,
};
use support::{PATIENCE, Server, builder, container, finish, group, next, topic, until};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn clients(server: &Server) -> Vec<String> {
    let list: String = server.command(&["CLIENT", "LIST"]);
    let name = |line: &str| -> Option<String> {
        let words = line.split(' ');
        let mut names = words.filter_map(|word| word.strip_prefix("name="));
        names.next().map(str::to_owned)
    };
    let mut names: Vec<String> = list.lines().filter_map(name).collect();
    names.retain(|name| !name.is_empty());
    names.sort();
    names
}

#[tokio::test]
async fn a_container_gives_a_bus_a_store_and_health() {
    let server = Server::start();
    let container = container(&server).await;
    assert_eq!(container.adapter_name(), "redis");
    let health = container.health().await;
    assert!(health.ok && health.bus.ok && health.kv.ok, "{health:?}");
    container.kv().set("greeting", "hello").await.unwrap();
    let greeting: Option<String> = container.kv().get("greeting").await.unwrap();
    assert_eq!(greeting.as_deref(), Some("hello"));

    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let orders = topic("orders");
    let _subscription = container
        .bus()
        .subscribe(
            &orders,
            move |Payload(text): Payload<String>, _: Delivery| {
                let _ = sender.send(text);
                async {}
            },
        )
        .await
        .unwrap();
    let envelope = Envelope::new("greeting", "hello").unwrap();
    container.bus().publish(&orders, &envelope).await.unwrap();
    assert_eq!(next(&mut received).await, "hello");
    finish(container).await;
}

#[tokio::test]
async fn connections_are_separate_named_and_gone_after_the_end() {
    let server = Server::start();
    let container = container(&server).await;
    let subscription = container
        .bus()
        .subscribe(&topic("orders"), |_: Payload<u32>, _: Delivery| async {})
        .await
        .unwrap();
    let reader = format!("redstart:sub:{}", subscription.consumer());
    drop(subscription);
    let names = clients(&server);
    for name in ["redstart:base", "redstart:pub", &reader] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} in {names:?}"
        );
    }
    container.shutdown(PATIENCE).await;
    until("the reader to be gone", async || {
        (!clients(&server).contains(&reader)).then_some(())
    })
    .await;
    drop(container);
    until("all connections to be gone", async || {
        clients(&server).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_server_connecting_fails_and_never_shows_the_password() {
    let error = Container::builder()
        .with_redis_url("redis://user:canary@127.0.0.1:1/")
        .connect()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error_text = format!("{error} {error:?}");
    assert!(!error_text.contains("canary"), "{error_text}");
    let error = Container::builder()
        .with_redis_url("http://canary@nowhere")
        .connect()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!format!("{error} {error:?}").contains("canary"));
}

#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn write(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

struct Part {
    name: &'static str,
    fails: bool,
    diary: Diary,
}

impl Coordinator for Part {
    fn name(&self) -> &str {
        self.name
    }

    fn start<'a>(
        &'a self,
        container: &'a Container,
    ) -> BoxFuture<'a, Result<Vec<Subscription>, BoxError>> {
        Box::pin(async move {
            self.diary.write(format!("start {}", self.name));
            if self.fails {
                return Err("no such table".into());
            }
            let handler = |_: Payload<u32>, _: Delivery| async {};
            let subscription = container
                .bus()
                .subscribe(&topic(self.name), handler)
                .await?;
            Ok(vec![subscription])
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.diary.write(format!("stop {}", self.name));
        Box::pin(async {})
    }
}

#[tokio::test]
async fn coordinators_start_in_order_and_stop_in_reverse() {
    let server = Server::start();
    let diary = Diary::default();
    let part = |name, fails| Part {
        name,
        fails,
        diary: diary.clone(),
    };
    let container = builder(&server)
        .with_coordinator(part("one", false))
        .with_coordinator(part("two", false))
        .connect()
        .await
        .unwrap();
    let report = container.shutdown(PATIENCE).await;
    let names: Vec<&str> = report
        .subscriptions
        .iter()
        .map(|report| report.name.as_str())
        .collect();
    assert_eq!(names, ["two/billing", "one/billing"]);
    assert_eq!(
        diary.lines(),
        ["start one", "start two", "stop two", "stop one"]
    );

    diary.0.lock().unwrap().clear();
    let error: Error = builder(&server)
        .with_coordinator(part("one", false))
        .with_coordinator(part("two", true))
        .with_coordinator(part("three", false))
        .connect()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Coordinator);
    assert_eq!(error.subject(), Some("two"));
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "no such table");
    assert_eq!(diary.lines(), ["start one", "start two", "stop one"]);
}

#[tokio::test]
async fn shutdown_ends_everything_once_and_may_be_called_again() {
    let server = Server::start();
    let container = container(&server).await;
    for name in ["a", "b", "c"] {
        let _subscription = container
            .bus()
            .subscribe(&topic(name), |_: Payload<u32>, _: Delivery| async {})
            .await
            .unwrap();
    }
    let report = container.shutdown(PATIENCE).await;
    assert!(report.is_clean());
    let names: Vec<&str> = report
        .subscriptions
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["c/billing", "b/billing", "a/billing"],
        "the newest first"
    );
    let again = container.shutdown(Duration::ZERO).await;
    assert!(again.subscriptions.is_empty());
    let left = container.topics().groups(&topic("a")).await.unwrap();
    assert_eq!(left[0].group, group("billing"));
    assert_eq!(left[0].consumers, 0);
}

/// Checked when this file compiles: the main types can be sent to other threads and shared.
const _: () = {
    const fn check<T: Send + Sync>() {}
    check::<Container>();
    check::<redstart::container::ContainerBuilder>();
    check::<redstart::Bus>();
    check::<redstart::Kv>();
    check::<redstart::dead_letters::DeadLetters>();
    check::<redstart::topics::Topics>();
    check::<redstart::retries::Retries>();
    check::<redstart::doctor::Doctor>();
    check::<redstart::migrations::Migrations>();
    check::<redstart::memory::MemoryStore>();
    check::<Subscription>();
    check::<Delivery>();
    check::<Envelope>();
    check::<Error>();
    check::<redstart::Outcome>();
    check::<Arc<dyn redstart::ports::MessageBus>>();
    check::<Arc<dyn redstart::ports::KvStore>>();
    check::<Arc<dyn redstart::store::Store>>();
};
