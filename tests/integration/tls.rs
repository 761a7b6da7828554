//! TLS on a real server: valid certificates are accepted, all others are refused.
#![cfg(feature = "tls")]

use redstart::extract::Payload;
use redstart::{Container, Envelope, ErrorKind, container::TlsSettings};

use crate::support::tls::{Authority, text};
use crate::support::{Server, builder, topic};

/// A server with TLS on a second port; that port.
fn start(ca: &Authority, name: &str, until: i32, clients: &str) -> (Server, u16) {
    let (certificate, key) = ca.certify("server", name, until);
    for _ in 0..20 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let server = Server::start_with(&[
            "--tls-cert-file",
            text(&certificate),
            "--tls-key-file",
            text(&key),
            "--tls-ca-cert-file",
            text(&ca.ca()),
            "--tls-auth-clients",
            clients,
        ]);
        // Set while it runs: a port that is taken is then an error that can be seen.
        let set = redis::cmd("CONFIG")
            .arg("SET")
            .arg("tls-port")
            .arg(port)
            .exec(&mut server.raw());
        if set.is_ok() {
            return (server, port);
        }
    }
    panic!("no port for TLS");
}

async fn connect(
    server: &Server,
    url: &str,
    tls: TlsSettings,
) -> Result<Container, redstart::Error> {
    builder(server)
        .with_redis_url(url)
        .with_tls(tls)
        .connect()
        .await
}

/// Everything that went wrong, in one line.
fn told(error: &redstart::Error) -> String {
    let mut all = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        all = format!("{all}: {cause}");
        next = cause.source();
    }
    all
}

#[tokio::test]
async fn messages_and_values_go_by_tls_and_mutual_tls() {
    let ca = Authority::new("ours");
    let (server, port) = start(&ca, "localhost", 2100, "yes");
    let url = format!("rediss://localhost:{port}");
    let (certificate, key) = ca.certify("client", "client", 2100);
    let tls = TlsSettings::new()
        .with_ca_file(ca.ca())
        .with_client_files(certificate, key);
    let container = connect(&server, &url, tls).await.unwrap();
    let bus = container.bus();
    // Larger than any buffer on the way, in both directions.
    let large = "x".repeat(900_000);
    let envelope = Envelope::new("n", &large).unwrap();
    bus.publish(&topic("orders"), &envelope).await.unwrap();
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let _subscription = bus
        .subscribe(&topic("orders"), move |Payload(text): Payload<String>| {
            let _ = sender.send(text);
            async {}
        })
        .await
        .unwrap();
    assert_eq!(crate::support::next(&mut received).await, large);
    container.kv().set("a", &large).await.unwrap();
    assert!(container.health().await.ok);
    crate::support::finish(container).await;
}

