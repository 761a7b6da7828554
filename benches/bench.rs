//! The parts that every figure uses.

use clap::Parser as _;

use crate::options::Options;
use crate::report::Report;
use crate::server::Server;

pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) server: Server,
    pub(crate) report: Report,
}

/// Prepares a bench as the arguments say, and measures.
pub(crate) fn run(measure: impl AsyncFnOnce(&mut Bench)) {
    let options = Options::parse();
    let mut builder = if options.current_thread {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.worker_threads(2).enable_all().build();
    let mut bench = Bench {
        server: Server::start(&options.aof),
        report: Report::new(&options),
        options,
    };
    runtime
        .expect("a runtime")
        .block_on(async { measure(&mut bench).await });
}
