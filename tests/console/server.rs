//! The console's own server: log-in, and its end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use redstart::console::{Access, ConsoleOptions, ConsoleServer, Login, ProxyLogin, hash_password};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::site::in_memory;
use crate::support::PATIENCE;

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(login: Login) -> Self {
        let options = ConsoleOptions::with_access(|_| Access::Forbidden);
        let address = "127.0.0.1:0".parse().unwrap();
        let server = ConsoleServer::bind(in_memory().await, options, address, login)
            .await
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        let address = server.address();
        let ended = tokio::spawn(server.run(async move { drop(stopped.await) }));
        Self {
            address,
            stop,
            ended,
        }
    }

    /// The head and the body of an answer.
    async fn ask(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{head}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer));
        read.await.unwrap().unwrap();
        answer
    }
}

#[tokio::test]
async fn without_log_in_only_this_machine_is_answered() {
    let running = Running::start(Login::local("ann")).await;
    let own = running.ask("GET / HTTP/1.1\r\nhost: localhost:1").await;
    assert!(
        own.starts_with("HTTP/1.1 200") && own.contains("ann · operator"),
        "{own}"
    );
    let rebound = running.ask("GET / HTTP/1.1\r\nhost: evil.test").await;
    assert!(rebound.starts_with("HTTP/1.1 403"), "{rebound}");
    let probe = running.ask("GET /healthz HTTP/1.1\r\nhost: pod.test").await;
    assert!(probe.starts_with("HTTP/1.1 200"), "{probe}");
    let options = ConsoleOptions::with_access(|_| Access::Operator("x".to_owned()));
    let open = "0.0.0.0:0".parse().unwrap();
    let refused = ConsoleServer::bind(in_memory().await, options, open, Login::local("ann")).await;
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("nobody would have to log in"), "{told}");
}

#[tokio::test]
async fn a_users_file_asks_for_name_and_password() {
    let hash = hash_password("secret").unwrap();
    let login = Login::users(&format!("ann:operator:{hash}\n")).unwrap();
    let running = Running::start(login).await;
    let none = running.ask("GET / HTTP/1.1\r\nhost: h").await;
    assert!(none.starts_with("HTTP/1.1 401"), "{none}");
    assert!(
        none.contains("www-authenticate: Basic realm=\"Redstart\""),
        "{none}"
    );
    // ann:secret
    let right = running
        .ask("GET / HTTP/1.1\r\nhost: h\r\nauthorization: Basic YW5uOnNlY3JldA==")
        .await;
    assert!(
        right.starts_with("HTTP/1.1 200") && right.contains("ann · operator"),
        "{right}"
    );
    // A wrong token costs no hash, so that the five fall into one minute on a slow machine, too.
    for _ in 0..5 {
        let wrong = running
            .ask("GET / HTTP/1.1\r\nhost: h\r\nauthorization: Bearer guess")
            .await;
        assert!(wrong.starts_with("HTTP/1.1 401"), "{wrong}");
    }
    let guess = running
        .ask("GET / HTTP/1.1\r\nhost: h\r\nauthorization: Basic YW5uOmd1ZXNz")
        .await;
    assert!(
        guess.starts_with("HTTP/1.1 429") && guess.contains("retry-after: "),
        "{guess}"
    );
    // Behind a proxy all visitors have one address: a guess must not lock out those who are logged in.
    let known = running
        .ask("GET / HTTP/1.1\r\nhost: h\r\nauthorization: Basic YW5uOnNlY3JldA==")
        .await;
    assert!(known.starts_with("HTTP/1.1 200"), "{known}");
}

#[tokio::test]
async fn guesses_at_once_count_like_guesses_in_turn() {
    let hash = hash_password("secret").unwrap();
    let login = Login::users(&format!("ann:operator:{hash}\n")).unwrap();
    let running = Running::start(login).await;
    let guess = "GET / HTTP/1.1\r\nhost: h\r\nauthorization: Basic YW5uOmd1ZXNz";
    let answers = futures_util::future::join_all((0..30).map(|_| running.ask(guess))).await;
    let of = |status: &str| {
        let head = format!("HTTP/1.1 {status}");
        answers.iter().filter(|one| one.starts_with(&head)).count()
    };
    assert_eq!((of("401"), of("429")), (5, 25), "{answers:?}");
}

#[tokio::test]
async fn a_proxy_names_the_visitor() {
    let proxy = ProxyLogin::new("x-user", ["127.0.0.0/8"]).unwrap();
    let proxy = proxy.with_operators("x-groups", "ops").unwrap();
    let running = Running::start(Login::proxy(proxy)).await;
    let ann = running
        .ask("GET / HTTP/1.1\r\nhost: h\r\nx-user: ann\r\nx-groups: ops")
        .await;
    assert!(ann.contains("ann · operator"), "{ann}");
    let bob = running
        .ask("GET / HTTP/1.1\r\nhost: h\r\nx-user: bob")
        .await;
    assert!(bob.contains("bob · viewer"), "{bob}");
    let none = running.ask("GET / HTTP/1.1\r\nhost: h").await;
    assert!(none.starts_with("HTTP/1.1 403"), "{none}");
    let elsewhere = ProxyLogin::new("x-user", ["10.0.0.1"]).unwrap();
    let running = Running::start(Login::proxy(elsewhere)).await;
    let forged = running
        .ask("GET / HTTP/1.1\r\nhost: h\r\nx-user: ann")
        .await;
    assert!(forged.starts_with("HTTP/1.1 403"), "{forged}");
}

#[tokio::test]
async fn the_server_ends_while_connections_are_open() {
    let running = Running::start(Login::local("ann")).await;
    let idle = TcpStream::connect(running.address).await.unwrap();
    let began = Instant::now();
    running.stop.send(()).unwrap();
    tokio::time::timeout(PATIENCE, running.ended)
        .await
        .unwrap()
        .unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    drop(idle);
}
