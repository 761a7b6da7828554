//! The doorbell's open connection to one node: it hears changes, and carries the reads that let the server
//! watch keys.

use std::collections::VecDeque;
use std::io;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use redis::RedisError;
use tokio::time::{Instant, sleep_until};

use super::ear::{Ask, Hears, Question, Questions, not_sent};
use crate::adapters::redis::net::commands::Failure;
use crate::adapters::redis::net::connections::socket::{Socket, timed_out, within};
use crate::adapters::redis::net::error::is_sound;
use crate::adapters::redis::net::redirect::{Undone, undone};
use crate::adapters::redis::resp::{Broken, Head, Walk, pack};
use crate::api::supervise::log;

/// How many questions may wait for an answer, about.
const UNDER_WAY: usize = 256;
/// When a question is repeated that the server answered with an error.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How long a silent connection is relied on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How often it is asked whether it lives.
    pub(super) ping_every: Duration,
    /// How long the server may be silent after that.
    pub(super) answer_within: Duration,
}

/// Who learns what a connection hears.
pub(super) struct Notes<'a> {
    pub(super) hears: &'a Weak<dyn Hears>,
    /// Every key may have changed.
    pub(super) all: &'a (dyn Fn() + Send + Sync),
    /// A slot is at another node.
    pub(super) moved: &'a (dyn Fn() + Send + Sync),
}

/// Attends a connection until it fails: sends questions, hands out the replies, and tells of changed keys.
pub(super) async fn attend_socket(
    socket: Socket,
    patience: Patience,
    notes: Notes<'_>,
    mut questions: Questions,
) -> RedisError {
    let mut conversation = Conversation {
        socket,
        notes,
        asked: VecDeque::new(),
        again: VecDeque::new(),
        is_refused: false,
        unsound: None,
    };
    let cause = conversation.last(patience, &mut questions).await;
    conversation.end(&cause, questions);
    cause
}

/// An open connection.
struct Conversation<'a> {
    socket: Socket,
    notes: Notes<'a>,
    /// What was sent and is not answered yet, in order.
    asked: VecDeque<Question>,
    /// Questions that the server answered with an error, each with the time when it is asked again.
    again: VecDeque<(Instant, Ask)>,
    /// The server has answered that this user may not read a key.
    is_refused: bool,
    /// The server has answered that it no longer serves this connection.
    unsound: Option<RedisError>,
}

