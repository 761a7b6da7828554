//! Bulk work yields to the services on the same machine.

/// How much nicer bulk work is: it gets a tenth of another process's share of a busy core, and all
/// of an idle one.
#[cfg(unix)]
const STEP: i32 = 10;

/// Lowers the priority of the calling thread, and of the threads that it starts.
pub(crate) fn give_way() {
    // Where the system refuses, the tool runs at normal priority.
    #[cfg(unix)]
    let _ = rustix::process::nice(STEP);
}
