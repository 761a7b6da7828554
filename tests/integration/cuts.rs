//! The connection is cut at every point of a publish: the reported result must be true.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redstart::{Container, Envelope, Error, ErrorKind, PublishOptions, Published, Topic};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Server, builder, finish, topic};

/// Where a publish is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// After this many bytes of the request have reached the server.
    Command(usize),
    /// The server has answered, and this many bytes of the answer reach the client.
    Reply(usize),
}

/// Forwards all traffic and cuts the publisher's connection on request.
struct Proxy {
    url: String,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    /// One for each time that the publisher sends something.
    cuts: VecDeque<Cut>,
    /// The length of the last command that was passed on whole.
    length: usize,
}

impl Proxy {
    async fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/", listener.local_addr().unwrap());
        let plan = Arc::new(Mutex::new(Plan::default()));
        let (target, shared) = (server.port(), Arc::clone(&plan));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let plan = Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await {
                        let _ = pass(client, server, &plan).await;
                    }
                });
            }
        });
        Self { url, plan }
    }

    fn cut(&self, cuts: impl IntoIterator<Item = Cut>) {
        self.plan.lock().unwrap().cuts = cuts.into_iter().collect();
    }

    /// Which cuts were not used.
    fn left(&self) -> usize {
        self.plan.lock().unwrap().cuts.len()
    }

    fn length(&self) -> usize {
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
                let name = b"redstart:pub";
                publisher |= sent.windows(name.len()).any(|part| part == name);
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

fn entries(server: &Server) -> Vec<(String, redis::Value)> {
    server.command(&["XRANGE", "{shop:orders}:log", "-", "+"])
}

fn once() -> PublishOptions {
    PublishOptions::new().with_deduplication(Duration::from_secs(3600))
}

async fn publish(
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
    let mut server = Server::start();
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
