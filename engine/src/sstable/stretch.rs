//! Rows that lie together in a page, for a reader who need not look at each of
//! them: all are puts that it may see, no two have one key, and nobody else has
//! entries between them.

use bytes::Bytes;

use super::table::Rows;

/// The row that is compared first in a search from the beginning.
const FIRST_STEP: usize = 3;

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
        let comes_before = |at: &usize| {
            let row = self.key(*at);
            if self.forward { row < key } else { row > key }
        };
        if self.len.checked_sub(1).is_none_or(|last| comes_before(&last)) {
            return;
        }
        // Most are short: steps that double find the end sooner than halves do.
        let steps = std::iter::successors(Some(FIRST_STEP), |at| Some(2 * at + 1));
        let mut range = 0..self.len - 1;
        for at in steps.take_while(|at| *at < self.len - 1) {
            if !comes_before(&at) {
                range.end = at;
                break;
            }
            range.start = at + 1;
        }
        while !range.is_empty() {
            let middle = range.start + range.len() / 2;
            if comes_before(&middle) {
                range.start = middle + 1;
            } else {
                range.end = middle;
            }
        }
        self.len = range.start;
    }

    /// Brings the first `rows` near, if there are so many: a reader is about to look at all
    /// of them.
    pub fn bring_near(&self, rows: usize) {
        let Some(last) = rows.min(self.len).checked_sub(1) else { return };
        let (a, b) = (self.row(0), self.row(last));
        let (first, last) = (a.min(b), a.max(b));
        self.rows.keys.bring_near(first, last);
        self.rows.values.bring_near(first, last);
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
