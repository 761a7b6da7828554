//! Connection errors name the server's address and the step that failed.

use std::error::Error as _;

use redstart::{Error, ErrorKind, Kv};

use crate::support::{Server, builder};

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
