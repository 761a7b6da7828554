//! A server with `XADD … IDMP`: the one that the tests run on, or one that a proxy makes of it.
//!
//! The proxy asks the server to do the same in a script, so the suite shows on every server what Redstart does
//! with the command. `tests/servers` shows on Redis 8.6 that the server itself does it.

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

use super::Server;

/// Set by `tests/servers` where the server itself must know the command.
const REAL: &str = "REDSTART_TEST_NATIVE";

/// What `XADD … IDMP` does, as far as Redstart uses it.
const NUMBERED: &str = "
local known = redis.call('HGET', KEYS[2], ARGV[1])
if known then return known end
local id = redis.call('XADD', KEYS[1], '*', ARGV[2], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], id)
return id";
const INFO: &str = "return {{'xidmprecord'}}";
const DOCS: &str = "return {'xadd', {'arguments', {{'name', 'idmp-token', 'token', 'IDMP'}}}}";

/// Whether the server itself has the command.
pub(crate) fn is_real(server: &Server) -> bool {
    let known: Vec<redis::Value> = server.command(&["COMMAND", "INFO", "XIDMPRECORD"]);
    let has = known.iter().any(|one| *one != redis::Value::Nil);
    assert!(
        has || std::env::var_os(REAL).is_none(),
        "the server lacks it"
    );
    has
}

/// The port at which the server adds numbered messages only once.
pub(crate) async fn port(server: &Server) -> u16 {
    if is_real(server) {
        return server.port();
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, target) = (listener.local_addr().unwrap().port(), server.port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await {
                    let _ = pass(client, server).await;
                }
            });
        }
    });
    port
}

async fn pass(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = BytesMut::new();
        while from_client.read_buf(&mut buffer).await? > 0 {
            let mut out = Vec::new();
            while let Some(words) = command(&mut buffer) {
                write(&mut out, words);
            }
            to_server.write_all(&out).await?;
        }
        std::io::Result::Ok(())
    };
    tokio::select! {
        ended = up => ended,
        ended = copy(&mut from_server, &mut to_client) => ended.map(drop),
    }
}

/// Takes the first command, once it is complete.
fn command(buffer: &mut BytesMut) -> Option<Vec<Vec<u8>>> {
    let mut at = 0;
    let number = |at: &mut usize| -> Option<usize> {
        let rest = buffer.get(*at..)?;
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let text = std::str::from_utf8(&rest[1..end]).unwrap();
        *at += end + 2;
        Some(text.parse().unwrap())
    };
    let count = number(&mut at)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let length = number(&mut at)?;
        words.push(buffer.get(at..at + length)?.to_vec());
        at += length + 2;
    }
    (buffer.len() >= at).then(|| buffer.advance(at))?;
    Some(words)
}

/// Writes a command; those that older servers do not know as a script.
fn write(out: &mut Vec<u8>, words: Vec<Vec<u8>>) {
    let text = |word: &str| word.as_bytes().to_vec();
    let is = |at: usize, word: &str| words.get(at).is_some_and(|held| held == word.as_bytes());
    let words = if is(0, "XADD") && is(2, "IDMP") {
        let memory = [&words[1][..], b":numbered"].concat();
        let number = [&words[3][..], b"/", &words[4][..]].concat();
        let mut call = vec![
            text("EVAL"),
            text(NUMBERED),
            text("2"),
            words[1].clone(),
            memory,
        ];
        call.extend([number, words[6].clone(), words[7].clone()]);
        call
    } else if is(0, "COMMAND") {
        let answer = if is(1, "INFO") { INFO } else { DOCS };
        vec![text("EVAL"), text(answer), text("0")]
    } else {
        words
    };
    out.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        out.extend(format!("${}\r\n", word.len()).bytes());
        out.extend(word);
        out.extend(b"\r\n");
    }
}
