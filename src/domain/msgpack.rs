//! A bounded walk over MessagePack bytes, before they are decoded.
//!
//! The walk allocates nothing. It proves that a value is complete, that its depth is within
//! [`MAX_DEPTH`], and that no length prefix exceeds the input. A decoder that trusts lengths can
//! then run on the same bytes.

use rmp::Marker;

/// The deepest accepted nesting of arrays and maps.
pub(crate) const MAX_DEPTH: usize = 64;

/// Why a walk fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flaw {
    Truncated,
    TooDeep,
    Reserved,
    NotText,
    NotAMap,
    NotUnsigned,
}

/// One value as its marker announces it; the elements of an array or a map follow in the cursor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Item<'a> {
    Nil,
    Bool(bool),
    /// An integer that is not negative, whatever form its producer chose.
    Unsigned(u64),
    /// A negative integer.
    Signed(i64),
    F32(f32),
    F64(f64),
    /// The bytes of a text, which its producer can have left invalid.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    Array(usize),
    Map(usize),
    Ext(i8, &'a [u8]),
}

impl Flaw {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "the bytes end inside a value",
            Self::TooDeep => "nested deeper than 64 levels",
            Self::Reserved => "holds the reserved byte 0xC1",
            Self::NotText => "expected a UTF-8 string",
            Self::NotAMap => "expected a map",
            Self::NotUnsigned => "expected an unsigned 32-bit integer",
        }
    }
}

