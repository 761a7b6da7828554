//! Reading replies without building maps.

use std::io;

use bytes::Bytes;
use redis::{ErrorKind, FromRedisValue, RedisError, Value};

use super::Broken;
use crate::domain::EntryId;
use crate::store::Fields;

impl From<Broken> for RedisError {
    fn from(broken: Broken) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, broken).into()
    }
}

pub(in crate::adapters::redis) fn unexpected(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, what))
}

/// Any type that the redis crate reads.
pub(in crate::adapters::redis) fn typed<T: FromRedisValue>(value: Value) -> Result<T, RedisError> {
    Ok(redis::from_redis_value(value.extract_error()?)?)
}

pub(in crate::adapters::redis) fn array(value: Value) -> Result<Vec<Value>, RedisError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        Value::ServerError(error) => Err(error.into()),
        _ => Err(unexpected("no array")),
    }
}

pub(in crate::adapters::redis) fn bytes(value: Value) -> Result<Bytes, RedisError> {
    match value {
        Value::BulkString(bytes) => Ok(Bytes::from(bytes)),
        Value::SimpleString(text) => Ok(Bytes::from(text.into_bytes())),
        _ => Err(unexpected("no text")),
    }
}

pub(in crate::adapters::redis) fn text(value: Value) -> Result<String, RedisError> {
    String::from_utf8(bytes(value)?.into()).map_err(|_| unexpected("the text is not UTF-8"))
}

pub(in crate::adapters::redis) fn integer(value: &Value) -> Result<i64, RedisError> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err(unexpected("no integer")),
    }
}

pub(in crate::adapters::redis) fn count(value: &Value) -> Result<u64, RedisError> {
    u64::try_from(integer(value)?).map_err(|_| unexpected("a negative count"))
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
    id.ok_or_else(|| unexpected("no entry id"))
}

pub(in crate::adapters::redis) fn parse_id(bytes: &[u8]) -> Option<EntryId> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// The fields of an entry; none for one that was removed.
pub(in crate::adapters::redis) fn fields(value: Value) -> Result<Fields, RedisError> {
    let mut values = array(value)?.into_iter();
    let mut fields = Vec::with_capacity(values.len() / 2);
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        fields.push((bytes(name)?, bytes(value)?));
    }
    Ok(fields)
}

/// `[[id, fields], …]`, as XRANGE and XREADGROUP give it.
pub(in crate::adapters::redis) fn entries(
    value: Value,
) -> Result<Vec<(EntryId, Fields)>, RedisError> {
    array(value)?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Result<(EntryId, Fields), RedisError> {
    let mut parts = array(value)?.into_iter();
    match (parts.next(), parts.next()) {
        (Some(id), Some(rest)) => Ok((entry_id(&id)?, fields(rest)?)),
        _ => Err(unexpected("no entry")),
    }
}

/// A flat list of names and values, as XINFO gives it, read by name.
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
