//! The command line of `metrics`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args as ClapArgs;

use crate::duration;

/// Measure topics and groups for Prometheus, once or on an HTTP endpoint.
#[derive(Debug, ClapArgs)]
#[command(
    long_about = "\
Measure every topic of the namespace and its groups, in Prometheus's text format: lag, deliveries in
flight, scheduled retries, dead letters, live consumers, ages, backlogs and their limits. Changes
nothing; the rights of the role `viewer` are enough.

Without --listen the command measures once and writes the result. With --listen it answers
GET /metrics until SIGTERM or ctrl-c. Run one such process for a namespace: it measures the groups
also while none of their consumers runs. All scrapes within --every share one measurement.

When the server does not answer within 8 s, the answer is `redstart_up 0` without the other
metrics, the log has the error, and the process measures again for the next scrape. GET /healthz
answers 200 as long as this process runs. The endpoint has neither TLS nor a password: listen on a
private address.",
    after_help = "\
Examples:
  redstart metrics --listen 127.0.0.1:9464
  redstart metrics --listen '[::]:9464' --every 30s
  redstart metrics > /var/lib/node_exporter/redstart.prom

With --json, without --listen: one array of {\"topic\",\"entries\",\"backlog\",\"backlogLimit\",\"groups\":
[{\"group\",\"lag\",\"inFlight\",\"scheduled\",\"dead\",\"consumers\",\"oldestUndeliveredMs\",\"oldestInFlightMs\",
\"nextRetryMs\",\"heldBack\",\"ownerless\"}]}; null where there is none, and the last two for a shared group.

Exit codes: 0 measured, or stopped by a signal, 1 failed, 2 wrong usage."
)]
pub(crate) struct MetricsArgs {
    /// Answer HTTP requests on this IP address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) listen: Option<SocketAddr>,
    /// Measure at most once in this time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse, allow_hyphen_values = true, requires = "listen")]
    pub(crate) every: Duration,
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "must be an IP address and a port, such as 127.0.0.1:9464 or [::1]:9464")
}
