//! Byte streams to the server: TCP, TLS over TCP, or a unix socket. All connections use them.

use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{ConnectionAddr, ConnectionInfo, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::error::NoConnection;
use super::tls::Tls;

/// A byte stream that carries the protocol.
pub(in crate::adapters::redis) trait Stream:
    AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug
{
}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug> Stream for T {}

/// Connects. With TLS settings it never falls back to a plain connection.
pub(in crate::adapters::redis) async fn open(
    info: &ConnectionInfo,
    tls: Option<&Tls>,
) -> Result<Box<dyn Stream>, NoConnection> {
    match (info.addr(), tls) {
        (ConnectionAddr::Tcp(host, port), tls) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            // Both are off by default. Without the first, small writes wait for acknowledgements;
            // without the second, a connection that only reads never notices a vanished peer.
            stream.set_nodelay(true)?;
            SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
            match tls {
                Some(tls) => Ok(Box::new(tls.over(host, stream).await?)),
                None => Ok(Box::new(stream)),
            }
        }
        #[cfg(unix)]
        (ConnectionAddr::Unix(path), None) => {
            Ok(Box::new(tokio::net::UnixStream::connect(path).await?))
        }
        _ => {
            let what = "this kind of address is not supported";
            Err(RedisError::from((redis::ErrorKind::InvalidClientConfig, what)).into())
        }
    }
}

/// Detects a vanished peer after about 30 seconds.
fn keepalive() -> TcpKeepalive {
    use std::time::Duration;
    TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
}
