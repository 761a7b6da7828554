//! `metrics`: the gauges of topics and groups, for Prometheus.

mod poll;
mod serve;

use redstart::container::Signals;
use redstart::exposition as text;

use crate::args::MetricsArgs;
use crate::failure::Failure;
use crate::settings::{NamespaceAccess, Settings};
use crate::terminal::Terminal;
use poll::Poll;

pub(super) async fn run(
    args: &MetricsArgs,
    settings: &Settings,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let Some(address) = args.listen else {
        return once(settings, terminal).await;
    };
    if terminal.is_json() {
        let rule = "--json cannot be used with --listen, which answers in Prometheus's text format";
        return Err(Failure::usage(rule));
    }
    let mut signals = Signals::listen()?;
    // A wrong setting ends the command; a server that is away does not.
    settings
        .builder_for(NamespaceAccess::Read)?
        .migrations()
        .map_err(Failure::of_settings)?;
    let poll = Poll::new(settings.clone(), args.every);
    let server = serve::Server::bind(address, poll).await?;
    terminal.remark(format_args!(
        "metrics on http://{}/metrics",
        server.address()
    ));
    tokio::select! {
        () = server.run() => {}
        _ = signals.next() => {}
    }
    Ok(())
}

/// Measures once.
async fn once(settings: &Settings, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let container = settings.connect_for(NamespaceAccess::Read).await?;
    let gauges = container.topics().gauges().await?;
    if terminal.is_json() {
        return Ok(terminal.json(&gauges)?);
    }
    Ok(terminal.bytes(text::of(&gauges).as_bytes())?)
}
