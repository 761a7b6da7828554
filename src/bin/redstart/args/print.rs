//! The command line of `print`.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::GroupOf;
use crate::duration;

/// Print access rules, alert rules, a dashboard, and settings for other programs.
#[derive(Debug, ClapArgs)]
pub(crate) struct PrintArgs {
    #[command(subcommand)]
    pub(crate) what: PrintWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PrintWhat {
    Acl(AclArgs),
    /// Print alert rules for Prometheus
    #[command(after_help = "\
Example:
  redstart print alerts > /etc/prometheus/rules/redstart.yaml

Most rules need the gauges of `redstart metrics --listen`. With --json: one object, the text by file name.")]
    Alerts,
    /// Print a dashboard for Grafana, as JSON for its import
    #[command(after_help = "\
Example:
  redstart print dashboard > redstart.json

The panels need the metrics of the services, with the buckets of `redstart::metrics::BUCKETS`, and those
of `redstart metrics --listen`. With --json: one object, the text by file name.")]
    Dashboard,
    Exporter(ExporterArgs),
    Keda(KedaArgs),
    Systemd(SystemdArgs),
}

/// Print settings of redis_exporter for Redstart's keys, and its access rules.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Print the environment of redis_exporter for the streams and sorted sets of a namespace, and the access
rules of its user: for a system where redis_exporter runs anyway. It does not measure ages; `redstart
metrics --listen` does. Needs no server.",
    after_help = "\
Examples:
  redstart print exporter --namespace shop --address redis:6379 > /etc/redstart/exporter.env

With --json: one object, the text by file name.

Exit codes: 0 printed, 2 wrong usage."
)]
pub(crate) struct ExporterArgs {
    /// The server's host and port, as the exporter reaches it
    #[arg(long, value_name = "HOST:PORT", default_value = "redis:6379", value_parser = host_and_port)]
    pub(crate) address: String,
    /// The number of the database that has the keys
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) database: u16,
}

/// Print a ScaledObject that scales a group's consumers with KEDA.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Print a ScaledObject that scales the consumers of a group with KEDA, and the rights of KEDA's user.
Its triggers count undelivered messages, deliveries in flight, due retries and scheduled retries: the
lag alone would scale a group with retries to zero, and no retry would run. Needs no server.",
    after_help = "\
Examples:
  redstart print keda orders billing --namespace shop --address redis:6379 | kubectl apply -f -

With --json: one object, the text by file name.

Exit codes: 0 printed, 2 wrong usage."
)]
pub(crate) struct KedaArgs {
    #[command(flatten)]
    pub(crate) of: GroupOf,
    /// The server's host and port, as KEDA reaches it
    #[arg(long, value_name = "HOST:PORT", default_value = "redis:6379", value_parser = host_and_port)]
    pub(crate) address: String,
    /// The Deployment of the consumers [default: the group's name]
    #[arg(long, value_name = "NAME", value_parser = kubernetes_name)]
    pub(crate) deployment: Option<String>,
}

fn host_and_port(text: &str) -> Result<String, &'static str> {
    let is_part =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    match text.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty() && host.chars().all(is_part) && port.parse::<u16>().is_ok() =>
        {
            Ok(text.to_owned())
        }
        _ => Err("must be a host and a port, such as redis:6379"),
    }
}

fn kubernetes_name(text: &str) -> Result<String, &'static str> {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_whole = !text.starts_with('-') && !text.ends_with('-') && !text.is_empty();
    match is_whole && text.len() <= 63 && text.chars().all(is_inner) {
        true => Ok(text.to_owned()),
        false => Err("must match [a-z0-9]([-a-z0-9]*[a-z0-9])?, with at most 63 characters"),
    }
}

/// Print a systemd unit for a service or for `redstart metrics`.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Print a systemd unit that runs a command: SIGTERM begins its shutdown, and systemd waits for longer than
the grace. The settings come from /etc/redstart/<name>.env. Without a command the unit runs
`redstart metrics --listen 127.0.0.1:9464`. Needs no server.",
    after_help = "\
Examples:
  redstart print systemd > /etc/systemd/system/redstart-metrics.service
  redstart print systemd --grace 1m -- /usr/local/bin/billing --verbose

With --json: one object, the text by file name.

Exit codes: 0 printed, 2 wrong usage."
)]
pub(crate) struct SystemdArgs {
    /// The unit's name [default: the command's file name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How long the shutdown of the command may take (its grace)
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) grace: Duration,
    /// The command, with the full path of its program
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// Print the access rules of the roles, for Redis's ACL file or ACL SETUSER.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Print the access rules of the roles in a namespace, one line for each: for Redis's ACL file, or
without the word `user` for ACL SETUSER. The lines are switched off and have no password: add one
(`>` and the password, or `#` and its SHA-256), and replace `off` with `on`. Needs no server.",
    after_help = "\
Examples:
  redstart print acl --namespace shop
  redstart print acl viewer operator --namespace shop >> users.acl

With --json: one object, the lines by role.

Exit codes: 0 printed, 2 wrong usage, or no namespace is set."
)]
pub(crate) struct AclArgs {
    /// The roles [default: all]
    #[arg(value_enum)]
    pub(crate) roles: Vec<Role>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub(crate) enum Role {
    /// Publishes
    Producer,
    /// Handles messages, and uses values
    Consumer,
    /// Handles messages, uses values, and writes effects: messages and values with the acknowledgement
    Stage,
    /// Inspects, redrives and purges dead letters, manages topics, migrates
    Operator,
    /// Inspects
    Viewer,
    /// Trims topics that no consumer of Redstart reads, and brings due retries back
    Janitor,
}
