//! Standard error, written by a thread of its own: a reader that has stopped must not stop the worker, which
//! has leases to extend.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How many parts wait for the reader. Commands write parts of up to a kibibyte.
const PARTS: usize = 1024;
/// How often a flush looks whether everything is written.
const LOOK: Duration = Duration::from_millis(5);

/// The way to standard error. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Told {
    sender: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Parts that are not written yet.
    open: AtomicUsize,
    /// Bytes that found no space since the last part.
    dropped: AtomicU64,
}

impl Told {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        Self::to(io::stderr())
    }

    fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, parts) = sync_channel(PARTS);
        let counts = Arc::<Counts>::default();
        let own = Arc::clone(&counts);
        let thread = thread::Builder::new().name("standard error".to_owned());
        thread.spawn(move || write(&parts, &own, out))?;
        Ok(Self { sender, counts })
    }

    /// Writes a part as soon as the reader takes it, or drops it where too many wait.
    pub(super) fn pass(&self, part: &[u8]) {
        if part.is_empty() {
            return;
        }
        self.counts.open.fetch_add(1, Ordering::AcqRel);
        if self.sender.try_send(part.to_vec()).is_err() {
            self.counts.open.fetch_sub(1, Ordering::AcqRel);
            let count = part.len() as u64;
            self.counts.dropped.fetch_add(count, Ordering::AcqRel);
        }
    }

    /// Writes a line in the same way.
    pub(super) fn say(&self, line: impl fmt::Display) {
        self.pass(format!("{line}\n").as_bytes());
    }

    /// Waits until everything is written, at most this long.
    pub(super) async fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while self.counts.open.load(Ordering::Acquire) > 0 && Instant::now() < until {
            sleep(LOOK).await;
        }
    }
}

fn write(parts: &Receiver<Vec<u8>>, counts: &Counts, mut out: impl Write) {
    for part in parts {
        let dropped = counts.dropped.swap(0, Ordering::AcqRel);
        if dropped > 0 {
            let _ = writeln!(out, "[{dropped} bytes left out: nothing read them in time]");
        }
        // Without a reader the worker goes on.
        let _ = out.write_all(&part);
        let _ = out.flush();
        counts.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A reader that takes a part at a time, when the test allows it.
    struct Slow(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, part: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(part.to_vec());
            Ok(part.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn parts_beyond_the_space_are_left_out_and_counted() {
        let ((allow, allowed), (taken, seen)) = (channel(), channel());
        let told = Told::to(Slow(allowed, taken)).unwrap();
        told.say("first");
        // The thread has one part in hand, which leaves its place in the queue at some time.
        for _ in 0..PARTS + 2 {
            told.pass(b"0123456789");
        }
        let dropped = told.counts.dropped.load(Ordering::Acquire);
        assert!(dropped == 10 || dropped == 20 || dropped == 30, "{dropped}");
        told.flush(Duration::from_millis(1)).await;
        assert!(told.counts.open.load(Ordering::Acquire) > 0);
        drop(allow);
        told.flush(Duration::from_secs(60)).await;
        assert_eq!(told.counts.open.load(Ordering::Acquire), 0);
        let all: Vec<u8> = seen.try_iter().flatten().collect();
        let all = String::from_utf8(all).unwrap();
        assert!(all.contains("first\n"), "{all:.40}");
        assert!(
            all.contains(&format!("[{dropped} bytes left out")),
            "{all:.80}"
        );
    }
}
