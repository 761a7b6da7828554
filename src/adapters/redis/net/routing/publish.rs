//! Publishes whose order survives redirects.
//!
//! A publish enters the queue of its slot's node at the call, so a node appends in the order of the
//! calls. When a node has not done a publish, the slot's gate closes: younger publishes of the slot
//! wait, those that were under way come back in their order, and one task sends all of them again,
//! the oldest first. The gate opens when a round was done completely.

use std::sync::Arc;

use futures_util::future::Either;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::gate::Gate;
use super::nodes::Nodes;
use super::pause::PUBLISH_LIMIT;
use super::repeat::work_off;
use crate::adapters::redis::net::commands::{Answer, Commands, Failure, TakesBack};
use crate::adapters::redis::net::connections::server::RESPONSE_TIMEOUT;
use crate::adapters::redis::net::numbers::Numbers;
use crate::adapters::redis::net::redirect::{Undone, undone};

impl Nodes {
    /// Sends packed commands of one slot in the order of the calls, and repeats those that were
    /// certainly not done.
    pub(in crate::adapters::redis::net) fn publish(
        &self,
        slot: u16,
        call: u64,
        packed: Vec<u8>,
        count: usize,
        numbers: Option<Box<Numbers>>,
    ) -> impl Future<Output = Answer> + Send + use<> {
        {
            let routes = self.routes();
            if !routes.gates.contains_key(&slot) {
                let node = routes.map.owner(slot);
                let publisher = &node.publisher;
                return Either::Left(publisher.send_in_order(
                    Some(slot),
                    call,
                    packed,
                    count,
                    numbers,
                ));
            }
        }
        let mut routes = self.change();
        let (caller, answer) = oneshot::channel();
        let commands = Commands {
            slot: Some(slot),
            call,
            packed,
            count,
            numbers,
            caller,
        };
        let gate = match routes.gates.get_mut(&slot) {
            Some(gate) => {
                gate.park(commands);
                self.work_off(slot, gate);
                Some(Arc::clone(gate.identity()))
            }
            // It has opened meanwhile.
            None => {
                routes.map.owner(slot).publisher.forward(commands);
                None
            }
        };
        let nodes = self.weak();
        Either::Right(async move {
            // The task ends with its runtime, and it does not run while nobody drives that.
            let answered = timeout(PUBLISH_LIMIT + 2 * RESPONSE_TIMEOUT, answer).await;
            if let (Err(_), Some(gate), Some(nodes)) = (&answered, gate, nodes.upgrade()) {
                nodes.remove_gate(slot, &gate);
            }
            let answered = answered.unwrap_or_else(|_| Ok(Err(Failure::of_ended_task())));
            answered.unwrap_or_else(|_| Err(Failure::of_ended_task()))
        })
    }

    /// Removes a gate that nobody works off any more. Publishes that wait there fail; later ones go to the
    /// slot's owner.
    pub(super) fn remove_gate(&self, slot: u16, identity: &Arc<()>) {
        let mut routes = self.change();
        let is_this = |gate: &Gate| Arc::ptr_eq(gate.identity(), identity);
        if routes.gates.get(&slot).is_some_and(is_this) {
            routes.gates.remove(&slot);
        }
    }

    /// Starts the task that works a gate off, if none does.
    fn work_off(&self, slot: u16, gate: &mut Gate) {
        if gate.begin() {
            let identity = Arc::clone(gate.identity());
            tokio::spawn(work_off(self.weak(), (slot, identity), gate.former()));
        }
    }
}

impl TakesBack for Nodes {
    fn take_back(&self, address: &Arc<str>, commands: Commands, answer: Answer) {
        let repeats = self.repeats(&answer)
            || matches!(answer, Err(Failure::Unknown(_))) && commands.may_repeat();
        let Some(slot) = commands.slot.filter(|_| repeats) else {
            let _ = commands.caller.send(answer);
            return;
        };
        let mut routes = self.change();
        let former = Self::known(&routes, address);
        let owner = || Arc::clone(routes.map.owner(slot));
        let former = former.unwrap_or_else(owner);
        let gate = routes.gates.entry(slot);
        let gate = gate.or_insert_with(|| Gate::behind(Arc::clone(&former)));
        gate.take_back(commands, former, answer);
        self.work_off(slot, gate);
    }

