//! A connection for blocking reads, and how to end its read early.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, RedisError};

use super::error::{self, NoConnection, Step};
use super::pool::Pool;
use super::server::Server;
use super::socket::{Socket, within};
use crate::adapters::redis::resp::{Head, reply};
use crate::domain::Error;

/// How long a connection may be silent, beyond the blocking time of a read, before it counts as dead.
const GRACE: Duration = Duration::from_secs(5);

/// A connection that one reader owns. A blocking read would hold up every other command on it.
#[derive(Debug)]
pub(in crate::adapters::redis) struct ReaderConnection {
    socket: Socket,
}

impl ReaderConnection {
    /// Sends a command that blocks for at most `wait`, and waits for its reply.
    ///
    /// Not cancel safe: after a drop the connection holds a reply that nobody reads.
    pub(in crate::adapters::redis) async fn exchange(
        &mut self,
        command: &Cmd,
        wait: Duration,
    ) -> Result<Bytes, RedisError> {
        // The limits are for silence. A reply of many megabytes takes its time on a slow link, and a
        // late one still comes: no other time limit ends the read.
        let first = async {
            self.socket.write(&command.get_packed_command()).await?;
            self.socket.fill().await
        };
        within(wait + GRACE, first).await?;
        loop {
            match self.socket.reply()? {
                Some(reply) => return reply,
                None => within(GRACE, self.socket.fill()).await?,
            }
        }
    }
}

/// Ends the blocking read of one connection. `CLIENT UNBLOCK` goes to the server that the
/// connection goes to, wherever the reader's key lies by now.
#[derive(Debug)]
pub(in crate::adapters::redis) struct Unblock {
    pool: Pool,
    client: i64,
}

impl Unblock {
    pub(in crate::adapters::redis) async fn unblock(
        &self,
        operation: &'static str,
    ) -> Result<(), Error> {
        self.pool
            .run(operation, async |connection| {
                redis::cmd("CLIENT")
                    .arg("UNBLOCK")
                    .arg(self.client)
                    .exec_async(connection)
                    .await
            })
            .await
    }
}

pub(super) async fn open(
    operation: &'static str,
    server: &Server,
    pool: &Pool,
    name: &str,
) -> Result<(ReaderConnection, Unblock), Error> {
    let opening = async {
        let mut socket = server.connect_socket(name).await?;
        let asking = redis::cmd("CLIENT").arg("ID").to_owned();
        let unusable = |cause| NoConnection {
            step: Step::Introduce,
            cause,
        };
        let answer = within(GRACE, socket.command(&asking)).await;
        match answer.map_err(unusable)? {
            Head::Integer(client) => Ok((socket, client)),
            _ => Err(unusable(reply::unexpected("CLIENT ID"))),
        }
    };
    let (socket, client) = opening
        .await
        .map_err(|failure| error::no_connection(operation, server.address(), failure))?;
    let unblock = Unblock {
        pool: pool.clone(),
        client,
    };
    Ok((ReaderConnection { socket }, unblock))
}
