//! Reads lines from an input of any size on a thread of its own.
//!
//! A thread, because nothing can interrupt a read of the standard input, and because the command
//! works on the lines that arrived while the thread waits for the next one.

use std::io::{self, BufRead};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The longest line, in bytes. A longer one is reported by its number and dropped.
const LONGEST: usize = 64 * 1024 * 1024;
/// How many lines the thread reads ahead.
const AHEAD: usize = 1024;
/// How many bytes of lines the thread and the command hold together. A longer line comes alone.
const AHEAD_BYTES: usize = 4 * 1024 * 1024;

/// A line of the input, counted from 1.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct InputLine {
    pub(super) number: u64,
    /// The bytes without the line break, or the rule that the line breaks.
    pub(super) bytes: Result<Vec<u8>, String>,
}

/// A line that counts against the limit until it is dropped.
#[derive(Debug)]
pub(super) struct CountedLine {
    pub(super) line: io::Result<InputLine>,
    _permit: OwnedSemaphorePermit,
}

/// Starts to read, inside a runtime. The channel ends with the input, or with an error.
pub(super) fn read(input: impl BufRead + Send + 'static) -> mpsc::Receiver<CountedLine> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let (free, runtime) = (Arc::new(Semaphore::new(AHEAD_BYTES)), Handle::current());
    std::thread::spawn(move || {
        for line in (Lines { input, number: 0 }) {
            let failed = line.is_err();
            let free = Arc::clone(&free).acquire_many_owned(weight(&line));
            // Nothing closes the semaphore.
            let Ok(_permit) = runtime.block_on(free) else {
                return;
            };
            if sender.blocking_send(CountedLine { line, _permit }).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

fn weight(line: &io::Result<InputLine>) -> u32 {
    let bytes = line.as_ref().ok().and_then(|line| line.bytes.as_ref().ok());
    let length = bytes.map_or(0, Vec::len).min(AHEAD_BYTES);
    u32::try_from(length).unwrap_or(u32::MAX)
}

struct Lines<R> {
    input: R,
    number: u64,
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<InputLine>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

impl<R: BufRead> Lines<R> {
    fn read(&mut self) -> io::Result<Option<InputLine>> {
        let (mut bytes, mut length, mut ended) = (Vec::new(), 0_usize, false);
        while !ended {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                break;
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            length = length.saturating_add(part.len());
            if length <= LONGEST {
                bytes.extend_from_slice(part);
            } else {
                bytes = Vec::new();
            }
            ended = end.is_some();
            let used = part.len() + usize::from(ended);
            self.input.consume(used);
        }
        if !ended && length == 0 {
            return Ok(None);
        }
        self.number += 1;
        let bytes = if length > LONGEST {
            Err(format!("{length} bytes, over the limit of {LONGEST}"))
        } else {
            Ok(bytes)
        };
        Ok(Some(InputLine {
            number: self.number,
            bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &'static [u8]) -> Vec<InputLine> {
        let lines = Lines { input, number: 0 };
        lines.map(Result::unwrap).collect()
    }

    #[test]
    fn lines_are_numbered_and_the_last_one_needs_no_break() {
        let found = lines(b"a\n\nb");
        let texts: Vec<_> = found
            .iter()
            .map(|line| line.bytes.clone().unwrap())
            .collect();
        assert_eq!(texts, [&b"a"[..], b"", b"b"]);
        assert_eq!(found[2].number, 3);
        assert!(lines(b"").is_empty());
        assert_eq!(lines(b"a\n").len(), 1);
    }

    #[tokio::test]
    async fn lines_that_wait_for_the_command_are_bounded_in_bytes() {
        const MIB: usize = 1024 * 1024;
        let one = [vec![b'x'; MIB], b"\n".to_vec()].concat();
        let all = io::Cursor::new([one.repeat(20), vec![b'y'; 6 * MIB]].concat());
        let mut lines = read(io::BufReader::new(all));
        let (mut count, mut batch) = (0, Vec::new());
        while lines.recv_many(&mut batch, 500).await > 0 {
            // The thread cannot get further while the command holds these.
            while batch.len() < 4 && count + batch.len() < 20 {
                lines.recv_many(&mut batch, 500).await;
            }
            assert!(lines.try_recv().is_err() || count == 20);
            let held = batch.drain(..).map(|one| one.line.unwrap());
            let bytes = held.map(|line| line.bytes.unwrap().len());
            let bytes: Vec<usize> = bytes.collect();
            assert!(bytes.len() <= 4 && bytes.iter().all(|one| *one >= MIB));
            count += bytes.len();
        }
        assert_eq!(count, 21);
    }

    #[test]
    fn an_endless_line_neither_fills_the_memory_nor_hides_the_next() {
        let long = io::Read::take(io::repeat(b'x'), LONGEST as u64 + 5);
        let input = io::BufReader::new(io::Read::chain(long, &b"\nnext\n"[..]));
        let found: Vec<InputLine> = Lines { input, number: 0 }.map(Result::unwrap).collect();
        let rule = found[0].bytes.as_ref().unwrap_err();
        assert!(rule.contains("over the limit"), "{rule}");
        assert_eq!(found[1].bytes, Ok(b"next".to_vec()));
        assert_eq!(found[1].number, 2);
    }
}
