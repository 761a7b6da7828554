//! The tool beside the services of its machine.

/// How far behind other processes bulk work stands: a tenth of their share where they compete for
/// a core, all of it where they do not.
#[cfg(unix)]
const STEP: i32 = 10;

/// Lets other processes of the machine go first from now on. Of a process with several threads this
/// is about the calling one, and those that it starts.
pub(crate) fn give_way() {
    // Nothing depends on it: where it is not allowed, the tool is as any other process.
    #[cfg(unix)]
    let _ = rustix::process::nice(STEP);
}
