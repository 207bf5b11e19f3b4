//! Keys and values as people and other programs read them.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Failure, Result};

/// Hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The bytes of hexadecimal digits.
pub fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

/// A key or value from the command line.
pub fn argument(text: &str, hex: bool) -> Result<Vec<u8>> {
    if !hex {
        return Ok(text.as_bytes().to_vec());
    }
    from_hex(text)
        .ok_or_else(|| Failure::Usage(format!("{text:?} is not an even number of hexadecimal digits")))
}

/// Printable text as it is, everything else as 0x and hexadecimal digits.
pub fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", to_hex(bytes)),
    }
}

/// A pair as a JSON line.
pub fn json_line(key: &[u8], value: &[u8]) -> String {
    let mut object = Map::new();
    for (name, bytes) in [("key", key), ("value", value)] {
        match std::str::from_utf8(bytes) {
            Ok(text) => object.insert(name.to_owned(), Value::from(text)),
            Err(_) => object.insert(format!("{name}_hex"), Value::from(to_hex(bytes))),
        };
    }
    Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&all)), Some(all));
        assert_eq!(from_hex("0G"), None);
        assert_eq!(from_hex("abc"), None);
        assert_eq!(from_hex("ABcd"), Some(vec![0xab, 0xcd]));
        assert_eq!(from_hex("+1"), None);
    }

    #[test]
    fn lines_say_what_is_hex() {
        assert_eq!(json_line(b"a\"b", b"\xff\x00"), r#"{"key":"a\"b","value_hex":"ff00"}"#);
        assert_eq!(printable(b"a\tb"), "0x610962");
        assert_eq!(printable("ü".as_bytes()), "ü");
    }
}
