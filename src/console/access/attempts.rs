//! Counts wrong passwords by address, so that nobody guesses.

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

impl Attempts {
    /// How long the address has to wait before its next attempt.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, count) = counts.get(&network(address))?;
        let left = WINDOW.checked_sub(now.duration_since(*begun))?;
        (*count >= ALLOWED).then_some(left)
    }

    /// Counts a wrong password.
    pub(super) fn count(&self, address: IpAddr, now: Instant) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= ADDRESSES {
            counts.retain(|_, (begun, _)| now.duration_since(*begun) < WINDOW);
        }
        let (begun, count) = counts.entry(network(address)).or_insert((now, 0));
        if now.duration_since(*begun) >= WINDOW {
            (*begun, *count) = (now, 0);
        }
        *count += 1;
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
        for _ in 0..ALLOWED {
            assert_eq!(attempts.wait(one, now), None);
            attempts.count(one, now);
        }
        assert!(attempts.wait(one, now).is_some());
        assert!(attempts.wait(address("2001:db8::2"), now).is_some());
        assert_eq!(attempts.wait(other, now), None);
        let later = now + WINDOW + Duration::from_millis(1);
        assert_eq!(attempts.wait(one, later), None);
        attempts.count(one, later);
        assert_eq!(attempts.wait(one, later), None);
    }
}
