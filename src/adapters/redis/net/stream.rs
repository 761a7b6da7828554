//! The bytes' way to the server: TCP, TLS over it, or a unix socket. All connections take it.

use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{ConnectionAddr, ConnectionInfo, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::Tls;

/// Whatever carries the protocol.
pub(in crate::adapters::redis) trait Stream:
    AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug
{
}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug> Stream for T {}

/// Connects; by TLS where there is one, and never without it then.
pub(in crate::adapters::redis) async fn open(
    info: &ConnectionInfo,
    tls: Option<&Tls>,
) -> Result<Box<dyn Stream>, RedisError> {
    match (info.addr(), tls) {
        (ConnectionAddr::Tcp(host, port), tls) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            // Both are off by default: small writes would wait for acknowledgements, and a peer
            // that vanished would never be noticed on a connection that only reads.
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
            Err((redis::ErrorKind::InvalidClientConfig, what).into())
        }
    }
}

/// Notices a peer that vanished after some 30 seconds.
fn keepalive() -> TcpKeepalive {
    use std::time::Duration;
    TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
}
