//! JSON to MessagePack and back, without a type in between and without rounding.

use rmp::encode as put;

use super::frame::Frame;
use super::number;
use super::unfit::Unfit;
use crate::domain::msgpack::{Cursor, Item, MAX_DEPTH};

/// Appends a JSON text as MessagePack, and says whether it holds long numbers.
pub(super) fn from_json(text: &[u8], out: &mut Vec<u8>) -> Result<bool, Unfit> {
    let mut json = Json {
        rest: text,
        out,
        has_long_numbers: false,
    };
    json.value(0)?;
    json.skip_space();
    if !json.rest.is_empty() {
        return Err(Unfit::new("text follows the JSON value"));
    }
    Ok(json.has_long_numbers)
}

struct Json<'a> {
    rest: &'a [u8],
    out: &'a mut Vec<u8>,
    has_long_numbers: bool,
}

fn not_json() -> Unfit {
    Unfit::new("is not JSON")
}

impl Json<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    /// Takes `literal` where it comes next.
    fn take(&mut self, literal: &[u8]) -> bool {
        match self.rest.strip_prefix(literal) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), Unfit> {
        self.skip_space();
        match self.rest.first().ok_or_else(not_json)? {
            b'{' => self.elements(depth, true),
            b'[' => self.elements(depth, false),
            b'"' => self.text(),
            b'-' | b'0'..=b'9' => self.number(),
            b'n' if self.take(b"null") => Ok(put::write_nil(self.out).map_err(io)?),
            b't' if self.take(b"true") => Ok(put::write_bool(self.out, true).map_err(io)?),
            b'f' if self.take(b"false") => Ok(put::write_bool(self.out, false).map_err(io)?),
            _ => Err(not_json()),
        }
    }

    fn elements(&mut self, depth: usize, is_map: bool) -> Result<(), Unfit> {
        let end: &[u8] = if is_map { b"}" } else { b"]" };
        self.rest = &self.rest[1..];
        let frame = Frame::open(self.out, 0, is_map)?;
        self.skip_space();
        if self.take(end) {
            return Ok(());
        }
        if depth == MAX_DEPTH {
            return Err(crate::domain::msgpack::Flaw::TooDeep.into());
        }
        let mut count = 0;
        loop {
            if is_map {
                self.skip_space();
                self.text()?;
                self.skip_space();
                if !self.take(b":") {
                    return Err(not_json());
                }
            }
            self.value(depth + 1)?;
            count += 1;
            self.skip_space();
            if self.take(end) {
                return frame.close(self.out, count);
            }
            if !self.take(b",") {
                return Err(not_json());
            }
        }
    }

    fn text(&mut self) -> Result<(), Unfit> {
        let body = self.rest.strip_prefix(b"\"").ok_or_else(not_json)?;
        let (mut end, mut escaped) = (0, false);
        loop {
            match body.get(end).ok_or_else(not_json)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    end += 2;
                }
                _ => end += 1,
            }
        }
        let quoted = &self.rest[..end + 2];
        self.rest = &self.rest[end + 2..];
        if escaped {
            let text: String = serde_json::from_slice(quoted)?;
            put::write_str(self.out, &text)?;
        } else {
            let text = std::str::from_utf8(&body[..end]).map_err(|_| not_json())?;
            put::write_str(self.out, text)?;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Unfit> {
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let end = self.rest.iter().position(|byte| !is_part(byte));
        let (text, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        let text = std::str::from_utf8(text).map_err(|_| not_json())?;
        self.has_long_numbers |= number::write_text(self.out, text)?;
        Ok(())
    }
}

fn io(error: std::io::Error) -> Unfit {
    Unfit::new(error.to_string())
}

/// How [`to_json`] writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonForm {
    /// Sorts the entries of every object by their names.
    pub(super) sorted: bool,
    /// The bytes were made in this process and hold long numbers as extensions.
    pub(super) long_numbers: bool,
}

