//! Rows that lie together in a page, for a reader who need not look at each of
//! them: all are puts that it may see, no two have one key, and nobody else has
//! entries between them.

use bytes::Bytes;

use super::table::Rows;

/// Rows of a page from one on, in the direction of a walk.
#[derive(Debug)]
pub struct Stretch {
    rows: Rows,
    from: usize,
    len: usize,
    forward: bool,
}

impl Stretch {
    /// The `len` rows from `from` on.
    pub(super) fn new(rows: Rows, from: usize, len: usize, forward: bool) -> Stretch {
        Stretch { rows, from, len, forward }
    }

    /// Number of rows.
    #[inline]
    pub fn rows(&self) -> usize {
        self.len
    }

    /// Leaves out the rows from `key` on.
    pub fn end_before(&mut self, key: &[u8]) {
        let len = if self.forward {
            self.rows.keys.lower_bound(key).saturating_sub(self.from)
        } else {
            (self.from + 1).saturating_sub(self.rows.keys.upper_bound(key))
        };
        self.len = self.len.min(len);
    }

    #[inline]
    fn row(&self, at: usize) -> usize {
        if self.forward { self.from + at } else { self.from - at }
    }

    /// The key of row `at`, counted along the way.
    #[inline]
    pub fn key(&self, at: usize) -> &[u8] {
        self.rows.keys.get(self.row(at))
    }

    /// Its value.
    #[inline]
    pub fn value(&self, at: usize) -> &[u8] {
        self.rows.values.get(self.row(at))
    }

    /// Its key, sharing the memory of the page.
    pub fn key_bytes(&self, at: usize) -> Bytes {
        self.rows.keys.slice(self.row(at))
    }

    /// Its value, sharing the memory of the page.
    pub fn value_bytes(&self, at: usize) -> Bytes {
        self.rows.values.slice(self.row(at))
    }
}
