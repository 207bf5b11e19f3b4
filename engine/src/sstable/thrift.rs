//! The little of Thrift's compact protocol that Parquet metadata needs, read
//! without trusting a byte.
//!
//! ```text
//! struct := (field)* 0
//! field  := id_delta u4 | type u4 | [id varint, if the delta is 0] | value
//! list   := len u4 | type u4 | [len varint, if len is 15] | value*
//! binary := len varint | bytes
//! i16 i32 i64 := zigzag varint
//! ```
//!
//! Invariants: a declared length never exceeds the bytes that are left, so
//! nothing is allocated on the word of the input; unknown fields are skipped,
//! to a bounded depth. Source: thrift-compact-protocol.md of Apache Thrift.

use std::borrow::Cow;

use bytes::BufMut;

use crate::error::Error;

/// Why bytes do not decode, and where: an [`Error::Corruption`] that does not
/// know its file yet.
#[derive(Debug)]
pub(super) struct Malformed {
    /// Bytes from the start of what was decoded.
    pub at: usize,
    /// What was found.
    pub what: Cow<'static, str>,
}

/// Result of every decoder of this room.
pub(super) type Decoded<T> = Result<T, Malformed>;

impl Malformed {
    pub fn new(at: usize, what: impl Into<Cow<'static, str>>) -> Self {
        Malformed { at, what: what.into() }
    }

    /// The same, where what was decoded begins after `bytes` more.
    pub fn after(self, bytes: usize) -> Self {
        Malformed { at: self.at + bytes, ..self }
    }

    /// The error for a decode that started at `base` of `file`.
    pub fn in_file(self, file: &str, base: u64) -> Error {
        Error::corruption(file, base.saturating_add(self.at as u64), self.what)
    }
}

/// Appends an unsigned LEB128 integer.
pub(super) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends a signed integer: zigzag, then LEB128.
pub(super) fn put_zigzag(out: &mut impl BufMut, value: i64) {
    put_varint(out, zigzag(value));
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Type nibbles of the compact protocol.
pub(super) mod kind {
    pub const TRUE: u8 = 1;
    pub const FALSE: u8 = 2;
    pub const BYTE: u8 = 3;
    pub const I16: u8 = 4;
    pub const I32: u8 = 5;
    pub const I64: u8 = 6;
    pub const DOUBLE: u8 = 7;
    pub const BINARY: u8 = 8;
    pub const LIST: u8 = 9;
    pub const SET: u8 = 10;
    pub const STRUCT: u8 = 12;
}

/// Deepest nesting skipped; Parquet's own metadata nests less than ten deep.
const DEPTH_MAX: u32 = 32;

/// A position in untrusted bytes.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Bytes consumed.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn fail<T>(&self, what: impl Into<Cow<'static, str>>) -> Decoded<T> {
        Err(Malformed::new(self.at, what))
    }

    /// Bytes not consumed yet.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[inline]
    pub fn byte(&mut self) -> Decoded<u8> {
        match self.bytes.get(self.at) {
            Some(&byte) => {
                self.at += 1;
                Ok(byte)
            }
            None => self.fail("bytes end early"),
        }
    }

    pub fn take(&mut self, len: usize) -> Decoded<&'a [u8]> {
        match self.at.checked_add(len).and_then(|end| self.bytes.get(self.at..end)) {
            Some(bytes) => {
                self.at += len;
                Ok(bytes)
            }
            None => self.fail("bytes end early"),
        }
    }

    #[inline]
    pub fn varint(&mut self) -> Decoded<u64> {
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return self.fail("integer of more than 64 bits");
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    #[inline]
    pub fn zigzag(&mut self) -> Decoded<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub fn int32(&mut self) -> Decoded<i32> {
        let value = self.zigzag()?;
        i32::try_from(value).or_else(|_| self.fail("integer of more than 32 bits"))
    }

    pub fn binary(&mut self) -> Decoded<&'a [u8]> {
        let len = self.varint()?;
        match usize::try_from(len) {
            Ok(len) => self.take(len),
            Err(_) => self.fail("bytes end early"),
        }
    }

    /// Type and length of a list; every element takes at least one byte, so a
    /// length past the end is refused here.
    pub fn list(&mut self) -> Decoded<(u8, usize)> {
        let head = self.byte()?;
        let len = match head >> 4 {
            15 => self.varint()?,
            len => u64::from(len),
        };
        match usize::try_from(len) {
            Ok(len) if len <= self.left() => Ok((head & 15, len)),
            _ => self.fail("list is longer than the bytes that hold it"),
        }
    }

    /// Reads a struct: calls `field` with id and type of each field, which must
    /// consume the value, with [`Reader::skip`] if it does not know the id.
    pub fn structure(&mut self, mut field: impl FnMut(&mut Self, i16, u8) -> Decoded<()>) -> Decoded<()> {
        let mut id = 0i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            id = self.field_id(head, id)?;
            field(self, id, head & 15)?;
        }
    }

    fn field_id(&mut self, head: u8, last: i16) -> Decoded<i16> {
        let id = match head >> 4 {
            0 => i16::try_from(self.zigzag()?).ok(),
            delta => last.checked_add(i16::from(delta)),
        };
        id.map_or_else(|| self.fail("field id out of range"), Ok)
    }

    /// Skips a value of type `kind`.
    pub fn skip(&mut self, kind: u8) -> Decoded<()> {
        self.skip_nested(kind, DEPTH_MAX)
    }

    fn skip_nested(&mut self, kind: u8, depth: u32) -> Decoded<()> {
        let Some(depth) = depth.checked_sub(1) else {
            return self.fail("structures nest too deep");
        };
        match kind {
            kind::TRUE | kind::FALSE => Ok(()),
            kind::BYTE => self.byte().map(drop),
            kind::I16 | kind::I32 | kind::I64 => self.varint().map(drop),
            kind::DOUBLE => self.take(8).map(drop),
            kind::BINARY => self.binary().map(drop),
            kind::LIST | kind::SET => {
                let (element, len) = self.list()?;
                for _ in 0..len {
                    match element {
                        kind::TRUE | kind::FALSE => self.byte().map(drop)?,
                        other => self.skip_nested(other, depth)?,
                    }
                }
                Ok(())
            }
            kind::STRUCT => {
                let mut id = 0;
                loop {
                    let head = self.byte()?;
                    if head == 0 {
                        return Ok(());
                    }
                    id = self.field_id(head, id)?;
                    self.skip_nested(head & 15, depth)?;
                }
            }
            _ => self.fail("unknown type"),
        }
    }

    /// Fails unless a field has the expected type.
    pub fn expect(&self, found: u8, expected: u8) -> Decoded<()> {
        if found == expected { Ok(()) } else { self.fail("field of an unexpected type") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_round_trip() {
        for value in [0, 1, -1, 63, 64, -65, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_zigzag(&mut out, value);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.zigzag().unwrap(), value);
            assert_eq!(reader.position(), out.len());
        }
        assert!(Reader::new(&[0xff; 11]).varint().is_err());
        assert!(Reader::new(&[0x80]).varint().is_err());
    }

    #[test]
    fn lengths_past_the_end_are_refused() {
        assert!(Reader::new(&[0xf8, 0xff, 0xff, 0xff, 0x7f]).list().is_err());
        assert!(Reader::new(&[0xff, 0xff, 0x03, 1]).binary().is_err());
        let nested = [0x1c; 100];
        assert!(Reader::new(&nested).skip(kind::STRUCT).is_err());
    }
}
