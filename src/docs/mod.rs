//! Guides and decisions, as part of the documentation.
//!
//! | Guide | Explains |
//! |---|---|
//! | [`guarantees`] | the promises of Redstart and their limits |
//! | [`exactly_once`] | effects: messages and values in one step with an acknowledgement, and what they do not cover |
//! | [`later`] | messages for later: publish at a time, by your id; reschedule, cancel |
//! | [`handlers`] | messages, handlers, routers, errors, time limits, middleware, hooks |
//! | [`lifecycle`] | the states of a message and the transitions between them |
//! | [`reliability`] | how we tested the promises, with the results |
//! | [`performance`] | how fast Redstart is, compared with a hand-written loop and other libraries, and how to measure it |
//! | [`production`] | running in production: server, settings, units, limits, updates, alerts, the day of dead letters |
//! | [`servers`] | the servers that Redstart is tested on, and which newer commands it uses |
//! | [`cluster`] | Redis Cluster: URL, namespace, placement, and what happens when a slot moves or a primary fails |
//! | [`partitions`] | topics with several logs: where messages go, ids, limits, operating |
//! | [`capacity`] | how many servers a load needs, calculated for a million messages a second |
//! | [`owned_groups`] | groups that keep the order of each key, and the fence for your own data |
//! | [`durability`] | what a published message survives, by level |
//! | [`sentinel`] | Redis Sentinel: URL, log-ins, what a failover does and loses |
//! | [`security`] | access rules, TLS, secrets, hostile input |
//! | [`metrics`] | the metrics, traces and events |
//! | [`observability`] | metrics, traces, logs, alerts, the dashboard and scaling, and where to look first |
//! | [`command_line`] | the tool `redstart`: commands and exit codes |
//! | `console` | the operators' page: actions, log-in, systemd, Kubernetes, your own service; these pages have it with the feature `console` |
//! | `operators` | tasks of operators, whether the console does them, and the test that checks each |
//! | `day` | a day of operations in the console, with pictures |
//! | [`dead_letters`] | how to find out why messages died, and how to bring them back |
//! | [`interoperating`] | producers and consumers in other languages, Debezium, CloudEvents |
//! | [`key_value`] | values, counters, compare-and-set, `once` |
//! | [`payloads`] | the values that can be a payload |
//! | [`wire_format`] | how a message is stored, for producers in other languages |
//! | [`keys`] | every stored key, and how the layout migrates |
//! | [`semver`] | the parts that a compatible release keeps |
//! | [`decisions`] | the decisions behind the design, with the rejected alternatives |
#![cfg_attr(
    feature = "testing",
    doc = "| [`testing`] | how to test handlers without a server |"
)]

pub mod decisions;

#[doc = include_str!("command_line.md")]
pub mod command_line {}

#[cfg(feature = "console")]
#[doc = include_str!("console.md")]
pub mod console {}

#[cfg(feature = "console")]
#[doc = include_str!("operators.md")]
pub mod operators {}

#[cfg(feature = "console")]
#[doc = include_str!("day.md")]
pub mod day {}

#[doc = include_str!("dead_letters.md")]
pub mod dead_letters {}

#[doc = include_str!("exactly_once.md")]
pub mod exactly_once {}

#[doc = include_str!("guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("owned_groups.md")]
pub mod owned_groups {}

#[doc = include_str!("capacity.md")]
pub mod capacity {}

#[doc = include_str!("partitions.md")]
pub mod partitions {}

#[doc = include_str!("handlers.md")]
pub mod handlers {}

#[doc = include_str!("interoperating.md")]
/// ## The programs
///
/// They take the address of the server from `REDSTART_REDIS_URL`. The suite runs those in Python and
/// Node.
///
/// ### Publish from Python
///
/// ```python
#[doc = include_str!("../../examples/interop/publish.py")]
/// ```
///
/// ### Publish from Node
///
/// ```js
#[doc = include_str!("../../examples/interop/publish.js")]
/// ```
///
/// ### Publish from Ruby
///
/// ```ruby
#[doc = include_str!("../../examples/interop/publish.rb")]
/// ```
///
/// ### Publish from Go
///
/// ```go
#[doc = include_str!("../../examples/interop/publish.go")]
/// ```
///
/// ### Read in Python
///
/// ```python
#[doc = include_str!("../../examples/interop/consume.py")]
/// ```
///
/// ### Read in Node
///
/// ```js
#[doc = include_str!("../../examples/interop/consume.js")]
/// ```
pub mod interoperating {}

#[doc = include_str!("key_value.md")]
pub mod key_value {}

#[doc = include_str!("keys.md")]
pub mod keys {}

#[doc = include_str!("servers.md")]
pub mod servers {}

#[doc = include_str!("later.md")]
pub mod later {}

#[doc = include_str!("lifecycle.md")]
pub mod lifecycle {}

#[doc = include_str!("metrics.md")]
pub mod metrics {}

#[doc = include_str!("observability.md")]
pub mod observability {}

#[doc = include_str!("payloads.md")]
pub mod payloads {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("production.md")]
pub mod production {}

#[doc = include_str!("cluster.md")]
pub mod cluster {}

#[doc = include_str!("durability.md")]
pub mod durability {}

#[doc = include_str!("sentinel.md")]
pub mod sentinel {}

#[doc = include_str!("reliability.md")]
pub mod reliability {}

#[doc = include_str!("security.md")]
///
/// ## The users, line by line
///
/// ```text
#[doc = include_str!("acl/producer.acl")]
#[doc = include_str!("acl/consumer.acl")]
#[doc = include_str!("acl/stage.acl")]
#[doc = include_str!("acl/operator.acl")]
#[doc = include_str!("acl/viewer.acl")]
#[doc = include_str!("acl/janitor.acl")]
/// ```
pub mod security {}

#[doc = include_str!("semver.md")]
pub mod semver {}

#[cfg(feature = "testing")]
#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("wire_format.md")]
pub mod wire_format {}