/// Appends one checked MessagePack value as JSON.
pub(super) fn to_json(bytes: &[u8], form: JsonForm, out: &mut Vec<u8>) -> Result<(), Unfit> {
    value(&mut Cursor::new(bytes), form, out)
}

fn text(bytes: &[u8]) -> Result<&str, Unfit> {
    std::str::from_utf8(bytes).map_err(|_| Unfit::new("a text is not UTF-8"))
}

fn finite<T: serde::Serialize>(is_finite: bool, value: T, out: &mut Vec<u8>) -> Result<(), Unfit> {
    if !is_finite {
        return Err(Unfit::new("JSON has no NaN and no infinity"));
    }
    Ok(serde_json::to_writer(out, &value)?)
}

fn value(cursor: &mut Cursor<'_>, form: JsonForm, out: &mut Vec<u8>) -> Result<(), Unfit> {
    match cursor.item()? {
        Item::Nil => out.extend_from_slice(b"null"),
        Item::Bool(value) => serde_json::to_writer(out, &value)?,
        Item::Unsigned(value) => serde_json::to_writer(out, &value)?,
        Item::Signed(value) => serde_json::to_writer(out, &value)?,
        Item::F32(value) => finite(value.is_finite(), value, out)?,
        Item::F64(value) => finite(value.is_finite(), value, out)?,
        Item::Text(bytes) => serde_json::to_writer(out, text(bytes)?)?,
        Item::Bytes(bytes) => serde_json::to_writer(out, bytes)?,
        Item::Ext(kind, bytes) => match number::long(kind, bytes) {
            Some(digits) if form.long_numbers => out.extend_from_slice(digits.as_bytes()),
            _ => serde_json::to_writer(out, &(kind, bytes))?,
        },
        Item::Array(count) => {
            out.push(b'[');
            for index in 0..count {
                if index > 0 {
                    out.push(b',');
                }
                value(cursor, form, out)?;
            }
            out.push(b']');
        }
        Item::Map(count) => object(cursor, count, form, out)?,
    }
    Ok(())
}

fn object(
    cursor: &mut Cursor<'_>,
    count: usize,
    form: JsonForm,
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    out.push(b'{');
    if form.sorted {
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let name = name(cursor.item()?, form)?;
            let mut written = Vec::new();
            value(cursor, form, &mut written)?;
            entries.push((name, written));
        }
        entries.sort();
        for (index, (name, written)) in entries.iter().enumerate() {
            entry(out, index, name)?;
            out.extend_from_slice(written);
        }
    } else {
        for index in 0..count {
            entry(out, index, &name(cursor.item()?, form)?)?;
            value(cursor, form, out)?;
        }
    }
    out.push(b'}');
    Ok(())
}

fn entry(out: &mut Vec<u8>, index: usize, name: &str) -> Result<(), Unfit> {
    if index > 0 {
        out.push(b',');
    }
    serde_json::to_writer(&mut *out, name)?;
    out.push(b':');
    Ok(())
}

/// A map key as the name of a JSON object's entry. Numbers and booleans become text.
fn name<'a>(key: Item<'a>, form: JsonForm) -> Result<std::borrow::Cow<'a, str>, Unfit> {
    let mut written = Vec::new();
    match key {
        Item::Text(bytes) => return Ok(text(bytes)?.into()),
        Item::Ext(kind, bytes) if form.long_numbers => {
            if let Some(digits) = number::long(kind, bytes) {
                return Ok(digits.into());
            }
        }
        Item::Bool(value) => serde_json::to_writer(&mut written, &value)?,
        Item::Unsigned(value) => serde_json::to_writer(&mut written, &value)?,
        Item::Signed(value) => serde_json::to_writer(&mut written, &value)?,
        Item::F32(value) => finite(value.is_finite(), value, &mut written)?,
        Item::F64(value) => finite(value.is_finite(), value, &mut written)?,
        _ => {}
    }
    if written.is_empty() {
        return Err(Unfit::new("JSON has no map whose keys are not text"));
    }
    Ok(String::from_utf8_lossy(&written).into_owned().into())
}
