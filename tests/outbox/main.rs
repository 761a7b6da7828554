//! Runs the example of an outbox on PostgreSQL, and kills its relay between the publish and the commit.

#[path = "../support/cargo.rs"]
mod cargo;
mod postgres;
#[path = "../../examples/outbox/src/round.rs"]
mod round;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postgres::Postgres;
use redstart::memory::MemoryStore;
use redstart::ports::BoxFuture;
use redstart::store::LogOp;
use redstart::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use redstart::{Container, Error, ErrorKind, Topic};
use support::{Server, container, finish, signal, until};

const ORDERS: Topic = Topic::from_static("orders");

/// A running relay; dropping it kills it.
struct Relay(Child);

impl Relay {
    fn start(executable: &Path, postgres: &Postgres, redis: &Server) -> Self {
        let child = Command::new(executable)
            .env("DATABASE_URL", postgres.url())
            .env("REDSTART_REDIS_URL", redis.url())
            .env("REDSTART_NAMESPACE", "shop")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds the example, which is a package of its own, in this test's folder.
fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let output = cargo::cargo()
        .args(["build", "--quiet", "--locked", "--message-format=json"])
        .arg("--manifest-path")
        .arg(root.join("examples/outbox/Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let messages = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut of_package = messages.filter(|message: &serde_json::Value| {
        message["package_id"]
            .as_str()
            .is_some_and(|id| id.contains("outbox"))
    });
    let executable = of_package.find_map(|message| {
        assert_ne!(message["reason"], "compiler-message", "{message:#}");
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.expect("the package has a program")
}

async fn entries(container: &Container) -> Vec<(String, String)> {
    let entries = container.topics().entries_after(&ORDERS, None, 1000).await;
    let of_entry = |entry: redstart::topics::Entry| {
        let envelope = entry.envelope.unwrap();
        let payload: serde_json::Value = envelope.payload().unwrap();
        (envelope.id().to_string(), payload.to_string())
    };
    entries.unwrap().into_iter().map(of_entry).collect()
}

#[tokio::test]
async fn a_relay_killed_between_publish_and_commit_doubles_no_message() {
    let executable = build();
    let (postgres, redis) = (Postgres::start(), Server::start());
    let container = container(&redis).await;
    postgres.run(include_str!("../../examples/outbox/outbox.sql"));
    // Holds the relay where it has published and not deleted.
    postgres.run(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql \
         AS 'BEGIN PERFORM pg_sleep(3600); RETURN NULL; END'; \
         CREATE TRIGGER hold BEFORE DELETE ON outbox EXECUTE FUNCTION hold()",
    );
    let insert = "INSERT INTO outbox (topic, type, key, payload) \
         SELECT 'orders', 'order.placed', 'ann', jsonb_build_object('id', n)";
    postgres.run(&format!("{insert} FROM generate_series(1, 20) n"));

    let killed = Relay::start(&executable, &postgres, &redis);
    let holding = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    until("the relay to publish", async || {
        Some(postgres.run(holding)).filter(|pid| !pid.is_empty())
    })
    .await;
    assert_eq!(entries(&container).await.len(), 20);
    drop(killed);
    postgres.run(&format!("SELECT pg_terminate_backend(({holding}))"));
    postgres.run("DROP TRIGGER hold ON outbox");
    assert_eq!(postgres.run("SELECT count(*) FROM outbox"), "20");

    // Of these rows one has no valid topic, and one is too large.
    postgres.run(
        "INSERT INTO outbox (topic, type, payload) VALUES ('no topic', 'x', '1'), \
         ('orders', 'x', to_jsonb(repeat('x', 2000000)))",
    );
    postgres.run(&format!("{insert} FROM generate_series(21, 25) n"));
    let mut relay = Relay::start(&executable, &postgres, &redis);
    until("the relay to empty the outbox", async || {
        let waiting = postgres.run("SELECT count(*) FROM outbox WHERE error IS NULL");
        (waiting == "0").then_some(())
    })
    .await;
    let published = entries(&container).await;
    let payloads: Vec<_> = published
        .iter()
        .map(|(_, payload)| payload.as_str())
        .collect();
    let wanted: Vec<_> = (1..=25).map(|n| format!("{{\"id\":{n}}}")).collect();
    assert_eq!(
        payloads, wanted,
        "each message once, in the order of the inserts"
    );
    let errors = postgres.run("SELECT error FROM outbox ORDER BY seq");
    assert!(
        errors.contains("no topic") && errors.contains("bytes"),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 2, "{errors}");

    signal(relay.0.id(), "TERM");
    let ended = until("the relay to end", async || relay.0.try_wait().unwrap()).await;
    assert!(ended.success());
    finish(container).await;
}

/// Refuses the first publish.
#[derive(Debug, Default)]
struct RefusesOnce(AtomicBool);

impl Decorator for RefusesOnce {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let is_publish = matches!(op, Op::Log(LogOp::AppendOnce { .. }));
            if is_publish && !self.0.swap(true, Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Refused, "publish", "memory is full"));
            }
            next.run(op).await
        })
    }
}

#[tokio::test]
async fn a_row_that_fails_holds_back_the_later_rows_of_its_topic() {
    let refusing = Arc::new(RefusesOnce::default());
    let store = Decorated::new(refusing, MemoryStore::new().store(None));
    let container = Container::builder().with_store(Arc::new(store));
    let container = container.connect().await.unwrap();
    let row = |number: i64, topic: &str, payload: &str| {
        let id = format!("00000000-0000-4000-8000-{number:012}");
        let (topic, payload) = (topic.to_owned(), payload.to_owned());
        (number, id, topic, "x".to_owned(), None, payload)
    };
    let rows = [
        row(1, "orders", "{\"id\":1}"),
        row(2, "bills", "1"),
        row(3, "bills", "no JSON"),
        row(4, "orders", "{\"id\":2}"),
    ];
    let first = round::publish(&container.bus(), &rows).await;
    assert_eq!(first.published, [2]);
    assert_eq!(first.refused[0].0, 3);
    assert_eq!(first.failure.unwrap().kind(), ErrorKind::Refused);
    assert_eq!(entries(&container).await, []);
    let left = [rows[0].clone(), rows[3].clone()];
    let second = round::publish(&container.bus(), &left).await;
    assert_eq!(
        (second.published, second.failure.is_none()),
        (vec![1, 4], true)
    );
    let payloads = entries(&container)
        .await
        .into_iter()
        .map(|(_, payload)| payload);
    let payloads: Vec<_> = payloads.collect();
    assert_eq!(payloads, ["{\"id\":1}", "{\"id\":2}"]);
}
