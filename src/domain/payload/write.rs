//! serde values to MessagePack.
//!
//! The form is the one that `rmp_serde` writes with named fields and in serde's human-readable
//! form, but for what JSON and its readers cannot follow: a unit struct is nil, `RawValue` and
//! `Number` of `serde_json` are the JSON that they stand for, and 128-bit integers are numbers.

use rmp::encode as put;
use serde::ser::{self, Serialize};

use super::frame::Frame;
use super::unfit::Unfit;
use super::{number, transcode};
use crate::domain::msgpack::{Cursor, Flaw, MAX_DEPTH};

/// The struct name under which `serde_json` hands raw JSON to a serializer.
pub(super) const RAW_VALUE: &str = "$serde_json::private::RawValue";
/// The struct name under which it hands out a number, where another crate of the build has turned
/// on its feature `arbitrary_precision`.
const NUMBER: &str = "$serde_json::private::Number";

/// What becomes of a 128-bit integer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wide {
    /// It is a number.
    Number,
    /// The value is refused. serde reads no 128-bit integer inside a tagged or flattened type, and
    /// the serializer cannot see that it is in one.
    Refused,
}

/// A serializer into bytes.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
    pub(super) has_long_numbers: bool,
    wide: Wide,
    depth: usize,
}

impl Writer {
    /// Writes into the memory of a buffer, from its beginning on.
    pub(super) fn new(wide: Wide, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.reserve(128);
        Self {
            out: buffer,
            has_long_numbers: false,
            wide,
            depth: 0,
        }
    }

    fn wide(&mut self, text: &str) -> Result<(), Unfit> {
        if self.wide == Wide::Refused {
            return Err(Unfit::new(
                "a payload holds no 128-bit integers, which not every consumer could read; \
                 send it as text",
            ));
        }
        self.has_long_numbers |= number::write_text(&mut self.out, text)?;
        Ok(())
    }

    fn elements(&mut self, count: Option<usize>, is_map: bool) -> Result<Elements<'_>, Unfit> {
        self.deeper()?;
        let frame = Frame::open(&mut self.out, count.unwrap_or(0), is_map)?;
        Ok(Elements {
            writer: self,
            frame,
            count: 0,
        })
    }

    /// The bytes are checked against the limit later; this bound protects the stack until then.
    fn deeper(&mut self) -> Result<(), Unfit> {
        if self.depth > MAX_DEPTH {
            return Err(Flaw::TooDeep.into());
        }
        self.depth += 1;
        Ok(())
    }

    fn variant(&mut self, name: &str) -> Result<(), Unfit> {
        put::write_map_len(&mut self.out, 1)?;
        put::write_str(&mut self.out, name)?;
        Ok(())
    }
}

