//! The scripts of topics: creation, settings, removal.

use super::*;

#[test]
fn topic_create() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("topic_create.lua"));
    let mut create = |args: &[&str]| call::<Vec<String>>(raw, &script, &[META], args);
    let made = create(&["shop", "orders", "settled", "100", "1", "0"]);
    assert_eq!(made, ["ok", "settled", "100", "1"]);
    let held = create(&["shop", "orders", "length:5", "7", "4", "0"]);
    assert_eq!(held, ["ok", "settled", "100", "1"], "settings stay");
    let taken = create(&["", "shop:orders", "settled", "100", "1", "0"]);
    assert_eq!(taken, ["taken", "shop", "orders"]);
    let _: Value = run(raw, &format!("SET {META} x EX 100"));
    assert!(
        fails(raw, &script, &[META], &["a", "b", "settled", "1", "1", "0"]).contains("WRONGTYPE")
    );
}

#[test]
fn versions_without_partitions_take_a_split_topic_for_another_topic() {
    let server = Server::start();
    let raw = &mut server.raw();
    let (create, change) = (script!("topic_create.lua"), script!("topic_settings.lua"));
    let remove = script!("topic_remove.lua");
    let keys = [
        LOG,
        META,
        "{t}:ids",
        "{t}:ids:before",
        "{t}:later",
        "{t}:later:body",
    ];
    for partitions in ["4", "5"] {
        let args = ["shop", "orders", "settled", "100", partitions, "0"];
        let held: Vec<String> = call(raw, &create, &[META], &args);
        assert_eq!(held, ["ok", "settled", "100", "4"]);
    }
    // They compare this field with the name of the topic before they publish or subscribe.
    let name: String = run(raw, &format!("HGET {META} topic"));
    assert_eq!(name, "orders/4");
    let args = ["shop", "orders", "settled", "7"];
    let before: Vec<String> = call(raw, &change, &[META], &args);
    assert_eq!(before, ["ok", "settled", "100", "4"]);
    let args = ["", "shop:orders", "settled", "7", "1", "0"];
    let taken: Vec<String> = call(raw, &create, &[META], &args);
    assert_eq!(taken, ["taken", "shop", "orders"]);
    let removed: Vec<String> = call(raw, &remove, &keys, &["shop", "orders"]);
    assert_eq!(removed, ["ok", "1", "0", "0"]);
}

#[test]
fn topic_settings() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("topic_settings.lua"));
    let mut change = |args: &[&str]| call::<Vec<String>>(raw, &script, &[META], args);
    assert_eq!(change(&["shop", "orders", "settled", "7"]), [""; 0]);
    let create = script!("topic_create.lua");
    let args = ["shop", "orders", "length:5", "100", "1", "0"];
    let _: Vec<String> = call(&mut server.raw(), &create, &[META], &args);
    let before = change(&["shop", "orders", "settled", "7"]);
    assert_eq!(before, ["ok", "length:5", "100", "1"]);
    let taken = change(&["", "shop:orders", "settled", "100"]);
    assert_eq!(taken, ["taken", "shop", "orders"]);
    let before = change(&["shop", "orders", "settled", "7"]);
    assert_eq!(before, ["ok", "settled", "7", "1"]);
}

#[test]
fn topic_remove() {
    let server = Server::start();
    let (raw, script) = (&mut server.raw(), script!("topic_remove.lua"));
    let keys = [
        LOG,
        META,
        "{t}:ids",
        "{t}:ids:before",
        "{t}:later",
        "{t}:later:body",
        "{t}:later:bell",
    ];
    let remove =
        |raw: &mut Connection, args: &[&str]| -> Vec<String> { call(raw, &script, &keys, args) };
    assert_eq!(remove(raw, &["shop", "orders"]), [""; 0]);
    let create = script!("topic_create.lua");
    let args = ["shop", "orders", "settled", "100", "1", "0"];
    let _: Vec<String> = call(raw, &create, &[META], &args);
    let _: Value = run(raw, &format!("XADD {LOG} * json 1"));
    let _: Value = run(raw, "HSET {t}:ids a b");
    let _: Value = run(raw, "ZADD {t}:later 1 a");
    let _: Value = run(raw, "HSET {t}:later:body a b");
    let _: Value = run(raw, "XADD {t}:later:bell * due 1");
    let taken = remove(raw, &["", "shop:orders"]);
    assert_eq!(taken, ["taken", "shop", "orders"]);
    let _: Value = run(raw, &format!("XGROUP CREATE {LOG} g 0"));
    assert_eq!(remove(raw, &["shop", "orders"]), ["ok", "0", "1", "1"]);
    let _: Value = run(raw, &format!("XGROUP DESTROY {LOG} g"));
    assert_eq!(remove(raw, &["shop", "orders"]), ["ok", "1", "1", "0"]);
    assert_eq!(run::<u64>(raw, "DBSIZE"), 0);
    // A log that another program made has no settings.
    let _: Value = run(raw, &format!("XADD {LOG} * json 1"));
    assert_eq!(remove(raw, &["shop", "orders"]), ["ok", "1", "1", "0"]);
}
