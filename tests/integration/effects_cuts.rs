//! The connection is cut at every point of a commit: each effect happens once all the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use redstart::extract::Payload;
use redstart::store::{
    DeliveryId, Effect, EffectCommit, EffectFate, Member, NewEntry, Opening, Partition, Session,
    StartFrom, Store,
};
use redstart::topics::ConsumerName;
use redstart::{Container, Effects, Envelope, Error, SubscribeOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Server, builder, container, finish, group, publish, status, topic, until};

/// Where a call of a script is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// After this many bytes of the request have reached the server.
    Request(usize),
    /// The server has answered, and this many bytes of the answer reach the client.
    Answer(usize),
    /// The network keeps the request for later.
    Late,
}

#[derive(Default)]
struct Plan {
    cuts: VecDeque<Cut>,
    /// The length of the last call that passed, and of its answer.
    lengths: (usize, usize),
    /// The connections with requests that the network keeps.
    late: Vec<(TcpStream, Vec<u8>)>,
}

/// Passes all traffic on, and cuts calls of scripts on request.
struct Proxy {
    url: String,
    plan: Arc<Mutex<Plan>>,
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

    fn cut(&self, cut: Cut) {
        self.plan.lock().unwrap().cuts.push_back(cut);
    }

    fn waits(&self) -> bool {
        !self.plan.lock().unwrap().cuts.is_empty()
    }

    /// Lets the requests arrive that the network keeps, and waits for their answers.
    async fn arrive(&self) -> Vec<String> {
        let late = std::mem::take(&mut self.plan.lock().unwrap().late);
        let mut answers = Vec::new();
        for (mut server, request) in late {
            server.write_all(&request).await.unwrap();
            let mut answer = vec![0; 64 * 1024];
            let got = server.read(&mut answer).await.unwrap();
            answers.push(String::from_utf8_lossy(&answer[..got]).into_owned());
        }
        answers
    }

    fn lengths(&self) -> (usize, usize) {
        self.plan.lock().unwrap().lengths
    }
}

