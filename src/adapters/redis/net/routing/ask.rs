//! Asks the nodes of a cluster which node holds which slot.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::{ErrorKind as Kind, RedisError};
use tokio::time::{sleep, timeout};

use super::node::Node;
use super::slots::{self, Range};
use crate::adapters::redis::net::commands::Failure;
use crate::adapters::redis::net::error;
use crate::adapters::redis::resp::{pack, reply};

/// How long a node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// When the next node is asked, too, at the latest.
const NEXT_AFTER: Duration = Duration::from_millis(100);
/// How long all nodes are asked at the latest. The last one has its own time to answer after that.
const ALL_WITHIN: Duration = Duration::from_secs(1);

/// Asks the nodes in their order, and the next one before a silent one has answered. Returns the first
/// answer, with the node that gave it.
pub(super) async fn any(nodes: Vec<Arc<Node>>) -> Result<(Arc<Node>, Vec<Range>), Failure> {
    let pause = NEXT_AFTER.min(ALL_WITHIN / u32::try_from(nodes.len().max(1)).unwrap_or(u32::MAX));
    let mut rest = nodes.into_iter();
    let mut asked = FuturesUnordered::new();
    let mut failure = Failure::of_ended_task();
    loop {
        if let Some(node) = rest.next() {
            asked.push(async move {
                let answer = timeout(ANSWER_WITHIN, one(&node)).await;
                (node, answer)
            });
        } else if asked.is_empty() {
            return Err(failure);
        }
        tokio::select! {
            Some((node, answer)) = asked.next() => match answer {
                Ok(Ok(ranges)) => return Ok((node, ranges)),
                Ok(Err(one)) => failure = one,
                Err(_) => {}
            },
            () = sleep(pause), if rest.len() > 0 => {}
        }
    }
}

async fn one(node: &Node) -> Result<Vec<Range>, Failure> {
    let mut packed = Vec::new();
    pack(&mut packed, &[b"CLUSTER", b"SLOTS"]);
    let mut replies = node.looker.send(packed, 1).await?;
    let reply = replies
        .pop()
        .unwrap_or_else(|| Err(reply::unexpected("no reply")));
    let ranges = reply
        .and_then(|reply| redis::parse_redis_value(&reply))
        .and_then(slots::read)
        .map_err(|cause| Failure::Unknown(explained(node, cause)))?;
    if ranges.is_empty() {
        let text = "CLUSTERDOWN the cluster has no slots";
        return Err(Failure::Unknown(error::server_error(text)));
    }
    Ok(ranges)
}

/// Says in plain words that a server has no cluster.
fn explained(node: &Node, cause: RedisError) -> RedisError {
    if cause.to_string().contains("cluster support disabled") {
        let text = format!(
            "the server at {} is not a node of a cluster; its URL begins with redis://",
            node.address()
        );
        return (Kind::InvalidClientConfig, "not a cluster", text).into();
    }
    cause
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::time::Instant;

    use super::*;
    use crate::adapters::redis::net::connections::access::Access;
    use crate::adapters::redis::net::connections::server::Server;
    use crate::adapters::redis::net::routing::nodes::Nodes;

    #[tokio::test]
    async fn many_silent_nodes_are_asked_side_by_side() {
        // The system accepts the connections of a listener that nobody serves.
        let silent: Vec<_> = (0..12)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let addresses = silent
            .iter()
            .map(|one| one.local_addr().unwrap().to_string());
        let addresses: Vec<_> = addresses.collect();
        let url = format!("redis+cluster://{}", addresses.join(","));
        let found = Server::read(&url, &Access::default()).unwrap();
        assert_eq!(found.servers.len(), 12);
        let nodes = Nodes::new(found).unwrap();
        let began = Instant::now();
        nodes.learn().await.unwrap_err();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(7), "{took:?}");
    }
}
