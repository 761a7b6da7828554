//! Signals that end a process.

use std::time::Duration;

use super::{Container, ShutdownReport};
use crate::domain::{Error, ErrorKind};

/// The exit code of a process that a signal ended, by the convention of shells for SIGINT.
const INTERRUPTED: i32 = 130;

impl Container {
    /// Waits for SIGINT or SIGTERM, then [shuts down](Self::shutdown) and returns the report.
    ///
    /// A second signal does not wait for the shutdown: the process exits at once with code 130, as
    /// after a crash. Its deliveries return when their leases end, and no destructor runs. Outside of
    /// Unix the signal is Ctrl-C.
    ///
    /// Choose a `grace` shorter than the time after which the orchestrator kills: by default 30 seconds
    /// in Kubernetes, 90 in systemd. A program that has more to stop, such as a web server, adds a
    /// [coordinator](super::Coordinator): the example `axum` shows one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when this process cannot listen for signals. Nothing is shut down.
    ///
    /// # Cancel safety
    ///
    /// Before a signal, dropping the future has no effect. After one, the shutdown goes on. The
    /// process keeps catching both signals: they do not end it by themselves any more.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # async fn run(container: redstart::Container) -> Result<std::process::ExitCode, redstart::Error> {
    /// let report = container.run_until_signal(std::time::Duration::from_secs(20)).await?;
    /// println!("{report}");
    /// # let exit =
    /// report.into() // exit code 0 for a clean shutdown, else 1
    /// # ; Ok(exit)
    /// # }
    /// ```
    pub async fn run_until_signal(&self, grace: Duration) -> Result<ShutdownReport, Error> {
        let mut signals = Signals::listen()?;
        let signal = signals.next().await;
        tracing::info!(signal, ?grace, "shutting down");
        tokio::select! {
            biased;
            signal = signals.next() => {
                tracing::warn!(signal, "a second signal: exiting at once");
                std::process::exit(INTERRUPTED)
            }
            report = self.shutdown(grace) => {
                match report.is_clean() {
                    true => tracing::info!(%report, "shut down"),
                    false => tracing::warn!(%report, "shut down"),
                }
                Ok(report)
            }
        }
    }
}

/// The signals that end a process: SIGINT and SIGTERM; outside of Unix Ctrl-C.
///
/// [`Container::run_until_signal`] is all that most programs need. A program that stops for other reasons
/// too waits for both.
///
/// # Example
///
/// ```no_run
/// use std::time::Duration;
///
/// use redstart::{Container, container::Signals};
///
/// # async fn run(container: Container, work: impl Future<Output = ()>) -> Result<(), redstart::Error> {
/// let mut signals = Signals::listen()?;
/// tokio::select! {
///     signal = signals.next() => println!("stopped by {signal}"),
///     () = work => println!("done"),
/// }
/// println!("{}", container.shutdown(Duration::from_secs(20)).await);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Listens from this call on. From then on these signals do not end the process by themselves, also
    /// after the value was dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when this process cannot listen for signals.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub fn listen() -> Result<Self, Error> {
        Self::of_platform().map_err(|cause| {
            let rule = "this process cannot listen for signals";
            Error::new(ErrorKind::Unsupported, "listen for signals", rule).because(cause)
        })
    }

    /// Waits for the next signal and returns its name, such as `SIGTERM`.
    ///
    /// # Cancel safety
    ///
    /// No signal is lost when the future is dropped.
    pub async fn next(&mut self) -> &'static str {
        self.next_of_platform().await
    }
}

#[cfg(unix)]
impl Signals {
    fn of_platform() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next_of_platform(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn of_platform() -> std::io::Result<Self> {
        Ok(Self {})
    }

    async fn next_of_platform(&mut self) -> &'static str {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            Err(_) => std::future::pending().await,
        }
    }
}
