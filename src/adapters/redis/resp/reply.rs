//! Reads the redis crate's reply values without building maps.

use std::io;

use bytes::Bytes;
use redis::{ErrorKind, FromRedisValue, RedisError, Value};

use super::{Broken, Walk};
use crate::domain::EntryId;
use crate::store::Fields;

impl From<Broken> for RedisError {
    fn from(broken: Broken) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, broken).into()
    }
}

/// Reads an entry of a stream in place: its id and its fields.
pub(in crate::adapters::redis) fn walk_entry(walk: &mut Walk) -> Result<(EntryId, Fields), Broken> {
    if walk.array()? != 2 {
        return Err(Broken::new("no pair where one was expected"));
    }
    let id = parse_id(&walk.payload()?).ok_or(Broken::new("no entry id"))?;
    let mut fields = Vec::with_capacity(1);
    for _ in 0..walk.array()? / 2 {
        fields.push((walk.payload()?, walk.payload()?));
    }
    Ok((id, fields))
}

pub(in crate::adapters::redis) fn unexpected(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, what))
}

/// Reads any type that the redis crate can read.
pub(in crate::adapters::redis) fn typed<T: FromRedisValue>(value: Value) -> Result<T, RedisError> {
    Ok(redis::from_redis_value(value.extract_error()?)?)
}

pub(in crate::adapters::redis) fn array(value: Value) -> Result<Vec<Value>, RedisError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        Value::ServerError(error) => Err(error.into()),
        _ => Err(unexpected("expected an array")),
    }
}

pub(in crate::adapters::redis) fn bytes(value: Value) -> Result<Bytes, RedisError> {
    match value {
        Value::BulkString(bytes) => Ok(Bytes::from(bytes)),
        Value::SimpleString(text) => Ok(Bytes::from(text.into_bytes())),
        _ => Err(unexpected("expected text")),
    }
}

pub(in crate::adapters::redis) fn text(value: Value) -> Result<String, RedisError> {
    String::from_utf8(bytes(value)?.into()).map_err(|_| unexpected("the text is not UTF-8"))
}

pub(in crate::adapters::redis) fn integer(value: &Value) -> Result<i64, RedisError> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err(unexpected("expected an integer")),
    }
}

pub(in crate::adapters::redis) fn count(value: &Value) -> Result<u64, RedisError> {
    u64::try_from(integer(value)?)
        .map_err(|_| unexpected("expected a count, got a negative number"))
}

pub(in crate::adapters::redis) fn flags(value: Value) -> Result<Vec<bool>, RedisError> {
    array(value)?
        .iter()
        .map(|one| Ok(integer(one)? == 1))
        .collect()
}

pub(in crate::adapters::redis) fn entry_id(value: &Value) -> Result<EntryId, RedisError> {
    let id = match value {
        Value::BulkString(bytes) => parse_id(bytes),
        Value::SimpleString(text) => parse_id(text.as_bytes()),
        _ => None,
    };
    id.ok_or_else(|| unexpected("expected an entry id"))
}

pub(in crate::adapters::redis) fn parse_id(bytes: &[u8]) -> Option<EntryId> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// The fields of an entry. A removed entry has none.
pub(in crate::adapters::redis) fn fields(value: Value) -> Result<Fields, RedisError> {
    let mut values = array(value)?.into_iter();
    let mut fields = Vec::with_capacity(values.len() / 2);
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        fields.push((bytes(name)?, bytes(value)?));
    }
    Ok(fields)
}

/// Reads `[[id, fields], …]`, the form of XRANGE.
pub(in crate::adapters::redis) fn entries(
    value: Value,
) -> Result<Vec<(EntryId, Fields)>, RedisError> {
    array(value)?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Result<(EntryId, Fields), RedisError> {
    let mut parts = array(value)?.into_iter();
    match (parts.next(), parts.next()) {
        (Some(id), Some(rest)) => Ok((entry_id(&id)?, fields(rest)?)),
        _ => Err(unexpected("expected an entry")),
    }
}

/// A flat list of names and values, the form of XINFO.
#[derive(Debug)]
pub(in crate::adapters::redis) struct Flat(Vec<Value>);

impl Flat {
    pub(in crate::adapters::redis) fn new(value: Value) -> Result<Self, RedisError> {
        array(value).map(Self)
    }

    pub(in crate::adapters::redis) fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .chunks_exact(2)
            .find(|pair| matches!(&pair[0], Value::BulkString(bytes) if bytes == name.as_bytes()))
            .map(|pair| &pair[1])
    }

    pub(in crate::adapters::redis) fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|value| text(value.clone()).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn entries_are_read_and_a_removed_entry_has_no_fields() {
        let fields = Value::Array(vec![bulk("json"), bulk("{}")]);
        let reply = Value::Array(vec![
            Value::Array(vec![bulk("1-2"), fields]),
            Value::Array(vec![bulk("3-0"), Value::Nil]),
        ]);
        let entries = entries(reply).unwrap();
        assert_eq!(entries[0].0.to_string(), "1-2");
        assert_eq!(entries[0].1, [(Bytes::from("json"), Bytes::from("{}"))]);
        assert_eq!(
            (entries[1].0.to_string(), entries[1].1.len()),
            ("3-0".to_owned(), 0)
        );
    }

    #[test]
    fn a_value_of_another_type_is_an_error() {
        assert!(array(bulk("a")).is_err());
        assert!(text(Value::Int(1)).is_err());
        assert!(text(Value::BulkString(vec![0xff])).is_err());
        assert!(integer(&bulk("1")).is_err());
        assert!(count(&Value::Int(-1)).is_err());
        assert!(flags(Value::Array(vec![bulk("1")])).is_err());
        assert!(entry_id(&bulk("1")).is_err());
        assert!(entries(Value::Array(vec![Value::Array(vec![bulk("1-1")])])).is_err());
        assert!(typed::<u64>(bulk("a")).is_err());
    }

    #[test]
    fn an_error_inside_a_reply_stays_the_servers_error() {
        let refused = redis::parse_redis_value(b"-WRONGTYPE no\r\n").unwrap();
        let error = typed::<u64>(refused.clone()).unwrap_err();
        assert_eq!(error.code(), Some("WRONGTYPE"));
        assert_eq!(array(refused).unwrap_err().code(), Some("WRONGTYPE"));
    }

    #[test]
    fn a_flat_list_is_read_by_name() {
        let list = vec![
            bulk("name"),
            bulk("billing"),
            bulk("pending"),
            Value::Int(3),
        ];
        let flat = Flat::new(Value::Array(list)).unwrap();
        assert_eq!(flat.text("name").as_deref(), Some("billing"));
        assert_eq!(flat.get("pending"), Some(&Value::Int(3)));
        assert_eq!((flat.text("pending"), flat.get("lag")), (None, None));
    }
}
