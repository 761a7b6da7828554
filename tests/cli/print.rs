//! `print`: alert rules, the dashboard, KEDA's triggers and systemd's unit.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use redstart::{Delivery, Outcome, RetryPolicy, SubscribeOptions, extract::Payload};
use regex::Regex;
use serde_json::Value;

use crate::run::{Ran, redstart, run, run_with};
use crate::support::{PATIENCE, Server, builder, finish, group, publish, status, topic, until};

fn printed(args: &[&str]) -> Ran {
    run(None, &[&["print"], args].concat())
}

/// Runs a checker in a folder.
pub(crate) fn checked(folder: &Path, program: &str, args: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    run_with(command, "")
}

/// The metrics that expressions name and the page does not.
fn unknown_metrics(text: &str) -> BTreeSet<String> {
    let page = include_str!("../../src/docs/metrics.md");
    let name = Regex::new(r"\bredstart_[a-z_]+").unwrap();
    let found = name.find_iter(text).map(|one| one.as_str());
    let found: BTreeSet<&str> = found
        .map(|name| name.strip_suffix("_bucket").unwrap_or(name))
        .collect();
    assert!(found.len() > 10, "{found:?}");
    let unknown = found.into_iter();
    let unknown = unknown.filter(|name| !page.contains(&format!("`{name}`")));
    unknown.map(str::to_owned).collect()
}

#[test]
fn each_alert_fires_on_what_is_wrong_and_on_nothing_else() {
    let rules = printed(&["alerts"]).ok().out;
    assert_eq!(unknown_metrics(&rules), BTreeSet::new());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("alerts.yaml"), &rules).unwrap();
    let tests = include_str!("../ops/alerts_test.yaml");
    fs::write(folder.path().join("test.yaml"), tests).unwrap();
    checked(
        folder.path(),
        "promtool",
        &["check", "rules", "alerts.yaml"],
    )
    .ok();
    checked(folder.path(), "promtool", &["test", "rules", "test.yaml"]).ok();
    let alert = Regex::new(r"- alert: (\w+)").unwrap();
    for name in alert.captures_iter(&rules) {
        let tested = format!("alertname: {}", &name[1]);
        assert!(tests.matches(&tested).count() >= 2, "{tested}");
    }
    let told = printed(&["alerts", "--json"]).ok().json();
    assert_eq!(told["redstart.yaml"], Value::from(rules));
}

#[test]
fn the_dashboard_names_known_metrics_and_valid_expressions() {
    let text = printed(&["dashboard"]).ok().out;
    assert_eq!(unknown_metrics(&text), BTreeSet::new());
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(dashboard["uid"], "redstart");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels
        .iter()
        .map(|one| one["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len(), "ids repeat");
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && taken.insert((x, y)), "panels overlap: {panel}");
            }
        }
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(targets.is_empty(), panel["type"] == "row", "{panel}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression.replace("$__rate_interval", "5m");
            assert!(!expression.contains("$__"), "{expression}");
            rules += &format!(
                "      - record: r{}\n        expr: {}\n",
                rules.len(),
                Value::from(expression)
            );
        }
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.yaml"), rules).unwrap();
    checked(folder.path(), "promtool", &["check", "rules", "rules.yaml"]).ok();
}

/// A trigger: its type and its metadata.
type Trigger = (String, Vec<(String, String)>);

