//! Keys and values as people and other programs read them.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Failure, Result};

/// Longest time to live, in milliseconds: a thousand years. Longer is a mistake.
const TTL_MS_MAX: u64 = 1000 * 366 * 86_400_000;

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

/// A value from the command line: text, hexadecimal digits, or an integer.
pub fn value(text: &str, hex: bool, int: bool) -> Result<Vec<u8>> {
    if !int {
        return argument(text, hex);
    }
    let number: i64 =
        text.parse().map_err(|_| Failure::Usage(format!("{text:?} is not an integer of 64 bits")))?;
    Ok(number.to_le_bytes().to_vec())
}

/// The integer that a value of 8 bytes is, least significant byte first.
pub fn int(value: &[u8]) -> Option<i64> {
    value.try_into().ok().map(i64::from_le_bytes)
}

/// The milliseconds of `90s`, `15m`, `12h` or `30d`.
pub fn parse_ttl(text: &str) -> Result<u64, String> {
    let units = [('s', 1000), ('m', 60_000), ('h', 3_600_000), ('d', 86_400_000)];
    let parsed = units.iter().find_map(|(unit, ms)| {
        let number: u64 = text.strip_suffix(*unit)?.parse().ok()?;
        number.checked_mul(*ms).filter(|ms| (1..=TTL_MS_MAX).contains(ms))
    });
    parsed.ok_or_else(|| "a time is a number and s, m, h or d: 90s, 15m, 12h, 30d".to_owned())
}

/// The same, or `never` as 0.
pub fn parse_ttl_or_never(text: &str) -> Result<u64, String> {
    if text == "never" { Ok(0) } else { parse_ttl(text) }
}

/// The number of `500`, `500k`, `10M` or `1G`.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let units = [("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("", 1)];
    parse_with(text, &units).ok_or_else(|| "a number, or one with k, M or G: 500k, 10M".to_owned())
}

/// The bytes of `500`, `64KiB`, `8MiB` or `1GiB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];
    parse_with(text, &units).ok_or_else(|| "a number, or one with KiB, MiB or GiB: 64KiB, 8MiB".to_owned())
}

fn parse_with(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find_map(|(unit, factor)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*factor).filter(|number| *number > 0)
    })
}

/// Printable text as it is, everything else as 0x and hexadecimal digits.
pub fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", to_hex(bytes)),
    }
}

/// A pair as a JSON line; the value may be given as an integer.
pub fn json_line(key: &[u8], value: &[u8], int: Option<i64>) -> String {
    let mut object = Map::new();
    for (name, bytes) in [("key", key), ("value", value)] {
        match (int.filter(|_| name == "value"), std::str::from_utf8(bytes)) {
            (Some(int), _) => object.insert("int".to_owned(), Value::from(int)),
            (None, Ok(text)) => object.insert(name.to_owned(), Value::from(text)),
            (None, Err(_)) => object.insert(format!("{name}_hex"), Value::from(to_hex(bytes))),
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
    fn times_to_live_have_units() {
        let times = [("90s", 90_000), ("15m", 900_000), ("12h", 43_200_000), ("30d", 2_592_000_000)];
        for (text, ms) in times {
            assert_eq!(parse_ttl(text), Ok(ms));
        }
        for text in
            ["", "s", "90", "0s", "-1s", "1.5h", "1w", "1 h", "99999999999999999999d", "400000d", "never"]
        {
            assert!(parse_ttl(text).is_err(), "{text}");
        }
        assert_eq!(parse_ttl_or_never("never"), Ok(0));
    }

    #[test]
    fn numbers_have_units() {
        assert_eq!(parse_count("10M"), Ok(10_000_000));
        assert_eq!(parse_count("7"), Ok(7));
        assert_eq!(parse_bytes("8MiB"), Ok(8 << 20));
        for text in ["", "M", "0", "-1k", "1.5M", "1T", "99999999999999999999", "18446744073709551615k"] {
            assert!(parse_count(text).is_err(), "{text}");
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lines_say_what_is_hex() {
        assert_eq!(json_line(b"a\"b", b"\xff\x00", None), r#"{"key":"a\"b","value_hex":"ff00"}"#);
        assert_eq!(printable(b"a\tb"), "0x610962");
        assert_eq!(printable("ü".as_bytes()), "ü");
    }
}
