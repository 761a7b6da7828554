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

/// Passes on what a connection hears and sends what it is told to send, until the connection fails.
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
        again: Vec::new(),
        again_at: Instant::now(),
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
    /// Questions that the server answered with an error, and when they are asked again.
    again: Vec<Ask>,
    again_at: Instant,
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
            let filled = tokio::select! {
                biased;
                filled = self.socket.fill() => Some(filled),
                count = questions.coming.recv_many(&mut more, room), if room > 0 => {
                    match count {
                        0 => return io::Error::from(io::ErrorKind::Interrupted).into(),
                        _ => None,
                    }
                }
                () = sleep_until(self.again_at), if room > 0 && !self.again.is_empty() => {
                    let again = self.again.drain(..self.again.len().min(room));
                    more.extend(again.map(Question::Watch));
                    self.again_at = Instant::now() + ASK_AGAIN;
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
                if let Some(Undone::Moved { .. }) = undone(&cause) {
                    (self.notes.moved)();
                }
                if !is_sound(&cause) {
                    self.unsound = Some(cause);
                }
                if (ask.then)(false) {
                    if self.again.is_empty() {
                        self.again_at = Instant::now() + ASK_AGAIN;
                    }
                    self.again.push(ask);
                }
            }
            Some(Question::Read(mut read)) => {
                let unsound = answer.as_ref().err().filter(|cause| !is_sound(cause));
                self.unsound = unsound.cloned().or(self.unsound.take());
                read.replies.push(answer);
                if read.replies.len() < read.count {
                    self.asked.push_front(Question::Read(read));
                } else {
                    let _ = read.caller.send(Ok(read.replies));
                }
            }
            // An error shows life, too.
            Some(Question::Ping) => {}
            None => {
                answer?;
            }
        }
        Ok(())
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
    use std::pin::Pin;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};

    use redis::io::tcp::socket2::SockRef;
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    use super::super::ear::{Ear, HeardBy};
    use super::*;
    use crate::adapters::redis::net::connections::stream::Stream;

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

    /// A connection on which the server says nothing. It has ended, or lasts.
    #[derive(Debug)]
    struct Silent {
        socket: std::net::UdpSocket,
        writes: Arc<AtomicU64>,
        ends: bool,
    }

    impl AsyncRead for Silent {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.ends {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            }
        }
    }

    impl AsyncWrite for Silent {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Stream for Silent {
        fn socket(&self) -> SockRef<'_> {
            SockRef::from(&self.socket)
        }
    }

    /// Listens to a dead connection until it is left. Returns for how long, and how often it was asked.
    async fn listened_to(ends: bool, patience: Patience) -> (Duration, u64) {
        let hears: Arc<dyn Hears> = Arc::new(Heard::default());
        let writes = Arc::new(AtomicU64::new(0));
        let silent = Silent {
            socket: std::net::UdpSocket::bind("127.0.0.1:0").unwrap(),
            writes: Arc::clone(&writes),
            ends,
        };
        let socket = Socket::new(Box::new(silent));
        let hears = Arc::downgrade(&hears);
        let began = Instant::now();
        let (_ear, asked) = Ear::fake(1);
        let notes = Notes {
            hears: &hears,
            all: &|| {},
            moved: &|| {},
        };
        let listening = attend_socket(socket, patience, notes, asked);
        let left = tokio::time::timeout(Duration::from_secs(60), listening).await;
        left.expect("a dead connection is left");
        (began.elapsed(), writes.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_silent_connection_is_asked_once_and_left_and_a_broken_one_is_left_at_once() {
        let patience = Patience {
            ping_every: Duration::from_millis(20),
            answer_within: Duration::from_millis(10),
        };
        let (silent, asked) = listened_to(false, patience).await;
        assert!(silent >= Duration::from_millis(30), "{silent:?}");
        assert_eq!(asked, 1);
        let (_, asked) = listened_to(true, patience).await;
        assert_eq!(asked, 0);
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

    /// A connection that is attended, and the server's end of it.
    async fn attended(hears: &Arc<dyn Hears>) -> (Ear, JoinHandle<RedisError>, TcpStream) {
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
            let patience = Patience {
                ping_every: Duration::from_secs(60),
                answer_within: Duration::from_secs(60),
            };
            attend_socket(socket, patience, notes, questions).await
        });
        (ear, attending, server)
    }

    /// Waits until the server has got so many commands more, each of two parts.
    async fn got(server: &mut TcpStream, commands: usize) {
        let mut left = commands;
        while left > 0 {
            let mut byte = [0];
            server.read_exact(&mut byte).await.unwrap();
            left -= usize::from(&byte == b"*");
        }
    }

    #[tokio::test]
    async fn questions_that_fail_are_repeated_after_a_pause_however_many_there_are() {
        let hears: Arc<dyn Hears> = Arc::new(Heard::default());
        let (ear, _attending, mut server) = attended(&hears).await;
        let (questions, began) = (UNDER_WAY + 44, Instant::now());
        for _ in 0..questions {
            ear.ask(Ask {
                keys: vec![b"key".to_vec()],
                then: Box::new(|is_watched| !is_watched),
            });
        }
        for _ in 0..2 * questions {
            got(&mut server, 1).await;
            server.write_all(b"-LOADING not yet\r\n").await.unwrap();
        }
        got(&mut server, 1).await;
        assert!(began.elapsed() >= 2 * ASK_AGAIN);
    }

    #[tokio::test]
    async fn each_read_gets_its_own_reply_before_an_unsound_connection_ends() {
        let hears: Arc<dyn Hears> = Arc::new(Heard::default());
        let (ear, attending, mut server) = attended(&hears).await;
        let mut packed = Vec::new();
        pack(&mut packed, &[b"GET"]);
        let answering = async {
            got(&mut server, 2).await;
            server.write_all(b"-READONLY a replica\r\n").await.unwrap();
            server.write_all(b":7\r\n").await.unwrap();
        };
        let reads =
            async { tokio::join!(ear.send(packed.clone(), 1), ear.send(packed.clone(), 1)) };
        let ((one, other), ()) = tokio::join!(reads, answering);
        assert!(one.unwrap()[0].is_err());
        assert_eq!(other.unwrap()[0].as_deref().unwrap(), b":7\r\n");
        assert_eq!(attending.await.unwrap().code(), Some("READONLY"));
        let late = ear.send(packed, 1).await;
        assert!(matches!(late, Err(Failure::NotSent(..))), "{late:?}");
    }

    #[tokio::test]
    async fn a_key_that_may_not_be_read_ends_no_connection() {
        let hears: Arc<dyn Hears> = Arc::new(Heard::default());
        let (ear, _attending, mut server) = attended(&hears).await;
        let (sender, mut told) = mpsc::unbounded_channel();
        ear.ask(Ask {
            keys: vec![b"key".to_vec()],
            then: Box::new(move |is_watched| sender.send(is_watched).is_err()),
        });
        let mut packed = Vec::new();
        pack(&mut packed, &[b"GET"]);
        let answering = async {
            got(&mut server, 2).await;
            server.write_all(b"-NOPERM no\r\n:7\r\n").await.unwrap();
        };
        let (answer, ()) = tokio::join!(ear.send(packed, 1), answering);
        assert!(answer.unwrap()[0].is_ok());
        assert_eq!(told.recv().await, Some(false));
    }
}
