//! The requests that set a fault off, as the proxy reads them: in pieces.

use crate::proxied::{Trap, Watch};

const RETRY: &[u8] = b"$4\r\nredo\r\n$3\r\n1-0\r\n$10\r\nreschedule\r\n$2\r\n10\r\n";

#[test]
fn a_sign_is_seen_once_wherever_its_request_is_split() {
    for at in 1..RETRY.len() {
        let (first, second) = RETRY.split_at(at);
        let mut watch = Watch::default();
        let seen = [first, second, b"$4\r\n"].map(|piece| watch.sees(Trap::Retry, piece));
        assert_eq!(
            seen.iter().filter(|seen| **seen).count(),
            1,
            "split at {at}"
        );
    }
}

#[test]
fn other_requests_set_nothing_off() {
    assert!(!Watch::default().sees(Trap::Claim, RETRY));
    let mut watch = Watch::default();
    // A message may hold the word.
    assert!(!watch.sees(Trap::Retry, b"$14\r\n{\"reschedule\"}\r\n"));
    // Of the first half of a request, cut off long ago.
    assert!(!watch.sees(Trap::Retry, &RETRY[..25]));
    watch.clear();
    assert!(!watch.sees(Trap::Retry, &RETRY[25..]));
}
