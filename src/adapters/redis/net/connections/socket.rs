//! A connection whose replies are read in place.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use redis::{Cmd, RedisError, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::stream::{self, Stream};
use crate::adapters::redis::net::error::is_alert;

use crate::adapters::redis::resp::{Head, Scan, Walk, reply};

/// How many bytes one read may bring.
const CHUNK: usize = 64 * 1024;

/// How many bytes one limited write carries. A link that takes longer than a limit for them is too slow.
pub(in crate::adapters::redis::net) const PART: usize = 256 * 1024;
/// How long to read what the server said before it ended the connection.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A socket and the bytes read from it.
#[derive(Debug)]
pub(in crate::adapters::redis) struct Socket {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    /// How far the scan of the next reply has come.
    scan: Scan,
}

impl Socket {
    /// Closes the connection so that the operating system sends nothing of it any more: a command whose
    /// outcome is unknown must not reach the server later.
    pub(in crate::adapters::redis::net) fn abandon(self) {
        let _ = self.stream.socket().set_linger(Some(Duration::ZERO));
    }

    pub(in crate::adapters::redis::net) fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            buffer: BytesMut::with_capacity(CHUNK),
            scan: Scan::new(),
        }
    }

    /// Whether the server has closed the connection. Only for a connection on which no reply is
    /// due.
    pub(in crate::adapters::redis::net) fn is_closed(&self) -> bool {
        stream::is_closed(&self.stream.socket())
    }

    /// Sends a command and waits for its reply, which must not be an error.
    pub(in crate::adapters::redis) async fn command(
        &mut self,
        command: &Cmd,
    ) -> Result<Head, RedisError> {
        let reply = self.exchange(command).await?;
        Ok(Walk::new(reply).next()?)
    }

    /// The same for a command of the handshake. Where the connection fails, says why the server has
    /// ended it: an alert of TLS may have come before the first write failed.
    pub(in crate::adapters::redis::net) async fn introduce(
        &mut self,
        command: &Cmd,
    ) -> Result<Head, RedisError> {
        match self.command(command).await {
            Err(cause) if cause.is_io_error() && !is_alert(&cause) => {
                let reading = async {
                    loop {
                        self.fill().await?;
                    }
                };
                let last: Result<(), RedisError> = within(LAST_WORDS, reading).await;
                Err(last.err().filter(is_alert).unwrap_or(cause))
            }
            answered => answered,
        }
    }

    /// Gives up the socket for its stream. Only for a connection on which no reply is due.
    pub(in crate::adapters::redis::net) fn into_stream(
        self,
    ) -> Result<Box<dyn Stream>, RedisError> {
        if self.buffer.is_empty() {
            return Ok(self.stream);
        }
        Err(reply::unexpected("a reply that no command asked for"))
    }

    /// Sends a command and waits for its reply, complete and unparsed.
    ///
    /// Not cancel safe: a dropped future leaves half a command or an unread reply behind.
    pub(in crate::adapters::redis) async fn exchange(
        &mut self,
        command: &Cmd,
    ) -> Result<Bytes, RedisError> {
        self.write(&command.get_packed_command()).await?;
        loop {
            match self.reply()? {
                Some(reply) => return reply,
                None => self.fill().await?,
            }
        }
    }

    /// Writes packed commands. Not cancel safe.
    pub(in crate::adapters::redis) async fn write(
        &mut self,
        packed: &[u8],
    ) -> Result<(), RedisError> {
        self.stream.write_all(packed).await?;
        // Without a flush TLS can hold a part back.
        Ok(self.stream.flush().await?)
    }

    /// Writes packed commands, however long that takes, unless the server takes none for a time. Not
    /// cancel safe.
    pub(in crate::adapters::redis::net) async fn write_unless_silent(
        &mut self,
        packed: &[u8],
        limit: Duration,
    ) -> Result<(), RedisError> {
        for part in packed.chunks(PART) {
            within(limit, self.write(part)).await?;
        }
        Ok(())
    }

    /// Waits for more bytes and reads them. Cancel safe.
    pub(in crate::adapters::redis) async fn fill(&mut self) -> Result<(), RedisError> {
        // Reserve the missing bytes of a large reply at once instead of growing step by step.
        let missing = self.scan.needs.saturating_sub(self.buffer.len());
        if self.buffer.capacity() - self.buffer.len() < missing.max(CHUNK / 4) {
            self.buffer.reserve(missing.max(CHUNK));
        }
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(())
    }

    /// The next reply, if it has been read completely: its bytes, or the error that it contains.
    pub(in crate::adapters::redis) fn reply(
        &mut self,
    ) -> Result<Option<Result<Bytes, RedisError>>, RedisError> {
        let Some(length) = self.scan.advance(&self.buffer)? else {
            return Ok(None);
        };
        self.scan = Scan::new();
        let reply = self.buffer.split_to(length).freeze();
        Ok(Some(match reply.first() {
            Some(b'-') => Err(refusal(&reply)),
            _ => Ok(reply),
        }))
    }
}

