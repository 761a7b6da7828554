//! A password in the URL appears in no error and no `Debug` of the library.

use redstart::{Container, Envelope, Kv, container::TlsSettings, migrations::Migrations};

use crate::support::{Server, builder, topic};

const CANARY: &str = "canary-7f3a";

/// An error with all its causes, in both forms.
fn told(error: &redstart::Error) -> String {
    let mut all = format!("{error} {error:?}");
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        all = format!("{all} {cause} {cause:?}");
        next = cause.source();
    }
    all
}

#[tokio::test]
async fn a_password_is_in_no_error_and_no_debug() {
    let mut server = Server::start();
    let () = server.command(&["CONFIG", "SET", "requirepass", CANARY]);
    let with = |password: &str| {
        server
            .url()
            .replace("redis://", &format!("redis://:{password}@"))
    };
    let good = with(CANARY);
    let mut all = String::new();
    for url in [
        with(&format!("{CANARY}-no")),
        format!("redis://:{CANARY}@127.0.0.1:1/"),
        format!("rediss://:{CANARY}@127.0.0.1:1/"),
        format!("rediss://:{CANARY}@127.0.0.1:1/#insecure"),
        format!("redis://:{CANARY}@h/{CANARY}"),
        format!("unix:///nowhere?pass={CANARY}"),
        format!("redis//{CANARY}"),
    ] {
        let builder = Container::builder().with_redis_url(&url);
        all.push_str(&format!("{builder:?}"));
        all.push_str(&told(&builder.connect().await.unwrap_err()));
        match Migrations::new(&url, None) {
            Ok(migrations) => all.push_str(&format!("{migrations:?}")),
            Err(error) => all.push_str(&told(&error)),
        }
    }
    let tls = TlsSettings::new().with_client_files("a.pem", "b.pem");
    let kv = Kv::connect_with_tls(&good.replace("redis:", "rediss:"), &tls, None);
    all.push_str(&told(&kv.unwrap_err()));
    let kv = Kv::connect(&good, None).unwrap();
    let container = builder(&server)
        .with_redis_url(&good)
        .connect()
        .await
        .unwrap();
    let (bus, envelope) = (container.bus(), Envelope::new("n", &7).unwrap());
    bus.publish(&topic("orders"), &envelope).await.unwrap();
    all.push_str(&format!(
        "{kv:?} {container:?} {bus:?} {:?}",
        container.store()
    ));
    server.kill();
    for _ in 0..2 {
        let failed = bus.publish(&topic("orders"), &envelope).await;
        all.push_str(&told(&failed.unwrap_err()));
    }
    all.push_str(&format!("{:?}", container.health().await));
    assert!(all.len() > 2000);
    assert!(!all.contains(CANARY), "{all}");
}
