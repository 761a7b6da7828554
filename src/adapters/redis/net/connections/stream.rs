//! Byte streams to the server: TCP, TLS over TCP, or a unix socket. All connections use them.

use std::io;
use std::mem::MaybeUninit;

use redis::io::tcp::socket2::{SockRef, Socket, TcpKeepalive};
use redis::{ConnectionAddr, ConnectionInfo, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::Tls;
use crate::adapters::redis::net::error::NoConnection;

/// A byte stream that carries the protocol.
pub(in crate::adapters::redis) trait Stream:
    AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug
{
    /// The operating system's socket below the stream.
    fn socket(&self) -> SockRef<'_>;
}

impl Stream for TcpStream {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }
}

#[cfg(unix)]
impl Stream for tokio::net::UnixStream {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }
}

#[cfg(feature = "tls")]
impl Stream for tokio_rustls::client::TlsStream<TcpStream> {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self.get_ref().0)
    }
}

/// Whether a connection without unanswered commands is unusable: the server has closed it, or has
/// sent bytes that no command asked for.
///
/// Asks the operating system and does not wait. The runtime may learn of a closed socket later, when
/// its thread was blocked or nobody drives it.
pub(in crate::adapters::redis) fn is_closed(idle: &Socket) -> bool {
    let open = idle.peek(&mut [MaybeUninit::uninit()]);
    !open.is_err_and(|nothing| nothing.kind() == io::ErrorKind::WouldBlock)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_idle_connection_is_noticed_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        assert!(!is_closed(&stream.socket()));
        drop(peer);
        assert!(is_closed(&stream.socket()));
    }
}
