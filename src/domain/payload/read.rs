//! MessagePack to serde values.
//!
//! The bytes are one checked value: complete, and no deeper than the limit. Beyond what
//! `rmp_serde` reads, a map key that is text is read as a number where the type has numbers, as
//! JSON has it, and `RawValue` of `serde_json` gets the value as JSON.

use serde::de::value::{BorrowedBytesDeserializer, MapDeserializer, SeqAccessDeserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer as _, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::transcode::{self, JsonForm};
use super::unfit::Unfit;
use super::write::RAW_VALUE;
use crate::domain::msgpack::{Cursor, Item};

/// The newtype under which types of `rmp_serde`'s users ask for an extension.
const EXTENSION: &str = "_ExtStruct";

/// A deserializer over borrowed bytes.
#[derive(Debug)]
pub(super) struct Reader<'de> {
    cursor: Cursor<'de>,
}

impl<'de> Reader<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self {
            cursor: Cursor::new(bytes),
        }
    }

    /// The next item, left where it is.
    fn peek(&self) -> Result<Item<'de>, Unfit> {
        let mut ahead = self.cursor;
        Ok(ahead.item()?)
    }

    fn value<V: Visitor<'de>>(&mut self, visitor: V, list_bytes: bool) -> Result<V::Value, Unfit> {
        match self.cursor.item()? {
            Item::Nil => visitor.visit_unit(),
            Item::Bool(value) => visitor.visit_bool(value),
            Item::Unsigned(value) => visitor.visit_u64(value),
            Item::Signed(value) => visitor.visit_i64(value),
            Item::F32(value) => visitor.visit_f32(value),
            Item::F64(value) => visitor.visit_f64(value),
            Item::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => visitor.visit_borrowed_bytes(bytes),
            },
            Item::Bytes(bytes) if list_bytes => {
                let mut list = de::value::SeqDeserializer::<_, Unfit>::new(bytes.iter().copied());
                let value = visitor.visit_seq(&mut list)?;
                list.end()?;
                Ok(value)
            }
            Item::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            Item::Array(count) => {
                let mut elements = Elements::new(self, count);
                let value = visitor.visit_seq(&mut elements)?;
                elements.end(value)
            }
            Item::Map(count) => {
                let mut elements = Elements::new(self, count);
                let value = visitor.visit_map(&mut elements)?;
                elements.end(value)
            }
            Item::Ext(kind, bytes) => visitor.visit_newtype_struct(extension(kind, bytes)),
        }
    }
}

/// An extension as the pair of its type and its bytes.
fn extension(kind: i8, bytes: &[u8]) -> SeqAccessDeserializer<Extension<'_>> {
    SeqAccessDeserializer::new(Extension {
        kind: Some(kind),
        bytes: Some(bytes),
    })
}

struct Extension<'de> {
    kind: Option<i8>,
    bytes: Option<&'de [u8]>,
}

impl<'de> de::SeqAccess<'de> for Extension<'de> {
    type Error = Unfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unfit> {
        if let Some(kind) = self.kind.take() {
            return seed.deserialize(kind.into_deserializer()).map(Some);
        }
        let bytes = self.bytes.take().map(BorrowedBytesDeserializer::new);
        bytes.map(|bytes| seed.deserialize(bytes)).transpose()
    }
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = Unfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.value(visitor, false)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        if self.cursor.is_next_nil() {
            self.cursor.item()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        // `rmp_serde` writes an empty array for it.
        if self.cursor.is_next_empty() {
            self.cursor.item()?;
            return visitor.visit_unit();
        }
        self.value(visitor, false)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        match name {
            RAW_VALUE => {
                let form = JsonForm {
                    sorted: false,
                    long_numbers: false,
                };
                let mut json = Vec::new();
                transcode::to_json(self.cursor.value()?, form, &mut json)?;
                let text = String::from_utf8(json).map_err(|e| Unfit::new(e.to_string()))?;
                visitor.visit_map(MapDeserializer::new(std::iter::once((RAW_VALUE, text))))
            }
            EXTENSION => match self.peek()? {
                Item::Ext(..) => self.value(visitor, false),
                _ => visitor.visit_newtype_struct(self),
            },
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        let has_data = match self.peek()? {
            Item::Map(1) => {
                self.cursor.item()?;
                true
            }
            Item::Map(count) => {
                let rule = format!("an enum is a map of one entry, not of {count}");
                return Err(Unfit::new(rule));
            }
            _ => false,
        };
        visitor.visit_enum(Variant {
            reader: self,
            has_data,
        })
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.wide()? {
            Some(value) => visitor.visit_i128(value),
            None => self.value(visitor, false),
        }
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.wide()? {
            Some(value) => visitor.visit_u128(value.cast_unsigned()),
            None => self.value(visitor, false),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.value(visitor, true)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _count: usize,
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        self.value(visitor, true)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _count: usize,
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        self.value(visitor, true)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        self.value(visitor, true)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.cursor.value()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string
        bytes byte_buf unit map identifier
    }
}

impl Reader<'_> {
    /// A 128-bit integer in the sixteen bytes that `rmp_serde` writes for one.
    fn wide(&mut self) -> Result<Option<i128>, Unfit> {
        let Item::Bytes(bytes) = self.peek()? else {
            return Ok(None);
        };
        let Ok(bytes) = bytes.try_into() else {
            return Ok(None);
        };
        self.cursor.item()?;
        Ok(Some(i128::from_be_bytes(bytes)))
    }
}

