//! Subscriptions that share a connection, and the doorbell that tells them of messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::topics::Reading;
use redstart::{Container, SubscribeOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::roles::Roles;
use crate::support::{
    Server, builder, container, drained, finish, group, next, publish, topic, until,
};

fn shared() -> SubscribeOptions {
    SubscribeOptions::new().with_reading(Reading::Shared)
}

/// Subscribes to a topic. The receiver gets each message.
async fn listen(
    container: &Container,
    name: &str,
    options: SubscribeOptions,
) -> UnboundedReceiver<u32> {
    let (sender, received) = unbounded_channel();
    let handler = move |Payload(number): Payload<u32>| {
        let _ = sender.send(number);
        async {}
    };
    let (bus, topic) = (container.bus(), topic(name));
    let _ = bus.subscribe_with(&topic, options, handler).await.unwrap();
    received
}

/// The ids of the connections whose name begins so.
pub(crate) fn connections(server: &Server, name: &str) -> Vec<String> {
    let list: String = server.command(&["CLIENT", "LIST"]);
    let of = |line: &str| {
        let id = line.strip_prefix("id=")?.split(' ').next()?.to_owned();
        line.contains(&format!(" name={name}")).then_some(id)
    };
    list.lines().filter_map(of).collect()
}

#[tokio::test]
async fn the_first_eight_subscriptions_have_connections_and_the_others_share_one() {
    let server = Server::start();
    let container = container(&server).await;
    let mut all = Vec::new();
    for number in 0..40 {
        let name = format!("orders-{number}");
        all.push(listen(&container, &name, SubscribeOptions::new()).await);
    }
    for number in 0..40 {
        let name = format!("orders-{number}");
        publish(&container, &topic(&name), number..number + 1).await;
        assert_eq!(next(&mut all[number as usize]).await, number);
    }
    assert_eq!(connections(&server, "redstart:sub").len(), 8);
    assert_eq!(connections(&server, "redstart:bell").len(), 1);
    assert!(connections(&server, "redstart:read").len() <= 1);
    assert!(connections(&server, "redstart:").len() <= 32);
    finish(container).await;
}

#[tokio::test]
async fn a_burst_longer_than_a_read_arrives_completely() {
    let server = Server::start();
    let container = container(&server).await;
    let mut received = listen(&container, "orders", shared()).await;
    publish(&container, &topic("orders"), 0..1_000).await;
    let mut numbers = Vec::new();
    for _ in 0..1_000 {
        numbers.push(next(&mut received).await);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
    drained(&container, &topic("orders"), &group("billing")).await;
    finish(container).await;
}

#[tokio::test]
async fn a_killed_bell_loses_no_message() {
    let server = Server::start();
    let container = container(&server).await;
    let mut received = listen(&container, "orders", shared()).await;
    for number in 0..20 {
        let bells = until("a bell", async || {
            let bells = connections(&server, "redstart:bell");
            (!bells.is_empty()).then_some(bells)
        })
        .await;
        for bell in bells {
            // It may have gone by itself.
            let _: i64 = server.command(&["CLIENT", "KILL", "ID", &bell]);
        }
        publish(&container, &topic("orders"), number..number + 1).await;
        let got = tokio::time::timeout(Duration::from_secs(30), received.recv()).await;
        assert_eq!(
            got.expect("a message after its bell was killed"),
            Some(number)
        );
    }
    finish(container).await;
}

/// The connection that hears also carries the reads.
#[tokio::test]
async fn a_killed_bell_that_reads_all_the_time_loses_no_message() {
    let server = Server::start();
    let (container, publisher) = (container(&server).await, container(&server).await);
    let mut received = listen(&container, "quiet", shared()).await;
    let mut busy = listen(&container, "busy", shared()).await;
    let publishing = tokio::spawn(async move {
        for number in 0.. {
            publish(&publisher, &topic("busy"), number..number + 1).await;
        }
    });
    let (sender, mut was_busy) = unbounded_channel();
    let reading = tokio::spawn(async move {
        while let Some(number) = busy.recv().await {
            let _ = sender.send(number);
        }
    });
    for number in 0..3 {
        publish(&container, &topic("quiet"), number..number + 1).await;
        let got = tokio::time::timeout(Duration::from_secs(30), received.recv()).await;
        assert_eq!(got.expect("a message of the quiet topic"), Some(number));
        while was_busy.try_recv().is_ok() {}
        for id in connections(&server, "redstart:bell") {
            let _: i64 = server.command(&["CLIENT", "KILL", "ID", &id]);
        }
        next(&mut was_busy).await;
    }
    publishing.abort();
    reading.abort();
    finish(container).await;
}

/// The server remembers for each key the connections that have read it, until the key changes.
#[tokio::test]
async fn the_server_forgets_connections_that_have_ended() {
    let server = Server::start();
    let container = container(&server).await;
    let _idle = listen(&container, "orders", shared()).await;
    let remembered = || {
        let stats: String = server.command(&["INFO", "stats"]);
        let mut lines = stats.lines();
        let items = lines.find_map(|line| line.strip_prefix("tracking_total_items:"));
        items.unwrap().trim().parse::<u64>().unwrap()
    };
    let bell = || connections(&server, "redstart:bell");
    let (mut killed, mut most) = (Vec::new(), 0);
    for _ in 0..400 {
        let next = until("a new bell", async || {
            let next = bell();
            (next.len() == 1 && next != killed).then_some(next)
        })
        .await;
        let before = remembered();
        if before < most {
            finish(container).await;
            return;
        }
        most = before;
        let _: i64 = server.command(&["CLIENT", "KILL", "ID", &next[0]]);
        killed = next;
    }
    panic!("the server remembers {most} connections of keys");
}

#[tokio::test]
async fn a_group_that_a_flush_took_comes_back() {
    let server = Server::start();
    let container = container(&server).await;
    let mut received = listen(&container, "orders", shared()).await;
    publish(&container, &topic("orders"), 1..2).await;
    assert_eq!(next(&mut received).await, 1);
    let _: String = server.command(&["FLUSHALL"]);
    until("the group to be there again", async || {
        let exists: i64 = server.command(&["EXISTS", "{shop:orders}:log"]);
        (exists == 1).then_some(())
    })
    .await;
    publish(&container, &topic("orders"), 2..3).await;
    assert_eq!(next(&mut received).await, 2);
    finish(container).await;
}

/// A container whose user has all rights but these.
async fn limited(server: &Server, without: &[&str]) -> Container {
    let all = [
        "ACL", "SETUSER", "limited", "on", "nopass", "~*", "&*", "+@all",
    ];
    let _: String = server.command(&[&all[..], without].concat());
    let url = server.url().replace("redis://", "redis://limited:any@");
    let limited = builder(server).with_redis_url(url).connect().await;
    limited.unwrap()
}

/// Without the right to listen every subscription reads on its own connection.
#[tokio::test]
async fn a_user_that_may_not_listen_reads_on_connections_of_its_own() {
    let server = Server::start();
    let container = limited(&server, &["-client|tracking"]).await;
    let mut all = Vec::new();
    for number in 0..12 {
        all.push(listen(&container, &format!("orders-{number}"), shared()).await);
    }
    for number in 0..12 {
        let name = format!("orders-{number}");
        publish(&container, &topic(&name), number..number + 1).await;
        assert_eq!(next(&mut all[number as usize]).await, number);
    }
    assert_eq!(connections(&server, "redstart:sub").len(), 12);
    assert_eq!(connections(&server, "redstart:read").len(), 0);
    finish(container).await;
}

#[tokio::test]
async fn the_consumers_role_may_listen() {
    let roles = Roles::start().await;
    let consumer = roles.container("consumer", "billing").await;
    let mut received = listen(&consumer, "orders", shared()).await;
    let producer = roles.container("producer", "web").await;
    publish(&producer, &topic("orders"), 1..2).await;
    assert_eq!(next(&mut received).await, 1);
    assert_eq!(connections(&roles.server, "redstart:bell").len(), 1);
    assert_eq!(connections(&roles.server, "redstart:sub").len(), 0);
    assert_eq!(roles.denied(), [""; 0]);
    finish(consumer).await;
    finish(producer).await;
}

/// A right that is taken away while subscriptions run.
#[tokio::test]
async fn a_user_that_loses_the_right_to_listen_goes_on_with_connections_of_its_own() {
    let server = Server::start();
    let container = limited(&server, &[]).await;
    let mut received = listen(&container, "orders", shared()).await;
    publish(&container, &topic("orders"), 1..2).await;
    assert_eq!(next(&mut received).await, 1);
    let _: String = server.command(&["ACL", "SETUSER", "limited", "-client|tracking"]);
    for bell in connections(&server, "redstart:bell") {
        let _: i64 = server.command(&["CLIENT", "KILL", "ID", &bell]);
    }
    until("a connection of its own", async || {
        (connections(&server, "redstart:sub").len() == 1).then_some(())
    })
    .await;
    publish(&container, &topic("orders"), 2..3).await;
    assert_eq!(next(&mut received).await, 2);
    finish(container).await;
}

/// Passes connections on to a server. Those that listen for changes fall silent at a call, and stay open.
struct Muffler {
    port: u16,
    generation: Arc<AtomicUsize>,
}

impl Muffler {
    async fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, to) = (listener.local_addr().unwrap().port(), server.port());
        let generation = Arc::<AtomicUsize>::default();
        let current = Arc::clone(&generation);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let (generation, born) = (Arc::clone(&current), current.load(Ordering::SeqCst));
                tokio::spawn(pass_on(client, server, generation, born));
            }
        });
        Self { port, generation }
    }

    /// Silences the connections that are open now.
    fn muffle(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

async fn pass_on(
    client: TcpStream,
    server: TcpStream,
    generation: Arc<AtomicUsize>,
    born: usize,
) -> std::io::Result<()> {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let listens = Arc::<AtomicBool>::default();
    let heard = Arc::clone(&listens);
    let forth = async move {
        let mut bytes = vec![0; 65_536];
        loop {
            let length = from_client.read(&mut bytes).await?;
            if length == 0 {
                return Err::<(), _>(std::io::ErrorKind::UnexpectedEof.into());
            }
            if bytes[..length].windows(8).any(|word| word == b"TRACKING") {
                listens.store(true, Ordering::SeqCst);
            }
            to_server.write_all(&bytes[..length]).await?;
        }
    };
    let back = async move {
        let mut bytes = vec![0; 65_536];
        loop {
            let length = from_server.read(&mut bytes).await?;
            if length == 0 {
                return Err::<(), _>(std::io::ErrorKind::UnexpectedEof.into());
            }
            let is_old = generation.load(Ordering::SeqCst) > born;
            if !(is_old && heard.load(Ordering::SeqCst)) {
                to_client.write_all(&bytes[..length]).await?;
            }
        }
    };
    tokio::try_join!(forth, back).map(drop)
}

/// The server's count of XREADGROUP, as it prints it.
fn reads(server: &Server) -> Option<String> {
    let stats: String = server.command(&["INFO", "commandstats"]);
    let of = |line: &str| {
        let rest = line.strip_prefix("cmdstat_xreadgroup:calls=")?;
        rest.split(',').next().map(str::to_owned)
    };
    stats.lines().find_map(of)
}

#[tokio::test]
async fn a_bell_that_falls_silent_is_noticed_and_loses_no_message() {
    let server = Server::start();
    let muffler = Muffler::before(&server).await;
    let url = format!("redis://127.0.0.1:{}", muffler.port);
    let container = builder(&server)
        .with_redis_url(url)
        .connect()
        .await
        .unwrap();
    let mut received = listen(&container, "orders", shared()).await;
    for number in 0..2 {
        publish(&container, &topic("orders"), number..number + 1).await;
        let got = tokio::time::timeout(Duration::from_secs(30), received.recv()).await;
        assert_eq!(
            got.expect("a message before the look of every minute"),
            Some(number)
        );
        // A ring of this message may still make the reader look.
        until("the reader to rest", async || {
            let before = reads(&server);
            tokio::time::sleep(Duration::from_millis(300)).await;
            (reads(&server) == before).then_some(())
        })
        .await;
        muffler.muffle();
    }
    finish(container).await;
}

/// A process that only listens must not be the last to look: what another process held and gave back is
/// taken over although nothing rings.
#[tokio::test]
async fn a_quiet_subscription_takes_over_what_another_process_held() {
    let server = Server::start();
    let (one, two) = (container(&server).await, container(&server).await);
    let (sender, mut began) = unbounded_channel();
    let options = shared().with_lease(Duration::from_millis(500));
    let stuck = move |Payload(number): Payload<u32>| {
        let _ = sender.send(number);
        std::future::pending::<()>()
    };
    let (orders, bus) = (topic("orders"), one.bus());
    let first = bus
        .subscribe_with(&orders, options.clone(), stuck)
        .await
        .unwrap();
    publish(&one, &orders, 7..8).await;
    assert_eq!(next(&mut began).await, 7);
    let mut received = listen(&two, "orders", options).await;
    // Its deliveries go back to the group, which rings nobody.
    let _ = first.unsubscribe(Duration::ZERO).await;
    assert_eq!(next(&mut received).await, 7);
    finish(one).await;
    finish(two).await;
}

#[tokio::test]
async fn messages_arrive_where_the_server_can_watch_too_few_keys_and_the_doctor_warns() {
    let server = Server::start_with(&["--tracking-table-max-keys", "4"]);
    let container = container(&server).await;
    let mut all = Vec::new();
    for number in 0..4 {
        all.push(listen(&container, &format!("orders-{number}"), shared()).await);
    }
    let warned = async || {
        let report = builder(&server).doctor().unwrap().run().await;
        let mut findings = report.findings.into_iter();
        findings.find(|one| one.check == "notices")
    };
    let finding = until("the doctor to warn", warned).await;
    assert!(
        finding
            .what
            .ends_with("of at most 4, tracking-table-max-keys"),
        "{}",
        finding.what
    );
    for number in 0..4 {
        let topic = topic(&format!("orders-{number}"));
        publish(&container, &topic, number..number + 1).await;
    }
    for (number, received) in (0..).zip(&mut all) {
        assert_eq!(next(received).await, number);
    }
    let _: () = server.command(&["CONFIG", "SET", "tracking-table-max-keys", "1000000"]);
    until("the doctor to be content", async || {
        warned().await.is_none().then_some(())
    })
    .await;
    finish(container).await;
}