/// Until either side or a cut ends it.
async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    plan: &Mutex<Plan>,
) -> std::io::Result<()> {
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let sent = &up[..read?];
                if sent.is_empty() {
                    return Ok(());
                }
                let calls = sent.windows(7).any(|part| part == b"EVALSHA");
                let cut = match calls {
                    true => plan.lock().unwrap().cuts.pop_front(),
                    false => None,
                };
                match cut {
                    None => server.write_all(sent).await?,
                    Some(Cut::Request(bytes)) => {
                        server.write_all(&sent[..bytes.min(sent.len())]).await?;
                        return Ok(());
                    }
                    Some(Cut::Late) => {
                        plan.lock().unwrap().late.push((server, sent.to_vec()));
                        return Ok(());
                    }
                    Some(Cut::Answer(bytes)) => {
                        server.write_all(sent).await?;
                        let got = server.read(&mut down).await?;
                        client.write_all(&down[..bytes.min(got)]).await?;
                        return Ok(());
                    }
                }
                if calls {
                    let got = server.read(&mut down).await?;
                    plan.lock().unwrap().lengths = (sent.len(), got);
                    client.write_all(&down[..got]).await?;
                }
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

fn effects() -> Vec<Effect> {
    vec![
        Effect::Publish {
            at: Partition::of(&topic("bills")),
            entry: NewEntry {
                id: uuid::Uuid::nil(),
                name: "json",
                value: Bytes::from_static(b"{}"),
                slot: None,
            },
            window: None,
        },
        Effect::Increment {
            key: "sum".to_owned(),
            by: 1,
            within: None,
        },
    ]
}

/// What the server has: published messages, and the sum.
fn stored(server: &Server) -> (i64, i64) {
    let length = server.command(&["XLEN", "{shop:bills}:log"]);
    (length, server.command(&["GET", "shop:sum"]))
}

#[tokio::test]
async fn a_commit_that_is_cut_anywhere_is_done_once() {
    let server = Server::start();
    let proxy = Proxy::before(&server).await;
    let builder = builder(&server).with_redis_url(proxy.url.clone());
    let container = builder.connect().await.unwrap();
    let (store, lists, id) = (container.store(), [effects()], uuid::Uuid::now_v7());
    let mut number = 1;
    let session = |number| Session { id, number };
    // The first call loads the script; the second one is measured.
    for _ in 0..2 {
        store
            .effects()
            .apply(session(number), &lists)
            .await
            .unwrap();
        number += 1;
    }
    let (request, answer) = proxy.lengths();
    assert!(request > 100 && answer > 10, "{request}, {answer}");
    let cuts = (0..request).map(Cut::Request);
    for cut in cuts.chain((0..answer).map(Cut::Answer)) {
        proxy.cut(cut);
        let mut failed = false;
        let fates = until("an answer", async || {
            let told = store.effects().apply(session(number), &lists).await;
            failed |= told.is_err();
            told.ok()
        })
        .await;
        assert!(matches!(&fates[..], [EffectFate::Done(one)] if one.len() == 1));
        assert!(failed && !proxy.waits(), "{cut:?} was not made");
        let expected = i64::try_from(number).unwrap();
        assert_eq!(stored(&server), (expected, expected), "{cut:?}");
        number += 1;
    }
    finish(container).await;
}

/// A consumer behind the proxy, which holds these messages, and its commit of one of them.
async fn holding(server: &Server, proxy: &Proxy, messages: u32) -> (Holder, Container) {
    let builder = builder(server).with_redis_url(proxy.url.clone());
    let container = builder.connect().await.unwrap();
    let store = container.store();
    let consumer = ConsumerName::new("one").unwrap();
    let member = Member::of(&topic("orders"), &group("billing"), consumer);
    publish(&container, &topic("orders"), 0..messages).await;
    let groups = store.topics();
    let start = StartFrom::Beginning;
    groups.create_group(&member.at, start).await.unwrap();
    let (mut reader, _) = store.open(&Opening::of(&member)).await.unwrap();
    let mut held = Vec::new();
    while held.len() < messages as usize {
        let some = reader.fetch(1000, Duration::from_secs(1)).await.unwrap();
        held.extend(some.iter().map(|one| one.receipt));
    }
    let holder = Holder {
        store,
        member,
        held,
    };
    (holder, container)
}

struct Holder {
    store: Arc<dyn Store>,
    member: Member,
    held: Vec<DeliveryId>,
}

impl Holder {
    async fn commit(&self, number: u64) -> Result<Vec<EffectFate>, Error> {
        let commit = EffectCommit {
            delivery: self.held[usize::try_from(number).unwrap()],
            acknowledges: true,
            only_copy: false,
            effects: effects(),
        };
        let effects = self.store.effects();
        effects.commit(&self.member, number, &[commit]).await
    }

    /// Repeats a call until it is answered. Returns whether a sending failed, and the answer.
    async fn repeat(&self, number: u64) -> (bool, Vec<EffectFate>) {
        let mut failed = false;
        let fates = until("an answer", async || {
            let told = self.commit(number).await;
            failed |= told.is_err();
            told.ok()
        });
        let fates = fates.await;
        (failed, fates)
    }
}

fn is_done(fates: &[EffectFate]) -> bool {
    matches!(fates, [EffectFate::Done(one)] if one.len() == 1)
}

#[tokio::test]
async fn a_commit_of_a_delivery_that_is_cut_anywhere_is_done_once() {
    let server = Server::start();
    let proxy = Proxy::before(&server).await;
    let (holder, container) = holding(&server, &proxy, 1000).await;
    // The first call loads the script; the second one is measured.
    for number in [1, 2] {
        assert!(is_done(&holder.commit(number).await.unwrap()));
    }
    let (request, answer) = proxy.lengths();
    assert!(request > 100 && answer > 10, "{request}, {answer}");
    let cuts = (0..request).map(Cut::Request);
    let mut number = 2;
    for cut in cuts.chain((0..answer).map(Cut::Answer)) {
        number += 1;
        proxy.cut(cut);
        let (failed, fates) = holder.repeat(number).await;
        assert!(is_done(&fates), "{cut:?}: {fates:?}");
        assert!(failed && !proxy.waits(), "{cut:?} was not made");
        let expected = i64::try_from(number).unwrap();
        assert_eq!(stored(&server), (expected, expected), "{cut:?}");
    }
    let billing = status(&container, &topic("orders"), &group("billing")).await;
    assert_eq!(billing.in_flight, 1000 - number);
    finish(container).await;
}

#[tokio::test]
async fn a_first_sending_that_arrives_late_writes_nothing() {
    let server = Server::start();
    let proxy = Proxy::before(&server).await;
    let (holder, container) = holding(&server, &proxy, 10).await;
    assert!(is_done(&holder.commit(1).await.unwrap()));
    // Before its repetition: the repetition gets the same answer.
    proxy.cut(Cut::Late);
    assert!(holder.commit(2).await.is_err());
    let answers = proxy.arrive().await;
    assert!(answers[0].contains("done"), "{answers:?}");
    let (failed, fates) = holder.repeat(2).await;
    assert!(!failed && is_done(&fates), "{fates:?}");
    assert_eq!(stored(&server), (2, 2));
    // After its repetition.
    proxy.cut(Cut::Late);
    let (failed, fates) = holder.repeat(3).await;
    assert!(failed && is_done(&fates), "{fates:?}");
    let answers = proxy.arrive().await;
    assert!(answers[0].contains("done"), "{answers:?}");
    assert_eq!(stored(&server), (3, 3));
    // After the next call.
    proxy.cut(Cut::Late);
    let (failed, fates) = holder.repeat(4).await;
    assert!(failed && is_done(&fates), "{fates:?}");
    assert!(is_done(&holder.commit(5).await.unwrap()));
    let answers = proxy.arrive().await;
    assert!(answers[0].contains("STALE"), "{answers:?}");
    assert_eq!(stored(&server), (5, 5));
    // Two sendings of one call, both late.
    for _ in 0..2 {
        proxy.cut(Cut::Late);
        assert!(holder.commit(6).await.is_err());
    }
    let answers = proxy.arrive().await;
    assert!(
        answers.len() == 2 && answers[0] == answers[1],
        "{answers:?}"
    );
    assert_eq!(stored(&server), (6, 6));
    finish(container).await;
}

#[tokio::test]
async fn a_container_asks_again_until_it_knows() {
    let server = Server::start();
    let proxy = Proxy::before(&server).await;
    let builder = builder(&server).with_redis_url(proxy.url.clone());
    let container = builder.connect().await.unwrap();
    let bills = topic("bills");
    let commit = async || {
        let mut effects = Effects::new();
        let message = Envelope::new("n", &1).unwrap();
        effects.publish(&bills, message).incr("sum", 1);
        container.commit(effects).await
    };
    commit().await.unwrap();
    let mut expected = 1;
    for cut in [Cut::Answer(0), Cut::Answer(7), Cut::Request(60)] {
        proxy.cut(cut);
        let done = commit().await.unwrap();
        expected += 1;
        assert_eq!(done.published.len(), 1);
        assert!(!proxy.waits(), "{cut:?} was not made");
        assert_eq!(stored(&server), (expected, expected), "{cut:?}");
    }
    // Side by side they share calls, one of which is cut.
    proxy.cut(Cut::Answer(3));
    let all = futures_util::future::join_all((0..100).map(|_| commit())).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(stored(&server), (expected + 100, expected + 100));
    finish(container).await;
}

#[tokio::test]
async fn handlers_behind_a_connection_that_is_cut_are_exact() {
    let server = Server::start();
    let proxy = Proxy::before(&server).await;
    let builder = builder(&server).with_redis_url(proxy.url.clone());
    let worker = builder.connect().await.unwrap();
    let direct = container(&server).await;
    let (orders, bills) = (topic("orders"), topic("bills"));
    let handler = move |Payload(n): Payload<u32>| {
        let (bills, message) = (bills.clone(), Envelope::new("n", &n));
        async move {
            let mut effects = Effects::new();
            effects.publish(&bills, message?).incr("sum", 1);
            Ok::<_, Error>(effects)
        }
    };
    let options = SubscribeOptions::new().with_concurrency(2);
    let bus = worker.bus();
    bus.subscribe_with(&orders, options, handler).await.unwrap();
    publish(&direct, &orders, 0..200).await;
    let (mut cuts, mut at_last_cut) = (0, -1);
    until("the group to drain", async || {
        let billing = status(&direct, &orders, &group("billing")).await;
        let done = billing.lag + billing.in_flight + billing.scheduled == 0;
        let sum: Option<i64> = server.command(&["GET", "shop:sum"]);
        // A call may be cut several times in a row, but not for ever.
        if !done && !proxy.waits() && sum.unwrap_or(0) > at_last_cut {
            at_last_cut = sum.unwrap_or(0);
            for _ in 0..2 {
                cuts += 1;
                let bytes = fastrand::usize(0..400);
                proxy.cut(match cuts % 3 {
                    0 => Cut::Request(bytes),
                    _ => Cut::Answer(bytes % 20),
                });
            }
        }
        done.then_some(())
    })
    .await;
    assert!(cuts > 3, "{cuts} cuts");
    assert_eq!(stored(&server), (200, 200), "after {cuts} cuts");
    finish(direct).await;
    worker.shutdown(std::time::Duration::from_secs(30)).await;
}