/// A cursor over borrowed MessagePack bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The number of bytes after the cursor.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Flaw> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Flaw::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn marker(&mut self) -> Result<Marker, Flaw> {
        Ok(Marker::from_u8(self.take(1)?[0]))
    }

    fn length(&mut self, width: usize) -> Result<usize, Flaw> {
        let bytes = self.take(width)?;
        let value = bytes
            .iter()
            .fold(0_u64, |sum, &byte| (sum << 8) | u64::from(byte));
        usize::try_from(value).map_err(|_| Flaw::Truncated)
    }

    /// The encoded bytes of the next value.
    pub(crate) fn value(&mut self) -> Result<&'a [u8], Flaw> {
        let start = self.rest;
        self.skip(0)?;
        Ok(&start[..start.len() - self.rest.len()])
    }

    pub(crate) fn map(&mut self) -> Result<usize, Flaw> {
        match self.marker()? {
            Marker::FixMap(count) => Ok(usize::from(count)),
            Marker::Map16 => self.length(2),
            Marker::Map32 => self.length(4),
            _ => Err(Flaw::NotAMap),
        }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Flaw> {
        let count = match self.marker()? {
            Marker::FixStr(count) => usize::from(count),
            Marker::Str8 => self.length(1)?,
            Marker::Str16 => self.length(2)?,
            Marker::Str32 => self.length(4)?,
            _ => return Err(Flaw::NotText),
        };
        std::str::from_utf8(self.take(count)?).map_err(|_| Flaw::NotText)
    }

    /// The next value as text; `None` for nil.
    pub(crate) fn optional_text(&mut self) -> Result<Option<&'a str>, Flaw> {
        if self.rest.first() == Some(&0xC0) {
            self.rest = &self.rest[1..];
            return Ok(None);
        }
        self.text().map(Some)
    }

    /// The next value as an unsigned integer, in whatever width it was written; nil is 0.
    pub(crate) fn unsigned(&mut self) -> Result<u32, Flaw> {
        match self.item()? {
            Item::Nil => Ok(0),
            Item::Unsigned(value) => u32::try_from(value).map_err(|_| Flaw::NotUnsigned),
            _ => Err(Flaw::NotUnsigned),
        }
    }

    /// The number of entries of the next value, a map. Nil counts as an empty map, and so does an
    /// empty array: PHP writes its empty map as one.
    pub(crate) fn optional_map(&mut self) -> Result<usize, Flaw> {
        match self.item()? {
            Item::Map(count) => Ok(count),
            Item::Nil | Item::Array(0) => Ok(0),
            _ => Err(Flaw::NotAMap),
        }
    }

    /// Whether the next value is nil or an empty array.
    pub(crate) fn is_next_empty(&self) -> bool {
        matches!(self.rest.first(), Some(0xC0 | 0x90))
    }

    /// Whether the next value is nil.
    pub(crate) fn is_next_nil(&self) -> bool {
        self.rest.first() == Some(&0xC0)
    }

    fn number(&mut self, width: usize) -> Result<u64, Flaw> {
        let bytes = self.take(width)?;
        Ok(bytes
            .iter()
            .fold(0, |sum, &byte| (sum << 8) | u64::from(byte)))
    }

    fn signed(&mut self, width: usize) -> Result<Item<'a>, Flaw> {
        let unused = 64 - 8 * u32::try_from(width).unwrap_or(8);
        let value = (self.number(width)? << unused).cast_signed() >> unused;
        Ok(u64::try_from(value).map_or(Item::Signed(value), Item::Unsigned))
    }

    fn ext(&mut self, count: usize) -> Result<Item<'a>, Flaw> {
        let kind = self.take(1)?[0].cast_signed();
        Ok(Item::Ext(kind, self.take(count)?))
    }

    /// The next value; of an array or a map its length.
    pub(crate) fn item(&mut self) -> Result<Item<'a>, Flaw> {
        Ok(match self.marker()? {
            Marker::Null => Item::Nil,
            Marker::True => Item::Bool(true),
            Marker::False => Item::Bool(false),
            Marker::FixPos(value) => Item::Unsigned(value.into()),
            Marker::FixNeg(value) => Item::Signed(value.into()),
            Marker::U8 => Item::Unsigned(self.number(1)?),
            Marker::U16 => Item::Unsigned(self.number(2)?),
            Marker::U32 => Item::Unsigned(self.number(4)?),
            Marker::U64 => Item::Unsigned(self.number(8)?),
            Marker::I8 => self.signed(1)?,
            Marker::I16 => self.signed(2)?,
            Marker::I32 => self.signed(4)?,
            Marker::I64 => self.signed(8)?,
            Marker::F32 => {
                let bits = self.number(4)?;
                Item::F32(f32::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)))
            }
            Marker::F64 => Item::F64(f64::from_bits(self.number(8)?)),
            Marker::FixStr(count) => Item::Text(self.take(count.into())?),
            Marker::Str8 => Item::Text(self.counted(1)?),
            Marker::Str16 => Item::Text(self.counted(2)?),
            Marker::Str32 => Item::Text(self.counted(4)?),
            Marker::Bin8 => Item::Bytes(self.counted(1)?),
            Marker::Bin16 => Item::Bytes(self.counted(2)?),
            Marker::Bin32 => Item::Bytes(self.counted(4)?),
            Marker::FixArray(count) => Item::Array(count.into()),
            Marker::Array16 => Item::Array(self.length(2)?),
            Marker::Array32 => Item::Array(self.length(4)?),
            Marker::FixMap(count) => Item::Map(count.into()),
            Marker::Map16 => Item::Map(self.length(2)?),
            Marker::Map32 => Item::Map(self.length(4)?),
            Marker::FixExt1 => self.ext(1)?,
            Marker::FixExt2 => self.ext(2)?,
            Marker::FixExt4 => self.ext(4)?,
            Marker::FixExt8 => self.ext(8)?,
            Marker::FixExt16 => self.ext(16)?,
            Marker::Ext8 => {
                let count = self.length(1)?;
                self.ext(count)?
            }
            Marker::Ext16 => {
                let count = self.length(2)?;
                self.ext(count)?
            }
            Marker::Ext32 => {
                let count = self.length(4)?;
                self.ext(count)?
            }
            Marker::Reserved => return Err(Flaw::Reserved),
        })
    }

    fn counted(&mut self, width: usize) -> Result<&'a [u8], Flaw> {
        let count = self.length(width)?;
        self.take(count)
    }

    fn skip(&mut self, depth: usize) -> Result<(), Flaw> {
        let (plain, children) = match self.marker()? {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => {
                (0, 0)
            }
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 => (2, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixStr(count) => (usize::from(count), 0),
            Marker::Str8 | Marker::Bin8 => (self.length(1)?, 0),
            Marker::Str16 | Marker::Bin16 => (self.length(2)?, 0),
            Marker::Str32 | Marker::Bin32 => (self.length(4)?, 0),
            Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::FixExt4 => (5, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            Marker::Ext8 => (self.length(1)? + 1, 0),
            Marker::Ext16 => (self.length(2)? + 1, 0),
            Marker::Ext32 => (self.length(4)?.checked_add(1).ok_or(Flaw::Truncated)?, 0),
            Marker::FixArray(count) => (0, usize::from(count)),
            Marker::Array16 => (0, self.length(2)?),
            Marker::Array32 => (0, self.length(4)?),
            Marker::FixMap(count) => (0, usize::from(count) * 2),
            Marker::Map16 => (0, self.length(2)? * 2),
            Marker::Map32 => (0, self.length(4)?.checked_mul(2).ok_or(Flaw::Truncated)?),
            Marker::Reserved => return Err(Flaw::Reserved),
        };
        self.take(plain)?;
        // Each child takes at least one byte, so a false length is found before the loop.
        if children > self.rest.len() {
            return Err(Flaw::Truncated);
        }
        if children > 0 && depth == MAX_DEPTH {
            return Err(Flaw::TooDeep);
        }
        for _ in 0..children {
            self.skip(depth + 1)?;
        }
        Ok(())
    }
}

/// Copies a checked value with the entries of every map sorted by their encoded keys.
pub(crate) fn write_canonical(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    sorted(&mut Cursor::new(bytes), out, 0).map_err(Flaw::as_str)
}

fn sorted(cursor: &mut Cursor<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), Flaw> {
    if depth > MAX_DEPTH {
        return Err(Flaw::TooDeep);
    }
    let start = cursor.rest;
    let (count, is_map) = match cursor.marker()? {
        Marker::FixArray(count) => (usize::from(count), false),
        Marker::Array16 => (cursor.length(2)?, false),
        Marker::Array32 => (cursor.length(4)?, false),
        Marker::FixMap(count) => (usize::from(count), true),
        Marker::Map16 => (cursor.length(2)?, true),
        Marker::Map32 => (cursor.length(4)?, true),
        _ => {
            cursor.rest = start;
            out.extend_from_slice(cursor.value()?);
            return Ok(());
        }
    };
    out.extend_from_slice(&start[..start.len() - cursor.rest.len()]);
    if !is_map {
        return (0..count).try_for_each(|_| sorted(cursor, out, depth + 1));
    }
    let (first, mut entries) = (out.len(), Vec::with_capacity(count));
    for _ in 0..count {
        let begin = out.len() - first;
        out.extend_from_slice(cursor.value()?);
        sorted(cursor, out, depth + 1)?;
        entries.push(begin..out.len() - first);
    }
    // No encoded key is a prefix of another, so sorting the entries sorts by key.
    let written = &out[first..];
    if !entries.is_sorted_by_key(|entry| &written[entry.clone()]) {
        let written = written.to_vec();
        entries.sort_by_key(|entry| &written[entry.clone()]);
        out.truncate(first);
        for entry in entries {
            out.extend_from_slice(&written[entry]);
        }
    }
    Ok(())
}

/// Whether a value is an integer, by its first byte.
pub(crate) fn is_integer(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|&first| {
        matches!(
            Marker::from_u8(first),
            Marker::FixPos(_)
                | Marker::FixNeg(_)
                | Marker::U8
                | Marker::U16
                | Marker::U32
                | Marker::U64
                | Marker::I8
                | Marker::I16
                | Marker::I32
                | Marker::I64
        )
    })
}