fn triggers(yaml: &str) -> Vec<Trigger> {
    let pair = Regex::new(r#"^        (\w+): "(.*)"$"#).unwrap();
    let mut all: Vec<Trigger> = Vec::new();
    for line in yaml.lines() {
        if let Some(kind) = line.strip_prefix("    - type: ") {
            all.push((kind.to_owned(), Vec::new()));
        } else if let (Some(found), Some((_, pairs))) = (pair.captures(line), all.last_mut()) {
            pairs.push((found[1].to_owned(), found[2].to_owned()));
        }
    }
    all
}

/// What a trigger counts, by the commands that KEDA sends as its user.
fn counted(trigger: &Trigger, connection: &mut redis::Connection) -> i64 {
    let (kind, pairs) = trigger;
    let get = |name: &str| {
        let mut found = pairs.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    };
    if kind == "redis" {
        let script = "local type = redis.call('type', KEYS[1]).ok
            local cmd = { zset = 'zcard', set = 'scard', list = 'llen', hash = 'hlen', none = 'llen' }
            return redis.call(cmd[type], KEYS[1])";
        let mut command = redis::cmd("EVAL");
        let command = command.arg(script).arg(1).arg(get("listName").unwrap());
        return command.query(connection).unwrap();
    }
    assert_eq!(kind, "redis-streams");
    let (stream, group) = (get("stream").unwrap(), get("consumerGroup").unwrap());
    if get("pendingEntriesCount").is_some() {
        let mut command = redis::cmd("XPENDING");
        let told: (i64, redis::Value, redis::Value, redis::Value) =
            command.arg(stream).arg(group).query(connection).unwrap();
        return told.0;
    }
    let mut command = redis::cmd("XINFO");
    let groups: Vec<std::collections::HashMap<String, redis::Value>> =
        command.arg("GROUPS").arg(stream).query(connection).unwrap();
    let named = |one: &&std::collections::HashMap<String, redis::Value>| {
        one["name"] == redis::Value::BulkString(group.into())
    };
    let found = groups.iter().find(named).unwrap();
    redis::from_redis_value(found["lag"].clone()).unwrap()
}

#[tokio::test]
async fn keda_keeps_a_pod_while_a_group_has_messages_or_retries() {
    let server = Server::start();
    let orders = topic("orders");
    let args = ["print", "keda", "orders", "billing", "--namespace", "shop"];
    let yaml = run(None, &args).ok().out;
    assert!(!yaml.contains('%'), "{yaml}");
    let all = triggers(&yaml);
    assert_eq!(all.len(), 5, "{yaml}");
    let acl = yaml.lines().find_map(|line| line.strip_prefix("#   user "));
    let acl = acl.unwrap().replace(" off ", " on >secret ");
    let words: Vec<&str> = ["ACL", "SETUSER"]
        .into_iter()
        .chain(acl.split(' '))
        .collect();
    let () = server.command(&words);
    let url = server
        .url()
        .replace("redis://", "redis://redstart-keda:secret@");
    let mut keda = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut active = || -> Vec<usize> {
        let counts = all.iter().map(|trigger| counted(trigger, &mut keda));
        let above = counts.enumerate().filter(|(_, count)| *count > 0);
        above.map(|(at, _)| at).collect()
    };

    let container = builder(&server)
        .with_service("billing")
        .connect()
        .await
        .unwrap();
    let options = || {
        let retry = RetryPolicy::fixed(Duration::from_secs(86_400)).with_max_attempts(5);
        SubscribeOptions::new().with_retry(retry)
    };
    let fails = |_: Payload<u32>, _: Delivery| async { Outcome::retry("later") };
    let bus = container.bus();
    let subscription = bus.subscribe_with(&orders, options(), fails).await.unwrap();
    assert_eq!(active(), [0; 0], "nothing to do");
    publish(&container, &orders, 0..1).await;
    until("the retry to be scheduled", async || {
        let status = status(&container, &orders, &group("billing")).await;
        (status.scheduled == 1 && status.in_flight == 0).then_some(())
    })
    .await;
    subscription.unsubscribe(PATIENCE).await;
    assert_eq!(active(), [4], "a scheduled retry");
    let url = server.url();
    let args = ["retries", "run-now", "orders", "billing", "--all"];
    run(Some(&url), &args).ok();
    assert_eq!(active(), [2], "a due retry");
    let redelivery = "{shop:orders}:group:billing:redo";
    let take = |stream| {
        let read = ["XREADGROUP", "GROUP", "billing", "python", "COUNT", "1"];
        let words = [&read[..], &["STREAMS", stream, ">"]].concat();
        let _: redis::Value = server.command(&words);
    };
    take(redelivery);
    assert_eq!(active(), [3], "a retry in flight");
    publish(&container, &orders, 1..2).await;
    assert_eq!(active(), [0, 3], "a new message");
    take("{shop:orders}:log");
    assert_eq!(active(), [1, 3], "a message in flight");
    finish(container).await;

    for args in [
        &["--address", "redis"][..],
        &["--address", "redis:6379\"\nx"],
        &["--deployment", "Billing"],
    ] {
        let all = [&["print", "keda", "orders", "billing"], args].concat();
        run(None, &all).failed(2);
    }
    let args = ["print", "keda", "orders", "billing"];
    let bare = run(None, &args).ok().out;
    assert!(bare.contains("\"{orders}:log\""), "{bare}");
}

#[tokio::test]
async fn together_the_printed_names_are_those_of_the_server() {
    let server = Server::start();
    let url = server.url();
    let together = ["--namespace", "shop", "--placement", "together"];
    let made = [&["migrate", "up"], &together[..]].concat();
    assert_eq!(run(Some(&url), &made).ok().out, "applied 0003\n");
    let container = builder(&server).with_service("billing").connect().await;
    let container = container.unwrap();
    publish(&container, &topic("orders"), 0..1).await;
    let name = |args: &[&str]| {
        let all = [&["print"], args, &together[..]].concat();
        run(None, &all).ok().out
    };
    let keys: Vec<String> = server.command(&["KEYS", "*:log"]);
    assert_eq!(keys, ["{shop}:t:orders:log"]);
    let keda = name(&["keda", "orders", "billing"]);
    assert!(keda.contains("\"{shop}:t:orders:log\""), "{keda}");
    let exporter = name(&["exporter"]);
    assert!(exporter.contains("db0={shop}:t:*:log,"), "{exporter}");
    let acl = name(&["acl", "viewer"]);
    assert!(acl.contains("~{shop}:t:* "), "{acl}");
    finish(container).await;

    let doctor = run(Some(&url), &["doctor", "--namespace", "shop"]).out;
    assert!(doctor.contains("placement together"), "{doctor}");
    let other = ["topics", "--namespace", "shop", "--placement", "spread"];
    let refused = run(Some(&url), &other).failed(2);
    assert!(
        refused.err.contains("placement together, not spread"),
        "{refused:?}"
    );
    run(
        None,
        &["print", "keda", "a", "b", "--placement", "together"],
    )
    .failed(2);
}

/// Runs redis_exporter with the printed settings until it has measured the server.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn redis_exporter_measures_the_keys_as_its_user() {
    let server = Server::start();
    let container = builder(&server).connect().await.unwrap();
    let (orders, billing) = (topic("orders"), group("billing"));
    let later = async |_: Delivery| Outcome::snooze(Duration::from_secs(3600));
    container.bus().subscribe(&orders, later).await.unwrap();
    publish(&container, &orders, 0..3).await;
    until("the messages to be snoozed", async || {
        (status(&container, &orders, &billing).await.scheduled == 3).then_some(())
    })
    .await;
    publish(&container, &topic("quiet"), 0..5).await;
    let _: String = server.command(&["SET", "secret", "of another program"]);
    let address = format!("127.0.0.1:{}", server.port());
    let args = ["exporter", "--address", &address, "--namespace", "shop"];
    let file = printed(&args).ok().out;
    let user = file.lines().find_map(|line| line.strip_prefix("#   user "));
    let rules = user.unwrap().replace(" off ", " on >secret ");
    let rules: Vec<&str> = rules.split(' ').collect();
    let _: String = server.command(&[&["ACL", "SETUSER"], &rules[..]].concat());

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = free.local_addr().unwrap();
    drop(free);
    let settings = file.lines().filter(|line| !line.starts_with('#'));
    let settings = settings.filter_map(|line| line.split_once('='));
    let mut exporter = Command::new("prometheus-redis-exporter");
    exporter.envs(settings).env("REDIS_PASSWORD", "secret");
    exporter.env("REDIS_EXPORTER_WEB_LISTEN_ADDRESS", at.to_string());
    exporter.stdout(Stdio::null()).stderr(Stdio::null());
    let exporter = exporter.spawn();
    let _exporter = Killed(exporter.expect("tests/install installs redis_exporter"));
    let metrics = until("a measurement", async || {
        page(at).filter(|metrics| metrics.contains("\nredis_up 1"))
    })
    .await;
    let value = |line: &str| {
        let mut lines = metrics.lines();
        let found = lines.find_map(|known| known.strip_prefix(line));
        found.map(|value| value.trim().to_owned())
    };
    let value = |line: &str| value(line).unwrap_or_else(|| panic!("no {line} in {metrics}"));
    let retries = r#"redis_key_size{db="db0",key="{shop:orders}:group:billing:retry"}"#;
    assert_eq!(value(retries), "3");
    let quiet = r#"redis_stream_length{db="db0",stream="{shop:quiet}:log"}"#;
    assert_eq!(value(quiet), "5");
    let groups = r#"redis_stream_groups{db="db0",stream="{shop:orders}:log"}"#;
    assert_eq!(value(groups), "1");
    let error = r#"redis_exporter_last_scrape_error{err=""}"#;
    assert_eq!(value(error), "0");
    let denied: Vec<redis::Value> = server.command(&["ACL", "LOG", "100"]);
    let denied = denied.iter().map(|one| format!("{one:?}"));
    let unexpected: Vec<String> = denied.filter(|one| !one.contains("slowlog|get")).collect();
    assert_eq!(unexpected, Vec::<String>::new());
    finish(container).await;
}