    fn take_back_unsent(&self, address: &Arc<str>, commands: Commands) {
        let Some(slot) = commands.slot else {
            return;
        };
        let mut routes = self.change();
        let former = Self::known(&routes, address);
        let former = former.unwrap_or_else(|| Arc::clone(routes.map.owner(slot)));
        let gate = routes.gates.entry(slot);
        let gate = gate.or_insert_with(|| Gate::behind(former));
        gate.take_back_unsent(commands);
        self.work_off(slot, gate);
    }

    fn silent(&self) {
        self.refresh();
    }

    fn overtaken(&self, slot: u16, call: u64) {
        if let Some(gate) = self.change().gates.get_mut(&slot) {
            gate.overtaken(call);
        }
    }
}

impl Nodes {
    /// Whether commands with this answer are repeated, numbered or not.
    pub(super) fn repeats(&self, answer: &Answer) -> bool {
        match answer {
            Ok(replies) => replies
                .iter()
                .filter_map(|reply| reply.as_ref().err())
                .any(|cause| match undone(cause) {
                    Some(Undone::NotReady) => true,
                    Some(_) => self.is_clustered(),
                    None => false,
                }),
            Err(Failure::NotSent(_, cause)) => self.may_change() && cause.is_passing(),
            Err(Failure::Unknown(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::adapters::redis::net::connections::access::Access;
    use crate::adapters::redis::net::connections::server::Server;
    use crate::adapters::redis::net::numbers::Numbering;
    use crate::adapters::redis::resp::pack;

    fn command(filling: usize, word: &str) -> Vec<u8> {
        let mut packed = Vec::new();
        pack(
            &mut packed,
            &[b"XADD", &vec![b'x'; filling], word.as_bytes()],
        );
        packed
    }

    /// Reads until a command ends with one of the words. Answers nothing. Returns the words in their order.
    async fn read_until(stream: &mut TcpStream, words: &[&str]) -> Vec<String> {
        let ends: Vec<String> = words.iter().map(|word| format!("{word}\r\n")).collect();
        let mut read = Vec::new();
        while !ends.iter().any(|end| read.ends_with(end.as_bytes())) {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "the end");
        }
        let lines = read.split(|byte| *byte == b'\n');
        let lines = lines.map(|line| String::from_utf8_lossy(line).trim_end().to_owned());
        lines.filter(|line| words.contains(&&**line)).collect()
    }

    async fn accept(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, &["redstart:pub"]).await;
        stream.write_all(b"+OK\r\n").await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_queued_publish_does_not_overtake_one_that_is_sent_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let nodes = Nodes::new(Server::read(&url, &Access::default()).unwrap()).unwrap();
        let numbering = Numbering::default();
        let numbers = || numbering.give(1).map(Box::new);
        // So long that the link sends nothing more before its reply.
        let older = nodes.publish(0, 1, command(5 << 20, "older"), 1, numbers());
        let younger = nodes.publish(0, 2, command(1, "younger"), 1, numbers());
        let words = ["older", "younger"];
        let serving = async {
            let mut stream = accept(&listener).await;
            assert_eq!(read_until(&mut stream, &words).await, ["older"]);
            drop(stream);
            let mut stream = accept(&listener).await;
            let mut order = Vec::new();
            while order.len() < 2 {
                for word in read_until(&mut stream, &words).await {
                    stream.write_all(b"$3\r\n1-1\r\n").await.unwrap();
                    order.push(word);
                }
            }
            order
        };
        let (order, older, younger) = tokio::join!(serving, older, younger);
        assert_eq!(order, words);
        assert!(older.is_ok_and(|replies| replies[0].is_ok()));
        assert!(younger.is_ok_and(|replies| replies[0].is_ok()));
    }
}
