//! The connection is cut at every point of a publish: the reported result must be true.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redstart::{
    Container, Durability, Envelope, Error, ErrorKind, PublishOptions, Published, Topic,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Server, builder, finish, topic, until};

/// Where a publish is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// After this many bytes of the request have reached the server.
    Command(usize),
    /// The server has answered, and this many bytes of the answer reach the client.
    Reply(usize),
}

/// Forwards all traffic and cuts the publisher's connection on request.
pub(crate) struct Proxy {
    pub(crate) url: String,
    plan: Arc<Mutex<Plan>>,
}

/// What the proxy does after the last cut.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum After {
    #[default]
    Forward,
    /// It answers each command of a publisher: the server is loading.
    Loading,
    /// It accepts connections and forwards nothing.
    Silent,
    /// It closes each new connection.
    Refused,
}

#[derive(Default)]
struct Plan {
    /// One for each time that the publisher sends something.
    cuts: VecDeque<Cut>,
    /// The length of the last command that was passed on whole.
    length: usize,
    after: After,
    /// How often the proxy has done what it does after the last cut.
    disturbed: usize,
}

impl Plan {
    /// Whether the proxy now disturbs in this way.
    fn disturbs(&mut self, how: After) -> bool {
        let disturbs = self.cuts.is_empty() && self.after == how;
        self.disturbed += usize::from(disturbs);
        disturbs
    }
}

impl Proxy {
    async fn before(server: &Server) -> Self {
        Self::to(server.port()).await
    }

    /// Forwards to a port of this machine.
    pub(crate) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/", listener.local_addr().unwrap());
        let plan = Arc::new(Mutex::new(Plan::default()));
        let shared = Arc::clone(&plan);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let plan = Arc::clone(&shared);
                if plan.lock().unwrap().disturbs(After::Refused) {
                    continue;
                }
                tokio::spawn(async move {
                    while plan.lock().unwrap().disturbs(After::Silent) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await {
                        let _ = pass(client, server, &plan).await;
                    }
                });
            }
        });
        Self { url, plan }
    }

    pub(crate) fn cut(&self, cuts: impl IntoIterator<Item = Cut>) {
        self.plan.lock().unwrap().cuts = cuts.into_iter().collect();
    }

    /// Which cuts were not used.
    pub(crate) fn left(&self) -> usize {
        self.plan.lock().unwrap().cuts.len()
    }

    /// Cuts the next reply, and then disturbs.
    pub(crate) fn cut_and(&self, after: After) {
        let mut plan = self.plan.lock().unwrap();
        (plan.cuts, plan.after, plan.disturbed) = ([Cut::Reply(0)].into(), after, 0);
    }

    pub(crate) fn calm(&self) {
        self.plan.lock().unwrap().after = After::Forward;
    }

    pub(crate) fn disturbed(&self) -> usize {
        self.plan.lock().unwrap().disturbed
    }

    pub(crate) fn length(&self) -> usize {
        self.plan.lock().unwrap().length
    }
}

/// Until either side or a cut ends it.
async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    plan: &Mutex<Plan>,
) -> std::io::Result<()> {
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut publisher = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let sent = &up[..read?];
                if sent.is_empty() {
                    return Ok(());
                }
                if publisher && plan.lock().unwrap().disturbs(After::Loading) {
                    client.write_all(b"-LOADING for a while\r\n").await?;
                    continue;
                }
                let cut = match publisher {
                    true => plan.lock().unwrap().cuts.pop_front(),
                    false => None,
                };
                match cut {
                    None => {
                        server.write_all(sent).await?;
                        plan.lock().unwrap().length = sent.len();
                    }
                    Some(Cut::Command(bytes)) => {
                        server.write_all(&sent[..bytes.min(sent.len())]).await?;
                        return Ok(());
                    }
                    Some(Cut::Reply(bytes)) => {
                        server.write_all(sent).await?;
                        let got = server.read(&mut down).await?;
                        client.write_all(&down[..bytes.min(got)]).await?;
                        return Ok(());
                    }
                }
                let sent = String::from_utf8_lossy(sent);
                publisher |= ["redstart:pub", "redstart:durable"]
                    .iter()
                    .any(|name| sent.contains(name));
            }
            read = server.read(&mut down) => {
                let got = read?;
                if got == 0 {
                    return Ok(());
                }
                client.write_all(&down[..got]).await?;
            }
        }
    }
}

async fn start(server: &Server) -> (Proxy, Container) {
    let proxy = Proxy::before(server).await;
    let container = builder(server)
        .with_redis_url(&proxy.url)
        .connect()
        .await
        .unwrap();
    (proxy, container)
}

pub(crate) fn entries(server: &Server) -> Vec<(String, redis::Value)> {
    server.command(&["XRANGE", "{shop:orders}:log", "-", "+"])
}

