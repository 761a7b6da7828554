//! Connection errors name the server's address and the step that failed.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redstart::{Error, ErrorKind, Kv};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Server, builder, finish};

async fn connect(server: &Server, url: &str) -> Error {
    let builder = builder(server).with_redis_url(url);
    builder.connect().await.unwrap_err()
}

fn cause(error: &Error) -> String {
    error.source().unwrap().to_string()
}

/// A server's URL with a user, a password, or a database.
fn url(server: &Server, credentials: &str, database: &str) -> String {
    format!("redis://{credentials}127.0.0.1:{}{database}", server.port())
}

#[tokio::test]
async fn a_server_that_is_down_is_named_by_its_address() {
    let mut server = Server::start();
    let (port, secret) = (server.port(), url(&server, "ann:canary@", ""));
    server.kill();
    let error = connect(&server, &secret).await;
    let told = format!("connect \"127.0.0.1:{port}\": no connection to the server");
    assert_eq!(error.to_string(), told);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(cause(&error).contains("refused"), "{}", cause(&error));
    let shown = format!("{error:?} {error:#?}");
    assert!(
        !shown.contains("ann") && !shown.contains("canary"),
        "{shown}"
    );

    let kv = Kv::connect(&secret, None).unwrap();
    let error = kv.set("a", &1).await.unwrap_err();
    let told = format!("set \"a\": no connection to the server at 127.0.0.1:{port}");
    assert_eq!(error.to_string(), told);
}

/// Listens, forwards to a server, and closes the first connection that asks for the layout instead of
/// passing the answer on: as a primary does that becomes a replica.
async fn that_closes_at_the_layout(server: &Server) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (port, closed) = (server.port(), Arc::new(AtomicBool::new(false)));
    let has_closed = Arc::clone(&closed);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let has_closed = Arc::clone(&has_closed);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let mut sent = vec![0; 64 * 1024];
                let (mut from, mut to) = client.split();
                let (mut answers, mut requests) = server.split();
                let closing = async {
                    while let Ok(length @ 1..) = from.read(&mut sent).await {
                        let asks = sent[..length].windows(7).any(|word| word == b"HGETALL");
                        if asks && !has_closed.swap(true, Ordering::AcqRel) {
                            return;
                        }
                        requests.write_all(&sent[..length]).await.unwrap();
                    }
                };
                tokio::select! {
                    () = closing => {}
                    _ = tokio::io::copy(&mut answers, &mut to) => {}
                }
            });
        }
    });
    (url, closed)
}

#[tokio::test]
async fn connecting_reads_the_layout_again_after_its_connection_has_ended() {
    let server = Server::start();
    let (url, closed) = that_closes_at_the_layout(&server).await;
    let connecting = builder(&server).with_redis_url(&url).connect();
    let container = connecting.await.unwrap();
    assert!(closed.load(Ordering::Acquire));
    finish(container).await;
}

#[tokio::test]
async fn the_publishers_link_names_the_address() {
    let mut server = Server::start();
    let container = builder(&server).connect().await.unwrap();
    server.kill();
    let told = format!("no connection to the server at 127.0.0.1:{}", server.port());
    // The first command may still meet the broken connection.
    let _ = container.health().await;
    let health = format!("{:?}", container.health().await.bus);
    assert!(health.contains(&told), "{health}");
}

#[tokio::test]
async fn a_unix_socket_is_named_by_its_path() {
    let server = Server::start();
    let url = "unix:///nowhere/redis.sock?user=ann&pass=canary";
    let error = connect(&server, url).await;
    let told = "connect \"/nowhere/redis.sock\": no connection to the server";
    assert_eq!(error.to_string(), told);
}

#[tokio::test]
async fn a_refused_database_is_no_missing_connection() {
    let server = Server::start();
    let address = format!("127.0.0.1:{}", server.port());
    let bad = url(&server, "", "/99");
    let error = connect(&server, &bad).await;
    let told = format!("connect \"{address}\": the server refused database 99");
    assert_eq!(error.to_string(), told);
    assert_eq!(error.kind(), ErrorKind::Refused);
    let cause = cause(&error);
    assert!(cause.contains("DB index is out of range"), "{cause}");
    let kv = Kv::connect(&bad, None).unwrap();
    let told = format!("get \"a\": the server at {address} refused database 99");
    assert_eq!(kv.get::<u32>("a").await.unwrap_err().to_string(), told);
}

#[tokio::test]
async fn a_refused_log_in_is_no_missing_connection() {
    let server = Server::start();
    let () = server.command(&["CONFIG", "SET", "requirepass", "right"]);
    let address = format!("127.0.0.1:{}", server.port());
    let error = connect(&server, &url(&server, ":wrong@", "")).await;
    let told = format!("connect \"{address}\": the server refused the log-in");
    assert_eq!(error.to_string(), told);
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(cause(&error).contains("WRONGPASS"), "{}", cause(&error));

    let error = connect(&server, &url(&server, "", "")).await;
    let told =
        format!("connect \"{address}\": the server requires a password, and the URL has none");
    assert_eq!(error.to_string(), told);
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn a_server_that_repeats_the_password_does_not_get_it_into_an_error() {
    let server = Server::start_with(&["--rename-command", "AUTH", ""]);
    let error = connect(&server, &url(&server, "ann:canary@", "")).await;
    assert_eq!(error.kind(), ErrorKind::Refused);
    let shown = format!("{error} {error:?} {error:#?} {}", cause(&error));
    assert!(shown.contains("refused the log-in"), "{shown}");
    assert!(
        !shown.contains("ann") && !shown.contains("canary"),
        "{shown}"
    );
}
