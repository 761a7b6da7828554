//! Runs commands of several slots: one pipeline for each node.

use std::sync::Arc;

use futures_util::future::join_all;
use redis::aio::ConnectionLike as _;
use redis::{Cmd, FromRedisValue, Value};

use super::Net;
use super::connections::pool::Failure;
use super::error;
use super::redirect;
use super::routing::node::Node;
use crate::adapters::redis::resp::reply;
use crate::domain::{Error, ErrorKind};

/// The state of one command.
enum Single {
    Done(Value),
    /// It was certainly not done, and another attempt may do it.
    Again,
    Failed(Error),
}

impl Net {
    /// Runs commands whose keys lie in different slots; each names its own. Returns a result for
    /// each, in the order of the commands: some may be done where others fail.
    pub(in crate::adapters::redis) async fn run_each<T: FromRedisValue>(
        &self,
        operation: &'static str,
        commands: &[(String, Cmd)],
    ) -> Vec<Result<T, Error>> {
        if let Err(error) = self.nodes.ready(operation).await {
            return commands.iter().map(|_| Err(error.clone())).collect();
        }
        let mut by_node: Vec<(Arc<Node>, Vec<usize>)> = Vec::new();
        for (number, (key, _)) in commands.iter().enumerate() {
            let owner = self.nodes.owner(self.nodes.slot(key));
            match by_node
                .iter_mut()
                .find(|(node, _)| Arc::ptr_eq(node, &owner))
            {
                Some((_, numbers)) => numbers.push(number),
                None => by_node.push((owner, vec![number])),
            }
        }
        let portions = by_node.into_iter().map(|(node, numbers)| async move {
            let portion = numbers.iter().map(|number| &commands[*number].1);
            let replies = self.run_portion(operation, &node, portion).await;
            numbers.into_iter().zip(replies)
        });
        let mut singles: Vec<_> = join_all(portions).await.into_iter().flatten().collect();
        singles.sort_by_key(|(number, _)| *number);
        let mut results = Vec::with_capacity(commands.len());
        let mut gives_up = false;
        for ((_, single), (key, command)) in singles.into_iter().zip(commands) {
            let value = match single {
                Single::Done(value) => Ok(value),
                Single::Failed(error) => Err(error),
                Single::Again if gives_up => {
                    let rule = "a command before it in the same call failed; it was not sent";
                    Err(Error::new(ErrorKind::Unavailable, operation, rule))
                }
                Single::Again => {
                    let again = self.run(operation, key, async |connection| {
                        connection
                            .req_packed_command(command)
                            .await?
                            .extract_error()
                    });
                    let again = again.await;
                    // Each attempt lasts seconds where a node is down.
                    gives_up = again.is_err();
                    again
                }
            };
            let read = |value| reply::typed(value).map_err(|cause| error::sent(operation, cause));
            results.push(value.and_then(read));
        }
        results
    }

    /// Runs commands on one node, and says which of them were certainly not done.
    async fn run_portion(
        &self,
        operation: &'static str,
        node: &Node,
        commands: impl Iterator<Item = &Cmd>,
    ) -> Vec<Single> {
        let mut pipeline = redis::pipe();
        for command in commands {
            pipeline.add_command(command.clone());
        }
        let count = pipeline.len();
        let ran = node.pool.run(false, async |connection| {
            connection.req_packed_commands(&pipeline, 0, count).await
        });
        let single = |value: Value| match &value {
            Value::ServerError(cause) if redirect::of_server(cause).is_some() => Single::Again,
            _ => Single::Done(value),
        };
        match ran.await {
            Ok(replies) => replies.into_iter().map(single).collect(),
            Err(Failure::NotSent(cause)) if self.nodes.may_change() && cause.is_passing() => {
                (0..count).map(|_| Single::Again).collect()
            }
            Err(failure) => {
                let error = node.pool.error(operation, failure);
                (0..count).map(|_| Single::Failed(error.clone())).collect()
            }
        }
    }
}
