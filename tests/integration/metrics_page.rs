//! The page of metrics, the descriptions and the code name the same metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use redstart::extract::Payload;
use redstart::metrics::BUCKETS;
use redstart::{Container, Delivery, Envelope};
use regex::Regex;

use crate::support::{drained, finish, group, topic};

const PAGE: &str = include_str!("../../src/docs/metrics.md");

/// The names in a text, as a pattern with one group finds them.
fn names(text: &str, pattern: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).unwrap();
    let found = pattern.captures_iter(text);
    found.map(|one| one[1].to_owned()).collect()
}

/// The metrics that the sources under a path name, without their descriptions.
fn in_code(path: &Path, all: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            in_code(&entry.unwrap().path(), all);
        }
    } else if path.extension().is_some_and(|ending| ending == "rs")
        && !path.ends_with("container/meters.rs")
    {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        all.extend(names(code, r#""(redstart_[a-z_]+)""#));
    }
}

/// The part of the page about what a process counts.
fn of_each_process() -> &'static str {
    let (_, rest) = PAGE.split_once("## Of each process").unwrap();
    rest.split_once("## Of topics and groups").unwrap().0
}

const IN_PAGE: &str = "`(redstart_[a-z_]+)`";

#[test]
fn the_page_names_the_metrics_of_the_code_and_no_other() {
    let mut code = BTreeSet::new();
    in_code(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut code,
    );
    assert!(code.len() > 30, "{code:?}");
    assert_eq!(names(PAGE, IN_PAGE), code);
}

/// Keeps the descriptions.
#[derive(Default)]
struct Descriptions(Mutex<BTreeMap<String, String>>);

impl Descriptions {
    fn keep(&self, name: &KeyName, text: &SharedString) {
        let mut all = self.0.lock().unwrap();
        let before = all.insert(name.as_str().to_owned(), text.to_string());
        assert_eq!(before, None, "{name:?} is described twice");
    }
}

impl Recorder for Descriptions {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        self.keep(&name, &text);
    }
    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        self.keep(&name, &text);
    }
    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        self.keep(&name, &text);
    }
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn a_container_describes_all_metrics_of_the_process() {
    let descriptions = Descriptions::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    with_local_recorder(&descriptions, || {
        runtime.block_on(async { finish(Container::in_memory().await.unwrap()).await });
    });
    let all = descriptions.0.into_inner().unwrap();
    let described: BTreeSet<String> = all.keys().cloned().collect();
    assert_eq!(described, names(of_each_process(), IN_PAGE));
    for (name, text) in &all {
        assert!(text.ends_with('.') && text.len() > 10, "{name}: {text}");
    }
}

#[tokio::test]
async fn an_exporter_with_the_buckets_sends_help_and_histograms() {
    let mut builder = PrometheusBuilder::new();
    for (name, buckets) in BUCKETS {
        let name = Matcher::Full((*name).to_owned());
        builder = builder.set_buckets_for_metric(name, buckets).unwrap();
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let container = Container::builder()
        .with_memory(redstart::memory::MemoryStore::new())
        .with_service("billing")
        .connect()
        .await
        .unwrap();
    let orders = topic("orders");
    let handler = |_: Payload<u32>, _: Delivery| async { tokio::time::sleep(Duration::ZERO).await };
    container.bus().subscribe(&orders, handler).await.unwrap();
    let envelope = Envelope::new("n", &1).unwrap();
    container.bus().publish(&orders, &envelope).await.unwrap();
    drained(&container, &orders, &group("billing")).await;
    finish(container).await;
    let text = handle.render();
    for (name, _) in BUCKETS {
        assert!(text.contains(&format!("# HELP {name} ")), "{name}: {text}");
        assert!(
            text.contains(&format!("# TYPE {name} histogram\n")),
            "{name}: {text}"
        );
        assert!(text.contains(&format!("{name}_bucket{{")), "{name}: {text}");
    }
}
