//! The little of Thrift's compact protocol that Parquet metadata needs, read
//! without trusting a byte.
//!
//! ```text
//! struct := (field)* 0
//! field  := id_delta u4 | type u4 | value
//! i32    := zigzag varint
//! ```
//!
//! What has more than one encoding is read in the one that this engine writes.
//! Source: thrift-compact-protocol.md of Apache Thrift.

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
    pub const I32: u8 = 5;
    pub const STRUCT: u8 = 12;
}

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

    /// An unsigned LEB128 integer, in no more bytes than it takes.
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
            if byte == 0 && shift > 0 {
                return self.fail("an integer in more bytes than it takes");
            }
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

    /// Passes by bytes that must be these.
    pub fn expect(&mut self, expected: &[u8]) -> Decoded<()> {
        match self.bytes[self.at..].starts_with(expected) {
            true => {
                self.at += expected.len();
                Ok(())
            }
            false => self.fail("bytes that this engine does not write"),
        }
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
        assert!(Reader::new(&[0x80, 0]).varint().is_err(), "a byte too many");
    }
}
