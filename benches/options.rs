//! The options of a bench run.

use clap::Parser;

use crate::pair::{Figure, Side};

/// Measures Redstart beside a raw loop of the same work, on a private redis-server.
#[derive(Clone, Debug, Parser)]
#[command(name = "benches/run")]
pub(crate) struct Options {
    /// Print one JSON object per figure.
    #[arg(long)]
    pub(crate) json: bool,
    /// Measure a tenth: a check that everything works, not a measurement.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Also run the figures that take minutes: millions of messages.
    #[arg(long)]
    pub(crate) long: bool,
    /// The server's append-only file.
    #[arg(long, default_value = "everysec", value_parser = ["off", "everysec", "always"])]
    pub(crate) aof: String,
    /// Use a runtime of one thread.
    #[arg(long)]
    pub(crate) current_thread: bool,
    /// Pairs of runs per figure.
    #[arg(long, default_value_t = 5)]
    pub(crate) pairs: usize,
    /// Run one side only, for a profiler; ratios then say nothing.
    #[arg(long, value_enum)]
    pub(crate) only: Option<Side>,
    /// An argument that `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
    /// Only figures whose name begins with one of these.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

impl Options {
    /// A number of messages, a tenth of it in a quick run.
    pub(crate) fn count(&self, full: u64) -> u64 {
        if self.quick { full / 10 } else { full }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| name.starts_with(wanted))
    }

    /// Whether a figure that takes minutes is selected: not by default.
    pub(crate) fn wants_long(&self, name: &str) -> bool {
        self.wants(name) && (self.long || !self.names.is_empty())
    }

    /// Whether one of these figures, which take minutes, is selected.
    pub(crate) fn wants_any_long(&self, figures: &[Figure<'_>]) -> bool {
        figures.iter().any(|(name, _)| self.wants_long(name))
    }
}
