//! Reads lines from an input of any size on a thread of its own.
//!
//! A thread, because nothing can interrupt a read of the standard input, and because the command
//! works on the lines that arrived while the thread waits for the next one.

use std::io::{self, BufRead};

use tokio::sync::mpsc;

/// The longest line, in bytes. A longer one is reported by its number and dropped.
const LONGEST: usize = 64 * 1024 * 1024;
/// How many lines the thread reads ahead.
const AHEAD: usize = 1024;

/// A line of the input, counted from 1.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct InputLine {
    pub(super) number: u64,
    /// The bytes without the line break, or the rule that the line breaks.
    pub(super) bytes: Result<Vec<u8>, String>,
}

/// Starts to read. The channel ends with the input, or with an error.
pub(super) fn read(input: impl BufRead + Send + 'static) -> mpsc::Receiver<io::Result<InputLine>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        for line in (Lines { input, number: 0 }) {
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    receiver
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