impl Conversation<'_> {
    /// Talks until the connection fails.
    async fn last(&mut self, patience: Patience, questions: &mut Questions) -> RedisError {
        let Patience {
            ping_every,
            answer_within,
        } = patience;
        let (mut pinged, mut deadline) = (None, Instant::now() + ping_every);
        loop {
            if let Err(cause) = self.listen() {
                return cause;
            }
            let reads = self.asked.iter().any(Question::is_read);
            if let Some(cause) = self.unsound.take_if(|_| !reads) {
                return cause;
            }
            let mut more = Vec::new();
            let room = match self.unsound {
                None => UNDER_WAY.saturating_sub(self.asked.len()),
                Some(_) => 0,
            };
            let again_at = self.again.front().map(|(at, _)| *at);
            let filled = tokio::select! {
                biased;
                filled = self.socket.fill() => Some(filled),
                count = questions.coming.recv_many(&mut more, room), if room > 0 => {
                    match count {
                        0 => return io::Error::from(io::ErrorKind::Interrupted).into(),
                        _ => None,
                    }
                }
                () = sleep_until(again_at.unwrap_or(deadline)), if room > 0 && again_at.is_some() => {
                    let now = Instant::now();
                    let due = self.again.iter().take_while(|(at, _)| *at <= now).count();
                    let again = self.again.drain(..due.min(room));
                    more.extend(again.map(|(_, ask)| Question::Watch(ask)));
                    None
                }
                () = sleep_until(deadline) => None,
            };
            match (filled, pinged) {
                (Some(Ok(())), _) => {
                    pinged = None;
                    deadline = Instant::now() + ping_every;
                }
                (Some(Err(cause)), _) => return cause,
                (None, _) if !more.is_empty() => {}
                (None, Some(began)) => return timed_out(answer_within, began).into(),
                (None, None) => {
                    if reads {
                        // Another server may have taken over.
                        (self.notes.moved)();
                    }
                    pinged = Some(std::time::Instant::now());
                    more.push(Question::Ping);
                    deadline = Instant::now() + answer_within;
                }
            }
            if let Err(cause) = within(answer_within, self.ask(more)).await {
                return cause;
            }
        }
    }

    /// Passes on everything that has come.
    fn listen(&mut self) -> Result<(), RedisError> {
        while let Some(reply) = self.socket.reply()? {
            let Some(hears) = self.notes.hears.upgrade() else {
                return Err(io::Error::from(io::ErrorKind::Interrupted).into());
            };
            match reply {
                Ok(push) if is_push(&push) => {
                    if let Told::All = pass_on(push, &*hears)? {
                        (self.notes.all)();
                    }
                }
                answer => self.answered(answer)?,
            }
        }
        Ok(())
    }

    /// Takes the answer to the oldest question.
    fn answered(&mut self, answer: Result<Bytes, RedisError>) -> Result<(), RedisError> {
        match self.asked.pop_front() {
            Some(Question::Watch(ask)) => {
                let Err(cause) = answer else {
                    (ask.then)(true);
                    return Ok(());
                };
                match undone(&cause) {
                    Some(Undone::Moved { .. }) => (self.notes.moved)(),
                    Some(_) => {}
                    None if is_sound(&cause) => self.note_refusal(&cause, &ask),
                    None => {}
                }
                if (ask.then)(false) {
                    self.again.push_back((Instant::now() + ASK_AGAIN, ask));
                }
                self.note_unsound(cause);
            }
            Some(Question::Read(mut read)) => {
                answer
                    .as_ref()
                    .err()
                    .cloned()
                    .into_iter()
                    .for_each(|cause| self.note_unsound(cause));
                read.replies.push(answer);
                if read.replies.len() < read.count {
                    self.asked.push_front(Question::Read(read));
                } else {
                    let _ = read.caller.send(Ok(read.replies));
                }
            }
            // An error shows life, too.
            Some(Question::Ping) => {
                answer
                    .err()
                    .into_iter()
                    .for_each(|cause| self.note_unsound(cause));
            }
            None => {
                answer?;
            }
        }
        Ok(())
    }

    /// Notes an error after which the connection is of no use.
    fn note_unsound(&mut self, cause: RedisError) {
        if !is_sound(&cause) {
            self.unsound = Some(cause);
        }
    }

    /// Warns once of an error that does not pass by itself.
    fn note_refusal(&mut self, cause: &RedisError, ask: &Ask) {
        if std::mem::replace(&mut self.is_refused, true) {
            return;
        }
        let key = ask.keys.first().map(|key| String::from_utf8_lossy(key));
        let key = key.unwrap_or_default();
        log(|| {
            tracing::warn!(
                %cause,
                %key,
                "the server tells of no changes of a key: its subscriptions look at regular times",
            );
        });
    }

    /// Sends questions. Those whose caller has given up are left out.
    async fn ask(&mut self, questions: Vec<Question>) -> Result<(), RedisError> {
        let mut packed = Vec::new();
        for question in questions {
            match &question {
                Question::Ping => pack(&mut packed, &[b"PING"]),
                Question::Watch(ask) => {
                    let keys = ask.keys.iter().map(|key| &key[..]);
                    let parts: Vec<&[u8]> = std::iter::once(&b"EXISTS"[..]).chain(keys).collect();
                    pack(&mut packed, &parts);
                }
                Question::Read(read) if read.caller.is_closed() => continue,
                Question::Read(read) => packed.extend_from_slice(&read.packed),
            }
            self.asked.push_back(question);
        }
        match packed.is_empty() {
            true => Ok(()),
            false => self.socket.write(&packed).await,
        }
    }

    /// Tells the callers that wait for replies why the connection has failed.
    fn end(self, cause: &RedisError, mut questions: Questions) {
        let reads = |question| match question {
            Question::Read(read) => Some(read),
            Question::Ping | Question::Watch(_) => None,
        };
        let mut sent = self.asked.into_iter().filter_map(reads).peekable();
        if sent.peek().is_some() {
            self.socket.abandon();
        }
        for read in sent {
            let _ = read.caller.send(Err(Failure::Unknown(cause.clone())));
        }
        questions.coming.close();
        while let Ok(question) = questions.coming.try_recv() {
            if let Some(read) = reads(question) {
                let _ = read.caller.send(Err(not_sent(&questions.address)));
            }
        }
    }
}

