//! Requests that set a fault off: the proxy looks for them in the traffic.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a request is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Trap {
    /// A consumer claims the deliveries whose lease has expired.
    Claim,
    /// A consumer settles a failed attempt, so that the message comes again.
    Retry,
}

/// The call of the script that claims names its hash.
static CLAIM: LazyLock<String> = LazyLock::new(|| {
    let script = redis::Script::new(include_str!("../../lua/claim_expired.lua"));
    script.get_hash().to_owned()
});

impl Trap {
    fn sign(self) -> &'static [u8] {
        match self {
            Self::Claim => CLAIM.as_bytes(),
            Self::Retry => b"\r\n$10\r\nreschedule\r\n",
        }
    }
}

/// Looks through the requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The end of the piece before: a sign may begin there.
    tail: Vec<u8>,
}

impl Watch {
    /// Whether a request that sets the trap off ends in this piece.
    pub(crate) fn sees(&mut self, trap: Trap, piece: &[u8]) -> bool {
        let sign = trap.sign();
        self.tail.extend_from_slice(piece);
        let sees = self.tail.windows(sign.len()).any(|part| part == sign);
        let keep = self.tail.len().min(sign.len() - 1);
        self.tail.drain(..self.tail.len() - keep);
        sees
    }

    pub(crate) fn clear(&mut self) {
        self.tail.clear();
    }
}

/// Fills the server's memory for so long. Returns when it is full.
pub(crate) async fn fill(server: SocketAddr, lasts: Duration) -> std::io::Result<()> {
    let mut admin = TcpStream::connect(server).await?;
    set_limit(&mut admin, 1).await?;
    tokio::spawn(async move {
        tokio::time::sleep(lasts).await;
        // After a failure the end of the fault sets the limit.
        let _ = set_limit(&mut admin, 0).await;
    });
    Ok(())
}

async fn set_limit(admin: &mut TcpStream, bytes: u64) -> std::io::Result<()> {
    let command = format!("CONFIG SET maxmemory {bytes}\r\n");
    admin.write_all(command.as_bytes()).await?;
    let mut reply = [0; 64];
    let length = admin.read(&mut reply).await?;
    match &reply[..length] {
        [b'+', ..] => Ok(()),
        _ => Err(std::io::ErrorKind::Other.into()),
    }
}
