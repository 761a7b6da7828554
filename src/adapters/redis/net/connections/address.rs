//! A server's address as errors show it: host and port, or the path of a unix socket. It never
//! contains the user or the password.

use redis::ConnectionAddr;

pub(in crate::adapters::redis::net) fn text(address: &ConnectionAddr) -> String {
    match address {
        // The colons of an IPv6 address would run into the port.
        ConnectionAddr::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
        address => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use redis::IntoConnectionInfo as _;

    use super::text;

    #[test]
    fn an_address_has_neither_user_nor_password_nor_database() {
        for (url, expected) in [
            ("redis://ann:secret@example.org:7000/3", "example.org:7000"),
            ("redis://localhost", "localhost:6379"),
            ("redis://:secret@[2001:db8::1]:7000", "[2001:db8::1]:7000"),
            (
                "unix:///run/redis.sock?user=ann&pass=secret&db=3",
                "/run/redis.sock",
            ),
        ] {
            let info = url.into_connection_info().unwrap();
            assert_eq!(text(info.addr()), expected);
        }
    }
}