fn once() -> PublishOptions {
    PublishOptions::new().with_deduplication(Duration::from_secs(3600))
}

pub(crate) async fn publish(
    container: &Container,
    on: &Topic,
    options: PublishOptions,
) -> (Envelope, Result<Published, Error>) {
    let envelope = Envelope::new("n", &7).unwrap();
    let result = container.bus().publish_with(on, &envelope, options).await;
    (envelope, result)
}

#[tokio::test]
async fn every_result_is_true_at_every_cut() {
    let server = Server::start();
    let (proxy, container) = start(&server).await;
    let orders = topic("orders");
    publish(&container, &orders, PublishOptions::new())
        .await
        .1
        .unwrap();
    let length = proxy.length();
    assert!(length > 100, "the publish itself was seen");
    let commands = (0..=length).map(Cut::Command);
    let replies = (0..20).map(Cut::Reply);
    for cut in commands.chain(replies) {
        let before = entries(&server).len();
        proxy.cut([cut]);
        let (_, result) = publish(&container, &orders, PublishOptions::new()).await;
        assert_eq!(proxy.left(), 0, "{cut:?}: it was cut");
        let error = result.expect_err("no whole reply came");
        assert_eq!(
            error.kind(),
            ErrorKind::OutcomeUnknown,
            "{cut:?}: {error:?}"
        );
        assert_eq!(error.subject(), Some("orders"));
        // The whole command may be read after the connection is closed.
        let (_, next) = publish(&container, &orders, PublishOptions::new()).await;
        next.unwrap();
        let added = entries(&server).len() - before - 1;
        match cut {
            Cut::Command(bytes) if bytes < length => assert_eq!(added, 0, "{cut:?}"),
            Cut::Command(_) => assert!(added <= 1),
            Cut::Reply(_) => assert_eq!(added, 1, "{cut:?}"),
        }
    }
    finish(container).await;
}

