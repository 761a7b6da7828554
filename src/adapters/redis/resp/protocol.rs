//! The Redis protocol, read in place: one buffer, no tree of values, no copied payload. Version 2, and
//! of version 3 what a connection with pushes receives: pushes, maps and nulls.
//!
//! A reader spends most of its time on parsing replies, so this parser works in two steps. A
//! [`Scan`] finds the end of a reply and continues where it stopped when more bytes arrive. A
//! [`Walk`] then goes through the complete reply; its payloads are slices of the buffer. Neither
//! recurses, so no reply can nest too deeply.

use std::fmt;

use bytes::{Buf as _, Bytes};

/// The longest accepted line. Errors are the longest lines that are not payloads.
const LONGEST_LINE: usize = 64 * 1024;
/// The longest accepted payload: twice the default limit of Redis, 512 MiB.
const LONGEST_PAYLOAD: usize = 1 << 30;

/// The bytes break the protocol. The connection is unusable from here on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::adapters::redis) struct Broken(&'static str);

impl Broken {
    pub(in crate::adapters::redis) fn new(rule: &'static str) -> Self {
        Self(rule)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the reply breaks the protocol: {}", self.0)
    }
}

impl std::error::Error for Broken {}

/// Appends a command in the protocol's form.
pub(in crate::adapters::redis) fn pack(out: &mut Vec<u8>, parts: &[&[u8]]) {
    header(out, b'*', parts.len());
    for part in parts {
        header(out, b'$', part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

fn header(out: &mut Vec<u8>, kind: u8, mut length: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (length % 10) as u8;
        length /= 10;
        if length == 0 {
            break;
        }
    }
    out.push(kind);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// One header line, and the offset of its end.
struct Line<'a> {
    kind: u8,
    rest: &'a [u8],
    end: usize,
}

/// Reads the line that begins at `at`. Returns `None` while it is incomplete.
fn line(buffer: &[u8], at: usize) -> Result<Option<Line<'_>>, Broken> {
    let Some(bytes) = buffer.get(at..).filter(|bytes| !bytes.is_empty()) else {
        return Ok(None);
    };
    let window = &bytes[..bytes.len().min(LONGEST_LINE)];
    match memchr::memchr(b'\n', window) {
        Some(end) if end >= 2 && window[end - 1] == b'\r' => Ok(Some(Line {
            kind: window[0],
            rest: &window[1..end - 1],
            end: at + end + 1,
        })),
        Some(_) => Err(Broken("a line does not end in CR LF")),
        None if window.len() == LONGEST_LINE => Err(Broken("a line is too long")),
        None => Ok(None),
    }
}

fn number(text: &[u8]) -> Result<i64, Broken> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return Err(Broken("a number is out of range"));
    }
    let mut value = 0_i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(Broken("a number contains a symbol other than a digit"));
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Ok(if negative { -value } else { value })
}

fn length(text: &[u8]) -> Result<Option<usize>, Broken> {
    match number(text)? {
        -1 => Ok(None),
        length => usize::try_from(length)
            .ok()
            .filter(|length| *length <= LONGEST_PAYLOAD)
            .map(Some)
            .ok_or(Broken("a length is out of range")),
    }
}

/// The scan of one reply.
#[derive(Debug)]
pub(in crate::adapters::redis) struct Scan {
    at: usize,
    /// How many values are still missing, nested ones included.
    open: u64,
    /// How many bytes the buffer needs before the scan can continue.
    pub(in crate::adapters::redis) needs: usize,
}

impl Scan {
    pub(in crate::adapters::redis) fn new() -> Self {
        Self {
            at: 0,
            open: 1,
            needs: 1,
        }
    }

    /// Continues the scan. Returns `Some(length)` once the reply is complete.
    pub(in crate::adapters::redis) fn advance(
        &mut self,
        buffer: &[u8],
    ) -> Result<Option<usize>, Broken> {
        while self.open > 0 {
            let Some(line) = line(buffer, self.at)? else {
                self.needs = buffer.len() + 1;
                return Ok(None);
            };
            let mut end = line.end;
            match line.kind {
                b'$' => {
                    if let Some(length) = length(line.rest)? {
                        end += length + 2;
                        if buffer.len() < end {
                            self.needs = end;
                            return Ok(None);
                        }
                        if &buffer[end - 2..end] != b"\r\n" {
                            return Err(Broken("a payload does not end in CR LF"));
                        }
                    }
                }
                b'*' | b'>' => {
                    let values = length(line.rest)?.unwrap_or(0) as u64;
                    self.open += values;
                }
                b'%' => {
                    let pairs = length(line.rest)?.unwrap_or(0) as u64;
                    self.open += 2 * pairs;
                }
                b'_' if line.rest.is_empty() => {}
                b':' => {
                    number(line.rest)?;
                }
                b'+' | b'-' => {}
                _ => return Err(Broken("an unknown kind of value")),
            }
            self.at = end;
            self.open -= 1;
        }
        Ok(Some(self.at))
    }
}

