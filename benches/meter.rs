//! Measures time, and processor time on both sides.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::server::Server;

/// A running measurement.
pub(crate) struct Meter<'a> {
    server: &'a Server,
    server_cpu: Duration,
    client_cpu: Duration,
    began: Instant,
}

/// A measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) taken: Duration,
    /// Processor time of this process.
    pub(crate) client_cpu: Duration,
    /// Processor time of the server's main thread.
    pub(crate) server_cpu: Duration,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(server: &'a Server) -> Self {
        Self {
            server,
            server_cpu: server.cpu(),
            client_cpu: client_cpu(),
            began: Instant::now(),
        }
    }

    pub(crate) fn stop(self) -> Spent {
        Spent {
            taken: self.began.elapsed(),
            client_cpu: client_cpu() - self.client_cpu,
            server_cpu: self.server.cpu() - self.server_cpu,
        }
    }
}

impl Spent {
    /// How many a second.
    pub(crate) fn rate(&self, count: u64) -> f64 {
        count as f64 / self.taken.as_secs_f64()
    }

    /// Microseconds of the server's processor per message.
    pub(crate) fn server_cost(&self, count: u64) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / count as f64
    }

    /// Microseconds of this process' processors per message.
    pub(crate) fn client_cost(&self, count: u64) -> f64 {
        self.client_cpu.as_secs_f64() * 1e6 / count as f64
    }
}

fn client_cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}