fn is_push(message: &Bytes) -> bool {
    message.first() == Some(&b'>')
}

/// What a push told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    /// The names of changed keys, or nothing of keys.
    Keys,
    /// All keys may have changed: the server was flushed.
    All,
}

/// Passes the keys of a push on: `[invalidate, [key, …]]`. A null in place of the keys means all.
fn pass_on(push: Bytes, hears: &dyn Hears) -> Result<Told, Broken> {
    let mut walk = Walk::new(push);
    // Another push.
    if walk.array()? != 2 || walk.payload()? != "invalidate" {
        return Ok(Told::Keys);
    }
    match walk.next()? {
        Head::Nil => Ok(Told::All),
        Head::Array(keys) => {
            for _ in 0..keys {
                hears.rang(&walk.payload()?);
            }
            Ok(Told::Keys)
        }
        _ => Err(Broken::new("an invalidation without keys")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    use super::super::ear::{Ear, HeardBy};
    use super::*;
    use crate::adapters::redis::resp::Scan;

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Hears for Heard {
        fn rang(&self, key: &[u8]) {
            let key = String::from_utf8_lossy(key).into_owned();
            self.0.lock().unwrap().push(key);
        }

        fn heard_by(&self, _: HeardBy) {}

        fn refused(&self, _: &str) {}
    }

    /// A server that never asks for life.
    const PATIENT: Patience = Patience {
        ping_every: Duration::from_secs(600),
        answer_within: Duration::from_secs(600),
    };

    /// Attends a connection. Returns its ear and the server's end.
    async fn attended(
        hears: &Arc<dyn Hears>,
        patience: Patience,
    ) -> (Ear, JoinHandle<RedisError>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (server, _) = listener.accept().await.unwrap();
        let (ear, questions) = Ear::fake(1);
        let (hears, socket) = (
            Arc::downgrade(hears),
            Socket::new(Box::new(client.unwrap())),
        );
        let attending = tokio::spawn(async move {
            let notes = Notes {
                hears: &hears,
                all: &|| {},
                moved: &|| {},
            };
            attend_socket(socket, patience, notes, questions).await
        });
        (ear, attending, server)
    }

    /// Reads one command. Returns its name.
    async fn command(server: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        loop {
            bytes.push(server.read_u8().await.unwrap());
            if Scan::new().advance(&bytes).unwrap().is_some() {
                let mut walk = Walk::new(Bytes::from(bytes));
                assert!(walk.array().unwrap() > 0);
                return String::from_utf8(walk.payload().unwrap().to_vec()).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_silent_connection_is_asked_once_and_left_and_a_broken_one_is_left_at_once() {
        let hears: Arc<dyn Hears> = Arc::new(Heard::default());
        let patience = Patience {
            ping_every: Duration::from_millis(20),
            answer_within: Duration::from_millis(10),
        };
        let began = Instant::now();
        let (_ear, attending, mut silent) = attended(&hears, patience).await;
        assert!(attending.await.unwrap().is_timeout());
        assert!(began.elapsed() >= Duration::from_millis(30));
        assert_eq!(command(&mut silent).await, "PING");
        let mut more = Vec::new();
        silent.read_to_end(&mut more).await.unwrap();
        assert!(more.is_empty(), "{more:?}");
        let (_ear, attending, broken) = attended(&hears, PATIENT).await;
        drop(broken);
        assert!(attending.await.unwrap().is_io_error());
    }

    #[test]
    fn the_keys_of_a_push_are_passed_on_and_a_null_means_all() {
        for (message, told, keys) in [
            (
                ">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n",
                Told::Keys,
                &["a", "b"][..],
            ),
            (">2\r\n$10\r\ninvalidate\r\n_\r\n", Told::All, &[]),
            (
                ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
                Told::Keys,
                &[],
            ),
        ] {
            let heard = Heard::default();
            let bytes = Bytes::from_static(message.as_bytes());
            assert_eq!(pass_on(bytes, &heard), Ok(told), "{message:?}");
            assert_eq!(*heard.0.lock().unwrap(), keys, "{message:?}");
        }
        let broken = ">2\r\n$10\r\ninvalidate\r\n:1\r\n";
        assert!(pass_on(Bytes::from_static(broken.as_bytes()), &Heard::default()).is_err());
    }

    #[tokio::test]
    async fn questions_that_fail_are_repeated_after_a_pause_however_many_there_are() {
        let hears: Arc<dyn Hears> = Arc::new(Heard::default());
        let (ear, _attending, mut server) = attended(&hears, PATIENT).await;
        let (questions, began) = (UNDER_WAY + 44, Instant::now());
        for _ in 0..questions {
            ear.ask(Ask {
                keys: vec![b"key".to_vec()],
                then: Box::new(|is_watched| !is_watched),
            });
        }
        for _ in 0..2 * questions {
            assert_eq!(command(&mut server).await, "EXISTS");
            server.write_all(b"-LOADING not yet\r\n").await.unwrap();
        }
        assert_eq!(command(&mut server).await, "EXISTS");
        assert!(began.elapsed() >= 2 * ASK_AGAIN);
    }

    #[tokio::test]
    async fn each_read_gets_its_own_reply_before_an_unsound_connection_ends() {
        let hears: Arc<dyn Hears> = Arc::new(Heard::default());
        let (ear, attending, mut server) = attended(&hears, PATIENT).await;
        let mut packed = Vec::new();
        pack(&mut packed, &[b"GET"]);
        let [one, other] = [0, 1].map(|_| {
            let (ear, packed) = (ear.clone(), packed.clone());
            tokio::spawn(async move { ear.send(packed, 1).await })
        });
        for _ in 0..2 {
            command(&mut server).await;
        }
        server.write_all(b"-READONLY a replica\r\n").await.unwrap();
        assert!(one.await.unwrap().unwrap()[0].is_err());
        server.write_all(b":7\r\n").await.unwrap();
        let other = other.await.unwrap().unwrap();
        assert_eq!(other[0].as_deref().unwrap(), b":7\r\n");
        assert_eq!(attending.await.unwrap().code(), Some("READONLY"));
        let late = ear.send(packed, 1).await;
        assert!(matches!(late, Err(Failure::NotSent(..))), "{late:?}");
    }

    /// The pause of one question does not put off the others.
    #[tokio::test]
    async fn a_key_that_may_not_be_read_ends_no_connection_and_is_asked_again() {
        let hears: Arc<dyn Hears> = Arc::new(Heard::default());
        let (ear, _attending, mut server) = attended(&hears, PATIENT).await;
        let (sender, mut told) = mpsc::unbounded_channel();
        ear.ask(Ask {
            keys: vec![b"key".to_vec()],
            then: Box::new(move |is_watched| sender.send(is_watched).is_ok()),
        });
        let mut packed = Vec::new();
        pack(&mut packed, &[b"GET"]);
        let answering = async {
            for answer in ["-NOPERM no\r\n", ":7\r\n"] {
                command(&mut server).await;
                server.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let (answer, ()) = tokio::join!(ear.send(packed, 1), answering);
        assert!(answer.unwrap()[0].is_ok());
        assert_eq!(told.recv().await, Some(false));
        assert_eq!(command(&mut server).await, "EXISTS");
        server.write_all(b":1\r\n").await.unwrap();
        assert_eq!(told.recv().await, Some(true));
    }
}