/// An error inside a larger reply.
pub(in crate::adapters::redis) fn refusal_of(text: &[u8]) -> RedisError {
    refusal(&[b"-", text, b"\r\n"].concat())
}

/// The error that a reply contains, in the redis crate's form, as pooled connections report it.
fn refusal(reply: &[u8]) -> RedisError {
    match redis::parse_redis_value(reply) {
        Ok(Value::ServerError(error)) => error.into(),
        Ok(_) => reply::unexpected("no error"),
        Err(error) => error,
    }
}

/// Waits for some work, but no longer than a time; then fails as a connection that timed out.
pub(in crate::adapters::redis::net) async fn within<T, E: From<io::Error>>(
    time: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let began = Instant::now();
    tokio::time::timeout(time, work)
        .await
        .unwrap_or_else(|_| Err(timed_out(time, began).into()))
}

/// The error of a wait that was as long as its limit, by the clock of the runtime.
pub(in crate::adapters::redis::net) fn timed_out(limit: Duration, began: Instant) -> io::Error {
    let waited = began.elapsed();
    // The server needs real time, and a paused clock jumps to the limit as soon as every task waits.
    if waited < limit / 2 {
        let (waited, limit) = (waited.as_millis(), limit.as_millis());
        let text = format!(
            "timed out after {waited} ms instead of {limit} ms: the clock of tokio is paused; \
             use a running clock beside a real server"
        );
        return io::Error::new(io::ErrorKind::TimedOut, text);
    }
    io::ErrorKind::TimedOut.into()
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use redis::io::tcp::socket2::SockRef;
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::*;

    /// A connection that the server has ended by an alert, which nobody has read yet.
    #[derive(Debug)]
    struct Ended(std::net::UdpSocket);

    impl AsyncRead for Ended {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let said = "received fatal alert: UnknownCA";
            Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, said)))
        }
    }

    impl AsyncWrite for Ended {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Stream for Ended {
        fn socket(&self) -> SockRef<'_> {
            SockRef::from(&self.0)
        }
    }

    #[tokio::test]
    async fn an_alert_is_read_where_the_first_write_has_failed() {
        let ended = Ended(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut socket = Socket::new(Box::new(ended));
        let cause = socket.introduce(&redis::cmd("PING")).await.unwrap_err();
        assert!(is_alert(&cause), "{cause}");
    }

    #[test]
    fn a_limit_that_passed_too_soon_tells_of_the_paused_clock() {
        let limit = Duration::from_secs(5);
        let text = timed_out(limit, Instant::now()).to_string();
        assert!(
            text.contains("instead of 5000 ms: the clock of tokio is paused"),
            "{text}"
        );
        let Some(began) = Instant::now().checked_sub(limit) else {
            return;
        };
        let plain = timed_out(limit, began);
        assert_eq!(plain.kind(), io::ErrorKind::TimedOut);
        assert!(!plain.to_string().contains("paused"), "{plain}");
    }
}
