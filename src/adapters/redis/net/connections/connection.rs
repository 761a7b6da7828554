//! A pooled connection as exchanges see it.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisFuture, Value};

/// A connection that can ask a node for keys of a slot that is moving to it.
#[derive(Debug)]
pub(in crate::adapters::redis) struct Connection {
    inner: MultiplexedConnection,
    asking: bool,
}

impl Connection {
    pub(in crate::adapters::redis::net) fn new(inner: MultiplexedConnection) -> Self {
        let asking = false;
        Self { inner, asking }
    }

    pub(in crate::adapters::redis::net) fn set_asking(&mut self, asking: bool) {
        self.asking = asking;
    }

    /// Sends each command behind an ASKING, which holds for one command only.
    async fn ask(
        &mut self,
        commands: impl Iterator<Item = &Cmd>,
    ) -> Result<Vec<Value>, redis::RedisError> {
        let mut pipeline = redis::pipe();
        for command in commands {
            pipeline.cmd("ASKING").add_command(command.clone());
        }
        let count = pipeline.len();
        let replies = self.inner.req_packed_commands(&pipeline, 0, count).await?;
        Ok(replies.into_iter().skip(1).step_by(2).collect())
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        if !self.asking {
            return self.inner.req_packed_command(command);
        }
        Box::pin(async move {
            let mut replies = self.ask(std::iter::once(command)).await?;
            replies.pop().unwrap_or(Value::Nil).extract_error()
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        // A transaction has another number of replies; the adapter sends none.
        if !self.asking || pipeline.is_transaction() {
            return self.inner.req_packed_commands(pipeline, offset, count);
        }
        Box::pin(self.ask(pipeline.cmd_iter()))
    }

    fn get_db(&self) -> i64 {
        self.inner.get_db()
    }
}
