//! A member of the group: this program, started again.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, Script};
use redstart::extract::Payload;
use redstart::ownership::Ownership;
use redstart::{Container, Delivery, Namespace, Outcome, RetryPolicy, SubscribeOptions};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::support::worker::{END, Worker, orders, say};
use crate::support::{finish, group, topic};

/// A member that a busy machine holds up for longer loses its partitions, as if the test had stopped it.
pub(crate) const LEASE: Duration = Duration::from_millis(1500);
const ENVIRONMENT: &str = "REDSTART_OWNED_MEMBER";

/// What the handlers of a member do from now on. Each order is also what the member says when it obeys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    Fast,
    Slow,
    /// They return at the next order.
    Waiting,
    /// The next one ends the process as soon as it has noted its beginning.
    Deadly,
}

impl Pace {
    pub(crate) const fn order(self) -> &'static str {
        match self {
            Self::Fast => "be fast",
            Self::Slow => "be slow",
            Self::Waiting => "wait",
            Self::Deadly => "die",
        }
    }

    fn of(order: &str) -> Self {
        let all = [Self::Fast, Self::Slow, Self::Waiting, Self::Deadly];
        let pace = all.into_iter().find(|one| one.order() == order);
        pace.unwrap_or_else(|| panic!("not an order: {order}"))
    }
}

/// Where members work, and where they note what they do.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    /// The server of the bus.
    pub(crate) url: String,
    pub(crate) namespace: String,
    /// The server of the history. It does not fail.
    pub(crate) history: String,
}

/// Notes an event, unless a later owner of the partition has noted one: what every user of the fence does
/// with data of their own.
const NOTE: &str = "
local fence = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if tonumber(ARGV[2]) < fence then
  redis.call('RPUSH', KEYS[1], 'stale ' .. ARGV[3] .. ' ' .. ARGV[2])
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('RPUSH', KEYS[1], ARGV[3] .. ' ' .. ARGV[2])
return 1
";

/// Not a test: the program that the tests start as their members.
#[test]
fn member_process() {
    let Ok(setting) = std::env::var(ENVIRONMENT) else {
        return;
    };
    let words: Vec<&str> = setting.split(' ').collect();
    let [url, namespace, history, number] = words[..] else {
        panic!("not a member: {setting}");
    };
    let number: u32 = number.parse().unwrap();
    let mut orders = orders();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = redis::Client::open(history).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        let container = Container::builder()
            .with_redis_url(url)
            .with_namespace(Namespace::new(namespace).unwrap())
            .with_service(group("billing"))
            .connect()
            .await
            .unwrap();
        let options = SubscribeOptions::new()
            .with_concurrency(8)
            .with_retry(RetryPolicy::fixed(Duration::from_millis(1)).with_max_attempts(100))
            .with_ownership(Ownership::new().with_lease(LEASE));
        let (pace, of_handlers) = watch::channel(Pace::Fast);
        let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
            let (mut connection, dying) = (connection.clone(), connection.clone());
            let mut pace = of_handlers.clone();
            async move {
                let Some(fence) = delivery.fence() else {
                    return Outcome::dead_letter("no fence");
                };
                let attempt = delivery.attempt();
                let mut note = async |what: &str| -> bool {
                    let text = format!("{what} {n} {attempt} {number}");
                    loop {
                        let noted: redis::RedisResult<bool> = Script::new(NOTE)
                            .key("history")
                            .key("fences")
                            .arg(fence.partition)
                            .arg(fence.token)
                            .arg(&text)
                            .invoke_async(&mut connection)
                            .await;
                        // A process that stood still may note an event twice.
                        if let Ok(noted) = noted {
                            return noted;
                        }
                    }
                };
                if !note("begin").await {
                    return Outcome::retry("another process owns the partition");
                }
                let now = *pace.borrow();
                match now {
                    Pace::Fast => {
                        let micros = fastrand::u64(0..16_000);
                        tokio::time::sleep(Duration::from_micros(micros)).await;
                    }
                    Pace::Slow => tokio::time::sleep(Duration::from_millis(300)).await,
                    Pace::Waiting => {
                        let changed = pace.wait_for(|pace| *pace != Pace::Waiting).await;
                        changed.unwrap();
                    }
                    Pace::Deadly => die(dying, number).await,
                }
                let fails = n % 50 == 7 && attempt == 1;
                match note(if fails { "fail" } else { "end" }).await {
                    true if fails => Outcome::retry("not yet"),
                    true => Outcome::Ack,
                    false => Outcome::retry("another process owns the partition"),
                }
            }
        };
        let bus = container.bus();
        let _subscription = bus
            .subscribe_with(&topic("orders"), options, handler)
            .await
            .unwrap();
        while let Some(order) = orders.recv().await {
            if order == END {
                finish(container).await;
                std::process::exit(0);
            }
            pace.send_replace(Pace::of(&order));
            say(&order);
        }
    });
}

/// Notes that this process dies, and ends it.
async fn die(mut connection: MultiplexedConnection, number: u32) {
    let noted: Result<u32, _> = connection.rpush("history", format!("kill {number}")).await;
    noted.unwrap();
    std::process::abort();
}

pub(crate) fn start(
    ground: &Ground,
    number: u32,
    sender: &UnboundedSender<(u32, String)>,
) -> Worker {
    let Ground {
        url,
        namespace,
        history,
    } = ground;
    let setting = format!("{url} {namespace} {history} {number}");
    let arguments = ["member::member_process", "--exact", "--nocapture"];
    Worker::start(
        &arguments,
        &[(ENVIRONMENT, &setting)],
        number,
        sender.clone(),
    )
}
