//! A server's address as errors show it: host and port, or the path of a unix socket. It never
//! contains the user or the password.

use redis::ConnectionAddr;

pub(super) fn text(address: &ConnectionAddr) -> String {
    match address {
        // The colons of an IPv6 address would run into the port.
        ConnectionAddr::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
        address => address.to_string(),
    }
}
