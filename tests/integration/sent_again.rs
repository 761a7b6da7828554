//! A publish whose connection breaks is sent again where the server adds numbered messages only once.

use redstart::container::{NativeCommand, NativeCommands};
use redstart::{Container, Durability, Envelope, ErrorKind, PublishOptions};

use crate::cuts::{After, Cut, Proxy, entries, publish};
use crate::support::{Server, builder, finish, numbered, topic, until};

async fn start(server: &Server) -> (Proxy, Container) {
    let proxy = Proxy::to(numbered::port(server).await).await;
    let builder = builder(server).with_redis_url(&proxy.url);
    let builder = builder.with_native(NativeCommand::XaddIdmp);
    (proxy, builder.connect().await.unwrap())
}

#[tokio::test]
async fn at_every_cut_the_message_is_added_once_and_its_publish_succeeds() {
    let server = Server::start();
    let (proxy, container) = start(&server).await;
    let (orders, plain) = (topic("orders"), PublishOptions::new());
    publish(&container, &orders, plain).await.1.unwrap();
    let length = proxy.length();
    let commands = (0..=length).step_by(7).chain([length]).map(Cut::Command);
    let replies = (0..20).map(Cut::Reply);
    for (before, cut) in (1..).zip(commands.chain(replies)) {
        proxy.cut([cut]);
        let published = publish(&container, &orders, plain).await.1.unwrap();
        assert_eq!(proxy.left(), 0, "{cut:?}: it was cut");
        let held = entries(&server);
        assert_eq!(held.len(), before + 1, "{cut:?}");
        assert_eq!(held[before].0, published.id.to_string(), "{cut:?}");
        assert!(!published.duplicate, "no other publish of it was made");
    }
    finish(container).await;
}

#[tokio::test]
async fn a_long_batch_is_added_once_and_in_order_through_cuts() {
    let server = Server::start();
    let (proxy, container) = start(&server).await;
    let (orders, plain) = (topic("orders"), PublishOptions::new());
    publish(&container, &orders, plain).await.1.unwrap();
    let all: Vec<Envelope> = (0..1700).map(|n| Envelope::new("n", &n).unwrap()).collect();
    proxy.cut([
        Cut::Command(1000),
        Cut::Reply(64),
        Cut::Reply(9),
        Cut::Reply(7),
    ]);
    let results = container.bus().publish_all(&orders, &all).await;
    assert_eq!(proxy.left(), 0);
    let ids = results.into_iter().map(|one| one.unwrap().id.to_string());
    let held = entries(&server).into_iter().skip(1).map(|(id, _)| id);
    assert_eq!(held.collect::<Vec<_>>(), ids.collect::<Vec<_>>());
    finish(container).await;
}

#[tokio::test]
async fn a_message_outlives_a_restart_of_its_server_and_younger_ones_fail_meanwhile() {
    let mut server = Server::start();
    let (proxy, container) = start(&server).await;
    let (orders, plain) = (topic("orders"), PublishOptions::new());
    publish(&container, &orders, plain).await.1.unwrap();
    proxy.cut_and(After::Refused);
    let publishing = publish(&container, &orders, plain);
    let restarting = async {
        until("a refused connection", async || {
            (proxy.disturbed() > 0).then_some(())
        })
        .await;
        let (_, younger) = publish(&container, &orders, plain).await;
        server.restart();
        proxy.calm();
        younger
    };
    let ((_, older), younger) = tokio::join!(publishing, restarting);
    assert_eq!(younger.unwrap_err().kind(), ErrorKind::Unavailable);
    let held = entries(&server);
    assert_eq!(held.len(), 2, "the first one, and the older one once");
    assert_eq!(held[1].0, older.unwrap().id.to_string());
    finish(container).await;
}

#[tokio::test]
async fn without_the_command_the_outcome_stays_unknown() {
    let server = Server::start();
    let (port, is_real) = (numbered::port(&server).await, numbered::is_real(&server));
    let denied = "nobody may ask";
    // Switched off, not allowed to ask, and not there.
    let cases = [
        ("switched off", port),
        (denied, server.port()),
        ("absent", server.port()),
    ];
    for (case, port) in cases {
        if case == "absent" && is_real {
            continue;
        }
        let proxy = Proxy::to(port).await;
        let native = if case == "switched off" {
            NativeCommands::none()
        } else {
            NativeCommands::all()
        };
        let rule = if case == denied {
            "-command"
        } else {
            "+command"
        };
        let _: String = server.command(&["ACL", "SETUSER", "default", rule]);
        let builder = builder(&server)
            .with_redis_url(&proxy.url)
            .with_native(native);
        let container = builder.connect().await.unwrap();
        let (orders, plain) = (topic("orders"), PublishOptions::new());
        publish(&container, &orders, plain).await.1.unwrap();
        proxy.cut([Cut::Reply(0)]);
        let (_, cut) = publish(&container, &orders, plain).await;
        assert!(cut.unwrap_err().is_outcome_unknown(), "{case}");
        finish(container).await;
    }
}

#[tokio::test]
async fn a_server_is_asked_anew_on_each_connection() {
    let server = Server::start();
    let (proxy, container) = start(&server).await;
    let (orders, plain) = (topic("orders"), PublishOptions::new());
    publish(&container, &orders, plain).await.1.unwrap();
    // The next server at this address refuses the question.
    let rule = match numbered::is_real(&server) {
        true => "-command",
        false => "-eval",
    };
    let _: String = server.command(&["ACL", "SETUSER", "default", rule]);
    let _: u64 = server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    until("a plain publish", async || {
        publish(&container, &orders, plain).await.1.ok()
    })
    .await;
    proxy.cut([Cut::Reply(0)]);
    let (_, cut) = publish(&container, &orders, plain).await;
    assert!(cut.unwrap_err().is_outcome_unknown());
    finish(container).await;
}

#[tokio::test]
async fn a_durable_publish_is_added_once_and_is_durable_after_a_cut() {
    let server = Server::start_with(&["--repl-diskless-sync-delay", "0"]);
    let primary = format!("127.0.0.1 {}", server.port());
    let replica = Server::start_with(&["--replicaof", &primary]);
    let (proxy, container) = start(&server).await;
    let orders = topic("orders");
    let level = Durability::replicated(1, Durability::MAX_TIMEOUT);
    let durable = PublishOptions::new().with_durability(level);
    until("the replica", async || {
        publish(&container, &orders, durable).await.1.ok()
    })
    .await;
    let before = entries(&server).len();
    proxy.cut([Cut::Reply(0)]);
    let published = publish(&container, &orders, durable).await.1.unwrap();
    assert_eq!(proxy.left(), 0);
    let held = entries(&server);
    assert_eq!(held.len(), before + 1);
    assert_eq!(held[before].0, published.id.to_string());
    assert_eq!(entries(&replica), held, "the replica has it");
    finish(container).await;
}