/// The elements of an array, or the entries of a map.
struct Elements<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: usize,
}

impl<'a, 'de> Elements<'a, 'de> {
    fn new(reader: &'a mut Reader<'de>, count: usize) -> Self {
        Self {
            reader,
            left: count,
        }
    }

    /// `value`, where the visitor has read every element.
    fn end<T>(&self, value: T) -> Result<T, Unfit> {
        match self.left {
            0 => Ok(value),
            left => Err(Unfit::new(format!("{left} elements too many"))),
        }
    }

    fn has_next(&mut self) -> bool {
        let has_next = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has_next
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Unfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unfit> {
        if !self.has_next() {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> de::MapAccess<'de> for Elements<'_, 'de> {
    type Error = Unfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unfit> {
        if !self.has_next() {
            return Ok(None);
        }
        seed.deserialize(Key(self.reader)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unfit> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// A map's key. JSON has only text there, so text and numbers stand for each other.
struct Key<'a, 'de>(&'a mut Reader<'de>);

impl<'de> Key<'_, 'de> {
    /// The key's text, where it is text.
    fn text(&mut self) -> Result<Option<&'de str>, Unfit> {
        let Item::Text(bytes) = self.0.peek()? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(bytes).ok();
        if text.is_some() {
            self.0.cursor.item()?;
        }
        Ok(text)
    }

    fn read_text<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        let text = match self.0.peek()? {
            Item::Unsigned(value) => value.to_string(),
            Item::Signed(value) => value.to_string(),
            Item::Bool(value) => value.to_string(),
            _ => return self.0.value(visitor, false),
        };
        self.0.cursor.item()?;
        visitor.visit_string(text)
    }
}

/// Reads a key of a type that JSON writes as text.
macro_rules! keys_from_text {
    ($($method:ident $visit:ident $type:ty)*) => {$(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Unfit> {
            let Some(text) = self.text()? else {
                return de::Deserializer::$method(self.0, visitor);
            };
            match text.parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(de::Error::invalid_type(Unexpected::Str(text), &visitor)),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Key<'_, 'de> {
    type Error = Unfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.0.value(visitor, false)
    }

    keys_from_text! {
        deserialize_bool visit_bool bool
        deserialize_i8 visit_i8 i8
        deserialize_i16 visit_i16 i16
        deserialize_i32 visit_i32 i32
        deserialize_i64 visit_i64 i64
        deserialize_i128 visit_i128 i128
        deserialize_u8 visit_u8 u8
        deserialize_u16 visit_u16 u16
        deserialize_u32 visit_u32 u32
        deserialize_u64 visit_u64 u64
        deserialize_u128 visit_u128 u128
        deserialize_f32 visit_f32 f32
        deserialize_f64 visit_f64 f64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.read_text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.read_text(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        if self.0.cursor.is_next_nil() {
            self.0.cursor.item()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        de::Deserializer::deserialize_enum(self.0, name, variants, visitor)
    }

    forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

/// A variant's name, and what it carries.
struct Variant<'a, 'de> {
    reader: &'a mut Reader<'de>,
    has_data: bool,
}

impl<'de> Variant<'_, 'de> {
    fn data(self) -> Result<Self, Unfit> {
        if self.has_data {
            Ok(self)
        } else {
            Err(Unfit::new("the variant lacks its data"))
        }
    }
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Unfit;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Unfit> {
        let name = seed.deserialize(&mut *self.reader)?;
        Ok((name, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Unfit;

    fn unit_variant(self) -> Result<(), Unfit> {
        if self.has_data {
            return de::Deserialize::deserialize(self.reader);
        }
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Unfit> {
        seed.deserialize(self.data()?.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _count: usize, visitor: V) -> Result<V::Value, Unfit> {
        self.data()?.reader.value(visitor, true)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        self.data()?.reader.value(visitor, true)
    }
}