/// A value of a complete reply. The elements of an array follow it in the walk. A push reads as an
/// array, a map as the array of its keys and values.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::adapters::redis) enum Head {
    Array(usize),
    Bulk(Bytes),
    Integer(i64),
    Status(Bytes),
    Error(Bytes),
    Nil,
}

/// A walk over a complete reply.
#[derive(Debug)]
pub(in crate::adapters::redis) struct Walk {
    rest: Bytes,
}

impl Walk {
    pub(in crate::adapters::redis) fn new(reply: Bytes) -> Self {
        Self { rest: reply }
    }

    pub(in crate::adapters::redis) fn next(&mut self) -> Result<Head, Broken> {
        let line = line(&self.rest, 0)?.ok_or(Broken("it ends early"))?;
        let (kind, end) = (line.kind, line.end);
        let head = match kind {
            b'_' => Head::Nil,
            b'%' => Head::Array(2 * length(line.rest)?.unwrap_or(0)),
            b'$' | b'*' | b'>' => match length(line.rest)? {
                None => Head::Nil,
                Some(length) if kind != b'$' => Head::Array(length),
                Some(length) => {
                    if self.rest.len() < end + length + 2 {
                        return Err(Broken("it ends early"));
                    }
                    let payload = self.rest.slice(end..end + length);
                    self.rest.advance(end + length + 2);
                    return Ok(Head::Bulk(payload));
                }
            },
            b':' => Head::Integer(number(line.rest)?),
            b'+' => Head::Status(self.rest.slice(1..end - 2)),
            b'-' => Head::Error(self.rest.slice(1..end - 2)),
            _ => return Err(Broken("an unknown kind of value")),
        };
        self.rest.advance(end);
        Ok(head)
    }

    /// Reads the head of an array and returns its length. Nil counts as an empty array.
    pub(in crate::adapters::redis) fn array(&mut self) -> Result<usize, Broken> {
        match self.next()? {
            Head::Array(length) => Ok(length),
            Head::Nil => Ok(0),
            _ => Err(Broken("expected an array")),
        }
    }

    pub(in crate::adapters::redis) fn payload(&mut self) -> Result<Bytes, Broken> {
        match self.next()? {
            Head::Bulk(payload) => Ok(payload),
            _ => Err(Broken("expected a payload")),
        }
    }
}