#[tokio::test]
async fn without_a_connection_publish_reports_that_nothing_was_published() {
    let mut server = Server::start();
    let container = builder(&server).connect().await.unwrap();
    let orders = topic("orders");
    publish(&container, &orders, once()).await.1.unwrap();
    server.kill();
    // The connection still looks whole to the first one, which cannot know.
    let (_, result) = publish(&container, &orders, PublishOptions::new()).await;
    assert!(result.unwrap_err().is_retryable());
    for options in [PublishOptions::new(), once()] {
        let (_, result) = publish(&container, &orders, options).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    server.start_again();
    assert_eq!(entries(&server).len(), 1);
    finish(container).await;
}

#[tokio::test]
async fn with_deduplication_every_cut_is_retried_and_a_duplicate_adds_nothing() {
    let server = Server::start();
    let (proxy, container) = start(&server).await;
    let orders = topic("orders");
    publish(&container, &orders, once()).await.1.unwrap();
    let length = proxy.length();
    let commands = (0..=length).step_by(length / 12).map(Cut::Command);
    let replies = [0, 1, 5, 15].map(Cut::Reply);
    for (done, cut) in (1..).zip(commands.chain(replies)) {
        proxy.cut([cut]);
        let (envelope, result) = publish(&container, &orders, once()).await;
        assert_eq!(proxy.left(), 0, "{cut:?}: it was cut");
        let published = result.unwrap();
        let held = entries(&server);
        assert_eq!(held.len(), done + 1, "{cut:?}");
        assert_eq!(held[done].0, published.id.to_string());
        if let Cut::Reply(_) = cut {
            assert!(published.duplicate, "the first try had added it");
        }
        let again = container
            .bus()
            .publish_with(&orders, &envelope, once())
            .await;
        let again = again.unwrap();
        assert!(again.duplicate);
        assert_eq!(again.id, published.id);
        assert_eq!(entries(&server).len(), done + 1, "{cut:?}");
    }
    finish(container).await;
}

#[tokio::test]
async fn a_publish_stays_unknown_when_no_retry_gets_through() {
    // A server that is killed keeps what it has answered: with `everysec` a slow disk can delay the write.
    let mut server = Server::start_with(&["--appendfsync", "always"]);
    let (proxy, container) = start(&server).await;
    let orders = topic("orders");
    publish(&container, &orders, once()).await.1.unwrap();
    // Appended by the first try, and never heard of.
    proxy.cut([Cut::Reply(0); 5]);
    let (envelope, result) = publish(&container, &orders, once()).await;
    assert_eq!(proxy.left(), 0, "five tries");
    assert_eq!(result.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(entries(&server).len(), 2);
    let again = container
        .bus()
        .publish_with(&orders, &envelope, once())
        .await;
    assert!(again.unwrap().duplicate);
    // The first try is unknown. The later tries certainly fail, which proves nothing about the first.
    proxy.cut([Cut::Reply(0)]);
    let bus = container.bus();
    let envelope = Envelope::new("n", &7).unwrap();
    let publishing = bus.publish_with(&orders, &envelope, once());
    let killing = async {
        while proxy.left() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill();
    };
    let (result, ()) = tokio::join!(publishing, killing);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    server.start_again();
    let again = bus.publish_with(&orders, &envelope, once()).await;
    assert!(again.unwrap().duplicate);
    assert_eq!(entries(&server).len(), 3);
    finish(container).await;
}

/// The first try is appended and its reply is cut. The second try finds no way to the server before
/// the window has ended.
async fn no_try_reaches_the_server_after_the_window(after: After, level: Durability) {
    const WINDOW: Duration = Duration::from_secs(1);
    let server = Server::start_with(&["--repl-diskless-sync-delay", "0"]);
    let primary = format!("127.0.0.1 {}", server.port());
    let _replica = Server::start_with(&["--replicaof", &primary]);
    let (proxy, container) = start(&server).await;
    let orders = topic("orders");
    let options = PublishOptions::new()
        .with_deduplication(WINDOW)
        .with_durability(level);
    until("the replica", async || {
        publish(&container, &orders, options).await.1.ok()
    })
    .await;
    // On a busy machine the first half of a window may end before the second try.
    until("a second try", async || {
        let before = entries(&server).len();
        proxy.cut_and(after);
        let publishing = publish(&container, &orders, options);
        let ending = async {
            until("the end of the window", async || {
                let held = entries(&server);
                let added = held.get(before)?.0.split_once('-')?.0.parse().ok()?;
                let now: (u64, u64) = server.command(&["TIME"]);
                let passed = (now.0 * 1000 + now.1 / 1000).checked_sub(added)?;
                (u128::from(passed) > WINDOW.as_millis()).then_some(())
            })
            .await;
            let disturbed = proxy.disturbed();
            proxy.calm();
            disturbed
        };
        let ((_, result), disturbed) = tokio::join!(publishing, ending);
        // A command that still waited for its connection would reach the server before this one.
        publish(&container, &orders, options).await.1.unwrap();
        assert_eq!(entries(&server).len(), before + 2, "{result:?}");
        assert_eq!(result.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        (disturbed > 0).then_some(())
    })
    .await;
    finish(container).await;
}

#[tokio::test]
async fn no_try_reaches_a_server_that_loads_until_the_window_has_ended() {
    no_try_reaches_the_server_after_the_window(After::Loading, Durability::Accepted).await;
}

#[tokio::test]
async fn no_try_reaches_a_server_whose_connection_comes_after_the_window() {
    let replicated = Durability::replicated(1, Durability::MAX_TIMEOUT);
    for level in [Durability::Accepted, replicated] {
        no_try_reaches_the_server_after_the_window(After::Silent, level).await;
    }
}

#[tokio::test]
async fn a_long_batch_keeps_its_order_through_cuts() {
    let server = Server::start();
    let (proxy, container) = start(&server).await;
    let orders = topic("orders");
    publish(&container, &orders, once()).await.1.unwrap();
    let all: Vec<Envelope> = (0..1700).map(|n| Envelope::new("n", &n).unwrap()).collect();
    // A batch is longer than one read of the proxy: cuts hit the first and what follows.
    proxy.cut([Cut::Command(1000), Cut::Command(64 * 1024), Cut::Command(9)]);
    let results = container
        .bus()
        .publish_all_with(&orders, &all, once())
        .await;
    assert_eq!(proxy.left(), 0);
    let ids: Vec<String> = results
        .into_iter()
        .map(|one| one.unwrap().id.to_string())
        .collect();
    let held = entries(&server).into_iter().skip(1);
    assert_eq!(held.map(|(id, _)| id).collect::<Vec<_>>(), ids);
    finish(container).await;
}

#[tokio::test]
async fn scripts_that_vanish_are_loaded_again() {
    let server = Server::start();
    let container = builder(&server)
        .with_deduplication(Duration::from_secs(3600))
        .connect()
        .await
        .unwrap();
    let orders = topic("orders");
    for n in 0..5_usize {
        let _: String = server.command(&["SCRIPT", "FLUSH", "SYNC"]);
        let envelope = Envelope::new("n", &7).unwrap();
        let first = container.bus().publish(&orders, &envelope).await.unwrap();
        let _: String = server.command(&["SCRIPT", "FLUSH", "SYNC"]);
        let again = container.bus().publish(&orders, &envelope).await.unwrap();
        assert!(!first.duplicate && again.duplicate);
        assert_eq!(entries(&server).len(), n + 1);
    }
    finish(container).await;
}
