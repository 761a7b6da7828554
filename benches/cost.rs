//! What this process spends: processor time and allocations.

use std::time::Duration;

/// Allocations of the whole process so far.
pub(crate) fn allocations() -> u64 {
    stats_alloc::INSTRUMENTED_SYSTEM.stats().allocations as u64
}

#[global_allocator]
static GLOBAL: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// Processor time of the whole process so far, from the kernel's account.
pub(crate) fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses: user and system time are the 12th and 13th field.
    let ticks: u64 = stat
        .rsplit_once(") ")
        .map(|(_, rest)| {
            rest.split(' ')
                .skip(11)
                .take(2)
                .filter_map(|field| field.parse::<u64>().ok())
                .sum()
        })
        .unwrap_or_default();
    // The kernel counts in hundredths of a second on every platform that Linux runs on.
    Duration::from_millis(ticks * 10)
}