/// Reads bytes as a reader reads a reply.
#[cfg(feature = "testing")]
pub(crate) fn read_reply(bytes: &[u8]) {
    if let Ok(Some(length)) = Scan::new().advance(bytes) {
        let mut walk = Walk::new(Bytes::copy_from_slice(&bytes[..length]));
        while !walk.rest.is_empty() {
            assert!(walk.next().is_ok(), "a scanned reply can be walked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REPLY: &[u8] =
        b"*1\r\n*2\r\n$3\r\nlog\r\n*2\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$4\r\njson\r\n$2\r\n{}\r\n*2\r\n$3\r\n2-1\r\n*-1\r\n";

    fn scan(buffer: &[u8]) -> Result<Option<usize>, Broken> {
        Scan::new().advance(buffer)
    }

    #[test]
    fn a_reply_is_complete_only_at_its_last_byte() {
        assert_eq!(scan(REPLY), Ok(Some(REPLY.len())));
        for end in 0..REPLY.len() {
            assert_eq!(scan(&REPLY[..end]), Ok(None), "{end}");
        }
        for simple in [
            "$-1\r\n",
            "*0\r\n",
            "*-1\r\n",
            ":-7\r\n",
            "+OK\r\n",
            "-ERR x\r\n",
            "$0\r\n\r\n",
            "_\r\n",
            ">1\r\n+x\r\n",
            "%1\r\n+x\r\n:1\r\n",
        ] {
            assert_eq!(
                scan(simple.as_bytes()),
                Ok(Some(simple.len())),
                "{simple:?}"
            );
            let two = [simple.as_bytes(), b"+next"].concat();
            assert_eq!(scan(&two), Ok(Some(simple.len())), "{simple:?} and more");
        }
    }

    #[test]
    fn commands_are_packed_as_redis_reads_them() {
        let mut out = Vec::new();
        pack(&mut out, &[b"XADD", b"", &[b'x'; 120]]);
        let text = "x".repeat(120);
        let expected = format!("*3\r\n$4\r\nXADD\r\n$0\r\n\r\n$120\r\n{text}\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_scan_continues_where_it_stopped() {
        let mut one = Scan::new();
        for end in 0..REPLY.len() {
            assert_eq!(one.advance(&REPLY[..end]), Ok(None));
            assert!(one.needs > end && one.needs <= REPLY.len());
        }
        assert_eq!(one.advance(REPLY), Ok(Some(REPLY.len())));
    }

    #[test]
    fn a_broken_reply_is_an_error_at_once() {
        for bad in [
            "hello\r\n",
            "$x\r\n",
            "$-2\r\n",
            "$\r\n",
            "$3\r\nabcd\r\n",
            "*99999999999999999999\r\n",
            "$9999999999\r\n",
            ":1\n",
            "\r\n",
            "_x\r\n",
            "%-2\r\n",
        ] {
            assert!(scan(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let long = vec![b'+'; LONGEST_LINE];
        assert!(scan(&long).is_err());
    }

    #[test]
    fn a_push_reads_as_an_array() {
        let push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
        let mut walk = Walk::new(Bytes::from_static(push));
        assert_eq!(walk.array(), Ok(2));
        assert_eq!(walk.payload(), Ok(Bytes::from_static(b"invalidate")));
        assert_eq!(walk.array(), Ok(1));
        assert_eq!(walk.payload(), Ok(Bytes::from_static(b"k")));
        let mut walk = Walk::new(Bytes::from_static(b"%1\r\n+x\r\n_\r\n"));
        assert_eq!(walk.array(), Ok(2));
        assert_eq!(walk.next(), Ok(Head::Status(Bytes::from_static(b"x"))));
        assert_eq!(walk.next(), Ok(Head::Nil));
    }

    #[test]
    fn deeply_nested_arrays_cost_no_stack() {
        let deep = b"*1\r\n".repeat(1_000_000);
        assert_eq!(scan(&deep), Ok(None));
        let deep = [deep, b":1\r\n".to_vec()].concat();
        assert_eq!(scan(&deep), Ok(Some(deep.len())));
    }

    #[test]
    fn a_walk_gives_slices_of_the_reply() {
        let reply = Bytes::from_static(REPLY);
        let mut walk = Walk::new(reply.clone());
        assert_eq!(walk.array(), Ok(1));
        assert_eq!(walk.array(), Ok(2));
        let name = walk.payload().unwrap();
        assert_eq!(name, "log");
        assert!(reply.as_ptr_range().contains(&name.as_ptr()), "not copied");
        assert_eq!(walk.array(), Ok(2));
        assert_eq!(walk.array(), Ok(2));
        assert_eq!(walk.payload().unwrap(), "1-1");
        assert_eq!(walk.array(), Ok(2));
        assert_eq!(walk.payload().unwrap(), "json");
        assert_eq!(walk.payload().unwrap(), "{}");
        assert_eq!(walk.array(), Ok(2));
        assert_eq!(walk.payload().unwrap(), "2-1");
        assert_eq!(walk.array(), Ok(0), "a removed entry has no fields");
        assert!(walk.next().is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_a_scanned_reply_can_be_walked(
            bytes in prop::collection::vec(prop_oneof![
                Just(b'*'), Just(b'$'), Just(b':'), Just(b'+'), Just(b'-'), Just(b'\r'), Just(b'\n'),
                Just(b'0'), Just(b'1'), Just(b'2'), any::<u8>()
            ], 0..64)
        ) {
            if let Ok(Some(length)) = scan(&bytes) {
                prop_assert!(length <= bytes.len());
                let mut walk = Walk::new(Bytes::copy_from_slice(&bytes[..length]));
                while !walk.rest.is_empty() {
                    prop_assert!(walk.next().is_ok());
                }
            }
        }

        #[test]
        fn payloads_of_any_bytes_come_through(payloads in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let mut reply = format!("*{}\r\n", payloads.len()).into_bytes();
            for payload in &payloads {
                reply.extend(format!("${}\r\n", payload.len()).into_bytes());
                reply.extend(payload);
                reply.extend(b"\r\n");
            }
            prop_assert_eq!(scan(&reply), Ok(Some(reply.len())));
            let mut walk = Walk::new(Bytes::from(reply));
            prop_assert_eq!(walk.array(), Ok(payloads.len()));
            for payload in payloads {
                prop_assert_eq!(walk.payload().unwrap(), payload);
            }
        }
    }
}
