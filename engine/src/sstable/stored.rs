//! Pages that go from one table to another as they are stored: a merge copies what
//! nobody else has entries between, and neither decodes nor compresses it again.

use std::sync::Arc;

use bytes::Bytes;

use super::COLUMNS_MAX;
use super::keys::KeysPage;
use super::page::{ValuePage, Written};
use crate::key::SequenceNumber;
use crate::options::Compression;

/// A page of every column, of puts with distinct keys.
#[derive(Debug)]
pub struct StoredPage {
    pub(super) keys: Arc<KeysPage>,
    pub(super) raw: [Bytes; COLUMNS_MAX],
    /// Of the column of values: all of its pages.
    pub(super) written: [Written; COLUMNS_MAX],
    pub(super) values: Vec<ValuePage>,
    /// Lowest and highest, and that of the last row.
    pub(super) seqs: (i64, i64),
    pub(super) last_seq: SequenceNumber,
    pub(super) expiries: (i64, i64),
    /// What its table is laid out with.
    pub(super) compression: Compression,
    pub(super) expires: bool,
}

impl StoredPage {
    /// Number of its entries.
    pub fn rows(&self) -> usize {
        self.keys.rows()
    }

    /// The key of its first entry.
    pub fn first_key(&self) -> &[u8] {
        self.keys.get(0)
    }

    /// The key of its last entry.
    pub fn last_key(&self) -> &[u8] {
        self.keys.get(self.rows() - 1)
    }

    /// The sequence number of its last entry.
    pub fn last_seq(&self) -> SequenceNumber {
        self.last_seq
    }

    /// Bytes of all columns.
    pub fn bytes(&self) -> usize {
        self.raw.iter().map(Bytes::len).sum()
    }
}
