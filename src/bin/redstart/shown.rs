//! Messages as they are shown: on one line, as JSON, in hexadecimal.

use redstart::store::{Limits, encode_entry};
use redstart::{Envelope, envelope::Codec};
use serde_json::json;
use serde_json::value::RawValue;

use crate::failure::chain;

/// Bytes of one line of a view in hexadecimal.
const ROW: usize = 16;

/// The envelope as JSON, as it is on the wire; or why it has no such form.
pub(crate) fn wire(envelope: &Envelope) -> Result<Box<RawValue>, String> {
    let unlimited = Limits::default().with_max_bytes(usize::MAX);
    let (_, bytes) = encode_entry(envelope, Codec::Json, unlimited).map_err(|e| chain(&e))?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// Fields of an entry, for programs.
pub(crate) fn fields(fields: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)]) -> serde_json::Value {
    let shown = fields.iter().map(|(name, value)| {
        json!({
            "name": String::from_utf8_lossy(name.as_ref()),
            "value": field(value.as_ref()),
        })
    });
    shown.collect()
}

/// Text as it is, other bytes in hexadecimal.
fn field(bytes: &[u8]) -> serde_json::Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lines with their place, the bytes in hexadecimal, and what of them is readable.
pub(crate) fn hex_view(bytes: &[u8]) -> Vec<String> {
    let line = |(at, row): (usize, &[u8])| {
        let mut codes = String::new();
        for (at, byte) in row.iter().enumerate() {
            let gap = if at == ROW / 2 { "  " } else { " " };
            codes = format!("{codes}{gap}{byte:02x}");
        }
        let readable = |byte: &u8| {
            if matches!(byte, 0x20..0x7f) {
                char::from(*byte)
            } else {
                '.'
            }
        };
        let text: String = row.iter().map(readable).collect();
        format!("{:08x} {codes:<49}  |{text}|", at * ROW)
    };
    bytes.chunks(ROW).enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_viewed_in_rows_of_sixteen() {
        let bytes: Vec<u8> = (0x41..=0x52).collect();
        assert_eq!(
            hex_view(&bytes),
            [
                "00000000  41 42 43 44 45 46 47 48  49 4a 4b 4c 4d 4e 4f 50  |ABCDEFGHIJKLMNOP|",
                "00000010  51 52                                             |QR|",
            ]
        );
        assert_eq!(
            hex_view(b"\x1b\x80~"),
            [format!("00000000  1b 80 7e{}  |..~|", " ".repeat(40))]
        );
        assert!(hex_view(b"").is_empty());
    }

    #[test]
    fn what_is_no_text_is_told_in_hexadecimal() {
        assert_eq!(field(b"a"), json!("a"));
        assert_eq!(field(b"\xff\x00"), json!({"hex": "ff00"}));
    }
}
