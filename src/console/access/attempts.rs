//! Counts wrong passwords by address, so that nobody guesses.
//!
//! An attempt counts from its beginning: guesses that are sent at once count like guesses in turn.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Wrong passwords of an address in a window before it has to wait.
const ALLOWED: u32 = 5;

const WINDOW: Duration = Duration::from_secs(60);

/// How many addresses are counted. Beyond, windows that have ended leave.
const ADDRESSES: usize = 10_000;

#[derive(Default)]
pub(super) struct Attempts(Mutex<HashMap<IpAddr, (Instant, u32)>>);

/// An attempt that counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Attempt {
    address: IpAddr,
    window: Instant,
}

impl Attempts {
    /// Counts an attempt. The error is the time that the address has to wait before its next one.
    pub(super) fn begin(&self, address: IpAddr, now: Instant) -> Result<Attempt, Duration> {
        let address = network(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= ADDRESSES {
            counts.retain(|_, (begun, _)| now.duration_since(*begun) < WINDOW);
        }
        let (begun, count) = counts.entry(address).or_insert((now, 0));
        let passed = now.duration_since(*begun);
        if passed >= WINDOW {
            (*begun, *count) = (now, 0);
        } else if *count >= ALLOWED {
            return Err(WINDOW - passed);
        }
        *count += 1;
        let window = *begun;
        Ok(Attempt { address, window })
    }

    /// Counts an attempt no more: the password was right.
    pub(super) fn forgive(&self, attempt: Attempt) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((begun, count)) = counts.get_mut(&attempt.address)
            && *begun == attempt.window
        {
            *count = count.saturating_sub(1);
        }
    }
}

/// A host of IPv6 has a whole network of addresses to choose from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_after_five_wrong_passwords_in_a_minute() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (one, other) = (address("2001:db8::1"), address("10.0.0.1"));
        for _ in 0..ALLOWED - 1 {
            assert!(attempts.begin(one, now).is_ok());
        }
        let right = attempts.begin(one, now).unwrap();
        assert_eq!(attempts.begin(one, now), Err(WINDOW));
        assert!(attempts.begin(address("2001:db8::2"), now).is_err());
        assert!(attempts.begin(other, now).is_ok());
        attempts.forgive(right);
        assert!(attempts.begin(one, now).is_ok());
        assert!(attempts.begin(one, now).is_err());
        let later = now + WINDOW;
        for _ in 0..ALLOWED {
            assert!(attempts.begin(one, later).is_ok());
        }
        // It counted in a window that has ended.
        attempts.forgive(right);
        assert!(attempts.begin(one, later).is_err());
    }
}
