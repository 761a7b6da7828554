//! What a sentinel is asked, and how its answers are read.

use std::time::Duration;

use redis::{ErrorKind as Kind, RedisError, Value};

use super::belief::Statement;
use crate::adapters::redis::net::commands::Failure;
use crate::adapters::redis::net::connections::server::Server;
use crate::adapters::redis::net::connections::socket::{Socket, within};
use crate::adapters::redis::net::redirect::Address;
use crate::adapters::redis::resp::pack;
use crate::adapters::redis::resp::reply::{self, Flat};

/// How long a sentinel may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Asks a sentinel for the primary of a service.
pub(super) async fn primary(sentinel: &Server, service: &str) -> Result<Statement, Failure> {
    let mut socket = connect(sentinel).await?;
    let asked = async {
        // In one piece, so that no failover comes between. Until a failover has ended, the second answer
        // still names the old primary and has the new epoch.
        let questions = ["GET-MASTER-ADDR-BY-NAME", "MASTER"];
        let [address, service_facts] = exchange(&mut socket, questions, service).await?;
        let primary = read_address(address)?.ok_or_else(|| unknown(service))?;
        let epoch = read_epoch(service_facts)?;
        Ok(Statement { primary, epoch })
    };
    within(ANSWER_WITHIN, asked).await.map_err(Failure::Unknown)
}

/// Asks a sentinel for the addresses of the others.
pub(super) async fn others(sentinel: &Server, service: &str) -> Result<Vec<Address>, Failure> {
    let mut socket = connect(sentinel).await?;
    let asked = async {
        let [rows] = exchange(&mut socket, ["SENTINELS"], service).await?;
        let rows = reply::array(rows)?.into_iter().map(read_other);
        rows.collect::<Result<Vec<_>, RedisError>>()
    };
    within(ANSWER_WITHIN, asked).await.map_err(Failure::Unknown)
}

async fn connect(sentinel: &Server) -> Result<Socket, Failure> {
    let connecting = sentinel.connect_socket("redstart:sentinel");
    within(ANSWER_WITHIN, connecting)
        .await
        .map_err(|failure| Failure::NotSent(sentinel.address().clone(), failure))
}

async fn exchange<const N: usize>(
    socket: &mut Socket,
    questions: [&str; N],
    service: &str,
) -> Result<[Value; N], RedisError> {
    let mut packed = Vec::new();
    for question in questions {
        let parts: [&[u8]; 3] = [b"SENTINEL", question.as_bytes(), service.as_bytes()];
        pack(&mut packed, &parts);
    }
    socket.write(&packed).await?;
    let mut answers = [const { Value::Nil }; N];
    for answer in &mut answers {
        let reply = loop {
            match socket.reply()? {
                Some(reply) => break reply,
                None => socket.fill().await?,
            }
        };
        *answer = match reply {
            Ok(reply) => redis::parse_redis_value(&reply)?,
            Err(cause) if cause.to_string().contains("No such master") => {
                return Err(unknown(service));
            }
            Err(cause) => return Err(cause),
        };
    }
    Ok(answers)
}

fn unknown(service: &str) -> RedisError {
    let text = format!("the sentinels know no service `{service}`");
    (Kind::InvalidClientConfig, "unknown service", text).into()
}

fn read_address(reply: Value) -> Result<Option<Address>, RedisError> {
    if reply == Value::Nil {
        return Ok(None);
    }
    let mut parts = reply::array(reply)?.into_iter();
    let (Some(host), Some(port)) = (parts.next(), parts.next()) else {
        return Err(reply::unexpected("the address of a primary"));
    };
    address(&reply::text(host)?, &reply::text(port)?).map(Some)
}

fn address(host: &str, port: &str) -> Result<Address, RedisError> {
    let port = port.parse();
    let port = port.map_err(|_| reply::unexpected("a port is a number"))?;
    Ok(Address::new(host, port))
}

fn read_epoch(reply: Value) -> Result<u64, RedisError> {
    let epoch = Flat::new(reply)?.text("config-epoch");
    let epoch = epoch.and_then(|text| text.parse().ok());
    epoch.ok_or_else(|| reply::unexpected("a service has an epoch"))
}

fn read_other(row: Value) -> Result<Address, RedisError> {
    let row = Flat::new(row)?;
    match (row.text("ip"), row.text("port")) {
        (Some(host), Some(port)) => address(&host, &port),
        _ => Err(reply::unexpected("a sentinel has an address")),
    }
}

/// A failover that a sentinel tells of: `service old-host old-port new-host new-port`. `None` when it is
/// of another service.
pub(super) fn read_switch(text: &str, service: &str) -> Option<(Address, Address)> {
    let words: Vec<&str> = text.split(' ').collect();
    let [name, from, from_port, to, to_port] = words[..] else {
        return None;
    };
    let addresses = (address(from, from_port), address(to, to_port));
    match addresses {
        (Ok(from), Ok(to)) if name == service => Some((from, to)),
        _ => None,
    }
}

/// A replica that a sentinel promotes: `slave name host port @ service old-host old-port`, as the old
/// and the new address. `None` when it is of another service.
pub(super) fn read_promotion(text: &str, service: &str) -> Option<(Address, Address)> {
    let words: Vec<&str> = text.split(' ').collect();
    let ["slave", _, to, to_port, "@", name, from, from_port] = words[..] else {
        return None;
    };
    read_switch(&[name, from, from_port, to, to_port].join(" "), service)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &str) -> Value {
        redis::parse_redis_value(bytes.as_bytes()).unwrap()
    }

    #[test]
    fn the_answers_of_a_sentinel_are_read() {
        let named = parsed("*2\r\n$1\r\nh\r\n$4\r\n7000\r\n");
        let address = read_address(named).unwrap();
        assert_eq!(address, Some(Address::new("h", 7000)));
        assert_eq!(read_address(parsed("*-1\r\n")).unwrap(), None);
        assert!(read_address(parsed("*1\r\n$1\r\nh\r\n")).is_err());
        let of = "*4\r\n$4\r\nname\r\n$1\r\nx\r\n$12\r\nconfig-epoch\r\n$1\r\n7\r\n";
        assert_eq!(read_epoch(parsed(of)).unwrap(), 7);
        assert!(read_epoch(parsed("*2\r\n$4\r\nname\r\n$1\r\nx\r\n")).is_err());
        let row = "*4\r\n$2\r\nip\r\n$3\r\n::1\r\n$4\r\nport\r\n$5\r\n26379\r\n";
        let other = read_other(parsed(row)).unwrap();
        assert_eq!(other, Address::new("::1", 26_379));
    }

    #[test]
    fn only_a_switch_of_the_service_counts() {
        let read = |text| read_switch(text, "shop");
        let switched = (Address::new("a", 1), Address::new("b", 2));
        assert_eq!(read("shop a 1 b 2"), Some(switched));
        for other in ["shop2 a 1 b 2", "shop a 1 b", "shop a 1 b x", "", "shop"] {
            assert_eq!(read(other), None, "{other}");
        }
        let promoting = "slave b:2 b 2 @ shop a 1";
        let switched = (Address::new("a", 1), Address::new("b", 2));
        assert_eq!(read_promotion(promoting, "shop"), Some(switched));
        assert_eq!(read_promotion(promoting, "other"), None);
        assert_eq!(read_promotion("slave b:2 b 2", "shop"), None);
    }
}