/// A process that ends with its test.
#[cfg(target_os = "linux")]
struct Killed(std::process::Child);

#[cfg(target_os = "linux")]
impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The metrics that an exporter answers with; `None` as long as it does not.
#[cfg(target_os = "linux")]
fn page(at: std::net::SocketAddr) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = "GET /metrics HTTP/1.0\r\nHost: exporter\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
#[cfg(target_os = "linux")]
fn systemd_finds_no_fault_in_the_unit_and_reads_the_command_as_it_is() {
    let tool = env!("CARGO_BIN_EXE_redstart");
    let metrics = printed(&["systemd"]).ok().out;
    let exec = "ExecStart=/usr/local/bin/redstart metrics --listen 127.0.0.1:9464\n";
    assert!(metrics.contains(exec), "{metrics}");
    assert!(metrics.contains("\nTimeoutStopSec=40\n"), "{metrics}");
    let words = ["systemd", "--name", "billing", "--grace", "1m", "--"];
    let hostile = "a \"b\" 100% $HOME \\ \nUser=root";
    let own = printed(&[&words[..], &[tool, "health", hostile]].concat())
        .ok()
        .out;
    assert!(own.contains("\nTimeoutStopSec=70\n"), "{own}");
    assert!(!own.contains("\nUser=root"), "{own}");
    let folder = tempfile::tempdir().unwrap();
    for (name, unit) in [
        (
            "redstart-metrics",
            metrics.replace("/usr/local/bin/redstart", tool),
        ),
        ("billing", own),
    ] {
        let file = folder.path().join(format!("{name}.service"));
        fs::write(&file, unit).unwrap();
        let file = file.to_str().unwrap();
        let args = ["verify", "--man=no", file];
        let ran = checked(folder.path(), "systemd-analyze", &args).ok();
        let about = ran.err.lines().filter(|line| line.contains(name));
        assert_eq!(about.collect::<Vec<_>>(), [""; 0], "{ran:?}");
    }
    let told = printed(&["systemd", "--json"]).ok().json();
    assert_eq!(told["redstart-metrics.service"], Value::from(metrics));
    for args in [
        &["systemd", "--", "billing"][..],
        &["systemd", "--name", "a b"],
        &["systemd", "--", "/bin/a b"],
        &["systemd", "--grace", "-1s"],
    ] {
        printed(args).failed(2);
    }
}

#[test]
fn files_need_no_server_and_no_namespace() {
    for what in ["alerts", "dashboard", "exporter", "systemd"] {
        let mut command = redstart(None, &["print", what]);
        command.env("REDSTART_REDIS_URL", "nonsense");
        assert!(run_with(command, "").ok().err.is_empty());
    }
}