/// Proves that `bytes` are exactly one complete value within [`MAX_DEPTH`].
pub(crate) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let mut cursor = Cursor::new(bytes);
    cursor.value().map_err(Flaw::as_str)?;
    if cursor.is_empty() {
        Ok(())
    } else {
        Err("bytes follow the value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_10_000_is_refused_without_recursing_that_far() {
        let mut bytes = vec![0x91; 10_000];
        bytes.push(0xC0);
        assert_eq!(check(&bytes), Err("nested deeper than 64 levels"));
    }

    #[test]
    fn sixty_four_levels_pass_and_one_more_does_not() {
        let nested = |levels: usize| {
            let mut bytes = vec![0x91; levels];
            bytes.push(0xC0);
            bytes
        };
        assert_eq!(check(&nested(64)), Ok(()));
        assert!(check(&nested(65)).is_err());
    }

    #[test]
    fn length_prefixes_that_lie_are_refused() {
        for lie in [
            &[0xDD, 0xFF, 0xFF, 0xFF, 0xFF][..],
            &[0xDF, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xDB, 0xFF, 0xFF, 0xFF, 0xFF, b'a'],
            &[0xC6, 0x00, 0x00, 0x00, 0x02, 0x00],
            &[0xC9, 0xFF, 0xFF, 0xFF, 0xFF, 0x00],
        ] {
            assert_eq!(check(lie), Err("the bytes end inside a value"), "{lie:x?}");
        }
    }

    #[test]
    fn trailing_bytes_and_the_reserved_byte_are_refused() {
        assert_eq!(check(&[0xC0, 0xC0]), Err("bytes follow the value"));
        assert_eq!(check(&[0xC1]), Err("holds the reserved byte 0xC1"));
        assert!(check(&[]).is_err());
    }
}
