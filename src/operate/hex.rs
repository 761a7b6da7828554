//! Bytes in hexadecimal.

/// How many bytes a row of a view has.
const ROW: usize = 16;

/// All bytes in one word.
pub fn word(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Rows of sixteen bytes: the offset, the bytes in hexadecimal, and the printable ones as text.
pub fn view(bytes: &[u8]) -> Vec<String> {
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
            view(&bytes),
            [
                "00000000  41 42 43 44 45 46 47 48  49 4a 4b 4c 4d 4e 4f 50  |ABCDEFGHIJKLMNOP|",
                "00000010  51 52                                             |QR|",
            ]
        );
        assert_eq!(
            view(b"\x1b\x80~"),
            [format!("00000000  1b 80 7e{}  |..~|", " ".repeat(40))]
        );
        assert!(view(b"").is_empty());
    }
}