#[tokio::test]
async fn a_server_without_a_valid_certificate_is_refused() {
    let (ca, other) = (Authority::new("ours"), Authority::new("another"));
    let (server, port) = start(&ca, "localhost", 2100, "no");
    let trusting = |ca: &Authority| TlsSettings::new().with_ca_file(ca.ca());
    let url = format!("rediss://localhost:{port}");
    connect(&server, &url, trusting(&ca)).await.unwrap();
    let cases = [
        (url.clone(), trusting(&other), "UnknownIssuer"),
        (url.clone(), TlsSettings::new(), "UnknownIssuer"),
        (
            format!("rediss://127.0.0.1:{port}"),
            trusting(&ca),
            "not valid for",
        ),
    ];
    for (url, tls, why) in cases {
        let error = connect(&server, &url, tls).await.unwrap_err();
        // A machine without any authorities of its own refuses earlier.
        let said = told(&error);
        assert!(
            said.contains(why) || said.contains("trusts no authority"),
            "{said}"
        );
    }
    let (server, port) = start(&ca, "localhost", 2021, "no");
    let url = format!("rediss://localhost:{port}");
    let error = connect(&server, &url, trusting(&ca)).await.unwrap_err();
    assert!(
        told(&error).to_lowercase().contains("expired"),
        "{}",
        told(&error)
    );
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_one_or_refuses() {
    let (ca, other) = (Authority::new("ours"), Authority::new("another"));
    let (server, port) = start(&ca, "localhost", 2100, "yes");
    let url = format!("rediss://localhost:{port}");
    let trusting = TlsSettings::new().with_ca_file(ca.ca());
    let error = connect(&server, &url, trusting.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", told(&error));
    let (certificate, key) = other.certify("client", "client", 2100);
    let foreign = trusting.clone().with_client_files(certificate, key);
    connect(&server, &url, foreign).await.unwrap_err();
    let (certificate, _) = ca.certify("one", "client", 2100);
    let (_, key) = ca.certify("two", "client", 2100);
    let mixed = trusting.clone().with_client_files(&certificate, &key);
    let error = connect(&server, &url, mixed).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", told(&error));
    let swapped = trusting.with_client_files(key, certificate);
    assert_eq!(
        connect(&server, &url, swapped).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test]
async fn a_refused_client_certificate_is_named() {
    let (ca, other) = (Authority::new("ours"), Authority::new("another"));
    let (server, port) = start(&ca, "localhost", 2100, "yes");
    let url = format!("rediss://localhost:{port}");
    let trusting = TlsSettings::new().with_ca_file(ca.ca());
    let (certificate, key) = other.certify("client", "client", 2100);
    let foreign = trusting.clone().with_client_files(certificate, key);
    // The alert of the server and the first write of the client race.
    for tls in [trusting, foreign].iter().cycle().take(40) {
        let error = connect(&server, &url, tls.clone()).await.unwrap_err();
        let said = told(&error);
        assert!(
            said.contains("refused the client's TLS certificate"),
            "{said}"
        );
        assert!(said.contains("alert"), "{said}");
    }
}

#[tokio::test]
async fn files_that_were_replaced_on_disk_need_no_restart() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (server, port) = start(&old, "localhost", 2100, "yes");
    let own = tempfile::tempdir().unwrap();
    let path = |name: &str| own.path().join(name);
    let install = |authorities: &[&Authority], by: &Authority| {
        let pems: Vec<_> = authorities.iter().map(|one| one.issuer.pem()).collect();
        std::fs::write(path("ca.pem"), pems.concat()).unwrap();
        let (certificate, key) = by.certify("client", "client", 2100);
        std::fs::copy(certificate, path("own.crt")).unwrap();
        std::fs::copy(key, path("own.key")).unwrap();
    };
    install(&[&old], &old);
    let tls = TlsSettings::new()
        .with_ca_file(path("ca.pem"))
        .with_client_files(path("own.crt"), path("own.key"));
    let url = format!("rediss://localhost:{port}");
    let container = connect(&server, &url, tls).await.unwrap();
    let envelope = Envelope::new("n", &1).unwrap();
    let orders = topic("orders");
    container.bus().publish(&orders, &envelope).await.unwrap();

    install(&[&old, &new], &new);
    let (certificate, key) = new.certify("server", "localhost", 2100);
    let () = server.command(&[
        "CONFIG",
        "SET",
        "tls-cert-file",
        text(&certificate),
        "tls-key-file",
        text(&key),
        "tls-ca-cert-file",
        text(&new.ca()),
    ]);
    let _: redis::Value = server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    container.bus().publish(&orders, &envelope).await.unwrap();
    container.kv().set("a", &1).await.unwrap();
    let health = container.health().await;
    assert!(health.ok, "{health:?}");

    // Half written files change nothing, until they are complete.
    std::fs::write(path("own.key"), "-----BEGIN").unwrap();
    let _: redis::Value = server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    container.bus().publish(&orders, &envelope).await.unwrap();
}

#[tokio::test]
async fn nothing_falls_back_to_plain_text() {
    let ca = Authority::new("ours");
    let (server, _) = start(&ca, "localhost", 2100, "no");
    let trusting = TlsSettings::new().with_ca_file(ca.ca());
    // The plain port does not speak TLS, and is not spoken to otherwise.
    let encrypted = server
        .url()
        .replace("redis://127.0.0.1", "rediss://localhost");
    let error = connect(&server, &encrypted, trusting.clone())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", told(&error));
    assert!(
        told(&error).contains("the server did not answer by TLS"),
        "{}",
        told(&error)
    );
    // And TLS settings beside a plain URL are a mistake, not a wish.
    let error = connect(&server, &server.url(), trusting.clone())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("rediss://"), "{error}");
    for url in [
        "rediss://localhost:1/#insecure",
        "valkeys://localhost:1/",
        "REDISS://localhost:1",
    ] {
        let error = connect(&server, url, TlsSettings::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}: {error}");
    }
}

#[tokio::test]
async fn odd_users_and_passwords_and_unix_sockets_work() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redis.sock");
    let server = Server::start_with(&["--unixsocket", text(&socket)]);
    let (user, password) = ("svc:a@b/ö", "p@ss:w/rd#%?&=+[é]\"'");
    let secret = format!(">{password}");
    let _: String = server.command(&["ACL", "SETUSER", user, "on", &secret, "~*", "+@all"]);
    let encode =
        |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let (user, password) = (encode(user), encode(password));
    let tcp = server
        .url()
        .replace("redis://", &format!("redis://{user}:{password}@"));
    let unix = format!("unix://{}?user={user}&pass={password}&db=3", text(&socket));
    for url in [tcp, unix] {
        let container = builder(&server)
            .with_redis_url(url)
            .connect()
            .await
            .unwrap();
        let envelope = Envelope::new("n", &7).unwrap();
        container
            .bus()
            .publish(&topic("orders"), &envelope)
            .await
            .unwrap();
        container.kv().set("a", &1).await.unwrap();
        assert!(container.health().await.ok);
    }
}