fn io(error: std::io::Error) -> Unfit {
    Unfit::new(error.to_string())
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = Unfit;
    type SerializeSeq = Elements<'a>;
    type SerializeTuple = Elements<'a>;
    type SerializeTupleStruct = Elements<'a>;
    type SerializeTupleVariant = Elements<'a>;
    type SerializeMap = Elements<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Elements<'a>;

    fn serialize_bool(self, value: bool) -> Result<(), Unfit> {
        put::write_bool(&mut self.out, value).map_err(io)
    }

    fn serialize_i8(self, value: i8) -> Result<(), Unfit> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Unfit> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Unfit> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Unfit> {
        put::write_sint(&mut self.out, value)?;
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), Unfit> {
        self.wide(&value.to_string())
    }

    fn serialize_u8(self, value: u8) -> Result<(), Unfit> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Unfit> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Unfit> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Unfit> {
        put::write_uint(&mut self.out, value)?;
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), Unfit> {
        self.wide(&value.to_string())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Unfit> {
        Ok(put::write_f32(&mut self.out, value)?)
    }

    fn serialize_f64(self, value: f64) -> Result<(), Unfit> {
        Ok(put::write_f64(&mut self.out, value)?)
    }

    fn serialize_char(self, value: char) -> Result<(), Unfit> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Unfit> {
        Ok(put::write_str(&mut self.out, value)?)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Unfit> {
        Ok(put::write_bin(&mut self.out, value)?)
    }

    fn serialize_none(self) -> Result<(), Unfit> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unfit> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unfit> {
        put::write_nil(&mut self.out).map_err(io)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Unfit> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), Unfit> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Unfit> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unfit> {
        self.variant(variant)?;
        self.deeper()?;
        value.serialize(&mut *self)?;
        self.depth -= 1;
        Ok(())
    }

    fn serialize_seq(self, count: Option<usize>) -> Result<Elements<'a>, Unfit> {
        self.elements(count, false)
    }

    fn serialize_tuple(self, count: usize) -> Result<Elements<'a>, Unfit> {
        self.elements(Some(count), false)
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        count: usize,
    ) -> Result<Elements<'a>, Unfit> {
        self.elements(Some(count), false)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<Elements<'a>, Unfit> {
        self.variant(variant)?;
        self.elements(Some(count), false)
    }

    fn serialize_map(self, count: Option<usize>) -> Result<Elements<'a>, Unfit> {
        self.elements(count, true)
    }

    fn serialize_struct(self, name: &'static str, count: usize) -> Result<Fields<'a>, Unfit> {
        Ok(match name {
            RAW_VALUE => Fields::RawValue(self),
            NUMBER => Fields::Number(self),
            _ => Fields::Named(self.elements(Some(count), true)?),
        })
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<Elements<'a>, Unfit> {
        self.variant(variant)?;
        self.elements(Some(count), true)
    }
}

/// The elements of an array or a map. Their real number wins over the announced one.
#[derive(Debug)]
pub(super) struct Elements<'a> {
    writer: &'a mut Writer,
    frame: Frame,
    count: usize,
}

impl Elements<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.count += 1;
        value.serialize(&mut *self.writer)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Unfit> {
        self.element(name)?;
        value.serialize(&mut *self.writer)
    }

    fn close(self) -> Result<(), Unfit> {
        self.writer.depth -= 1;
        self.frame.close(&mut self.writer.out, self.count)
    }
}

impl ser::SerializeSeq for Elements<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.element(value)
    }

    fn end(self) -> Result<(), Unfit> {
        self.close()
    }
}

impl ser::SerializeTuple for Elements<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.element(value)
    }

    fn end(self) -> Result<(), Unfit> {
        self.close()
    }
}

impl ser::SerializeTupleStruct for Elements<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.element(value)
    }

    fn end(self) -> Result<(), Unfit> {
        self.close()
    }
}

impl ser::SerializeTupleVariant for Elements<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.element(value)
    }

    fn end(self) -> Result<(), Unfit> {
        self.close()
    }
}

impl ser::SerializeMap for Elements<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unfit> {
        self.element(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), Unfit> {
        self.close()
    }
}

impl ser::SerializeStructVariant for Elements<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unfit> {
        self.field(name, value)
    }

    fn end(self) -> Result<(), Unfit> {
        self.close()
    }
}

/// The fields of a struct, or of one that `serde_json` means as JSON text.
#[derive(Debug)]
pub(super) enum Fields<'a> {
    Named(Elements<'a>),
    RawValue(&'a mut Writer),
    Number(&'a mut Writer),
}

impl ser::SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unfit> {
        let (writer, is_number) = match self {
            Self::Named(elements) => return elements.field(name, value),
            Self::RawValue(writer) => (writer, false),
            Self::Number(writer) => (writer, true),
        };
        let mut field = Writer::new(Wide::Refused, Vec::new());
        value.serialize(&mut field)?;
        let text = Cursor::new(&field.out).text()?;
        writer.has_long_numbers |= if is_number {
            number::write_text(&mut writer.out, text)?
        } else {
            transcode::from_json(text.as_bytes(), &mut writer.out)?
        };
        Ok(())
    }

    fn end(self) -> Result<(), Unfit> {
        match self {
            Self::Named(elements) => elements.close(),
            Self::RawValue(_) | Self::Number(_) => Ok(()),
        }
    }
}
