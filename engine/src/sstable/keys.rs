//! Search among sorted keys: binary search over *heads*, the first eight bytes
//! after what all keys share, as big-endian integers in one array. Keys
//! themselves are looked at only among equal heads.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;

use super::cache::Block;
use super::page::{BytesPage, Glance};
use crate::key::{head, shared_prefix};

/// Heads of a sorted list of keys, which is kept elsewhere.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Bytes that all keys share.
    shared: usize,
    /// The head of a key, of which no more than these count.
    shared_head: u64,
    heads: Vec<u64>,
}

/// The first `bytes` of a head, which are 8 at most.
fn first_of(head: u64, bytes: usize) -> u64 {
    head & u64::MAX.checked_shl(64 - 8 * bytes as u32).unwrap_or(0)
}

impl Heads {
    /// Takes `count` keys in ascending order.
    pub fn new<'k>(count: usize, key: impl Fn(usize) -> &'k [u8]) -> Heads {
        let Some(last) = count.checked_sub(1) else { return Heads::default() };
        let shared = shared_prefix(key(0), key(last));
        let heads = (0..count).map(|index| head(key(index).get(shared..).unwrap_or_default())).collect();
        let shared_head = first_of(head(key(0)), shared.min(8));
        Heads { shared, shared_head, heads }
    }

    /// Number of keys below `wanted`.
    #[inline]
    pub fn below<'k>(&self, wanted: &[u8], key: impl Fn(usize) -> &'k [u8]) -> usize {
        self.search(wanted, 0..self.heads.len(), |index| key(index) < wanted, &key)
    }

    /// Number of keys at or below `wanted`, where it is known that those before `within`
    /// are, and those after are not.
    #[inline]
    pub fn up_to<'k>(&self, wanted: &[u8], within: Range<usize>, key: impl Fn(usize) -> &'k [u8]) -> usize {
        self.search(wanted, within, |index| key(index) <= wanted, &key)
    }

    #[inline]
    fn search<'k>(
        &self,
        wanted: &[u8],
        within: Range<usize>,
        before: impl Fn(usize) -> bool,
        key: &impl Fn(usize) -> &'k [u8],
    ) -> usize {
        if within.is_empty() {
            return within.start;
        }
        let rest = if self.shared <= 8
            && let Some(rest) = wanted.get(self.shared..)
        {
            // Without a look at a key, which lies elsewhere.
            match first_of(head(wanted), self.shared).cmp(&self.shared_head) {
                Ordering::Less => return within.start,
                Ordering::Equal => rest,
                Ordering::Greater => return within.end,
            }
        } else {
            let shared = &key(0)[..self.shared];
            match wanted.strip_prefix(shared) {
                Some(rest) => rest,
                None if wanted < shared => return within.start,
                None => return within.end,
            }
        };
        let head = head(rest);
        let start = within.start + self.heads[within.clone()].partition_point(|other| *other < head);
        // Few heads are equal to another.
        let equal = match &self.heads[start..within.end] {
            [] => 0,
            [first, ..] if *first != head => 0,
            [_, second, ..] if *second != head => 1,
            rest => rest.partition_point(|other| *other == head),
        };
        let mut range = start..start + equal;
        while !range.is_empty() {
            let middle = range.start + range.len() / 2;
            if before(middle) {
                range.start = middle + 1;
            } else {
                range.end = middle;
            }
        }
        range.start
    }

    /// Bytes of memory.
    pub fn weight(&self) -> usize {
        self.heads.len() * 8
    }
}

/// The rows of a key in a page that is searched but once, and not worth its heads.
pub(super) fn rows_of(key: &[u8], page: &Glance<'_>, rows: usize) -> Range<usize> {
    let wanted = head(key);
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = low + (high - low) / 2;
        let other = page.get(middle);
        let found = head(other);
        if found < wanted || (found == wanted && other < key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    run_of(key, low, rows, |row| page.get(row))
}

/// The rows of a key, which begin with `start` if there are any.
fn run_of<'k>(key: &[u8], start: usize, rows: usize, get: impl Fn(usize) -> &'k [u8]) -> Range<usize> {
    let end = (start..rows).find(|row| get(*row) != key);
    start..end.unwrap_or(rows)
}

/// A page of keys that is quick to search.
#[derive(Debug)]
pub(super) struct KeysPage {
    page: BytesPage,
    heads: Heads,
    /// It is known that no two rows have one key.
    distinct: bool,
}

impl KeysPage {
    pub fn new(page: BytesPage) -> KeysPage {
        let heads = Heads::new(page.rows(), |row| page.get(row));
        let mut pairs = heads.heads.windows(2).enumerate();
        let distinct = pairs.all(|(row, pair)| pair[0] != pair[1] || page.get(row) != page.get(row + 1));
        KeysPage { page, heads, distinct }
    }

    /// See [`BytesPage::bring_near`].
    pub fn bring_near(&self, first: usize, last: usize) {
        self.page.bring_near(first, last);
    }

    /// See [`BytesPage::apart`].
    pub fn apart(&self) -> Option<KeysPage> {
        self.page.apart().map(KeysPage::new)
    }

    pub fn rows(&self) -> usize {
        self.page.rows()
    }

    #[inline]
    pub fn get(&self, row: usize) -> &[u8] {
        self.page.get(row)
    }

    /// The first row whose key is `wanted` or above.
    #[inline]
    pub fn lower_bound(&self, wanted: &[u8]) -> usize {
        self.heads.below(wanted, |row| self.page.get(row))
    }

    /// The rows of a key.
    #[inline]
    pub fn rows_of(&self, key: &[u8]) -> Range<usize> {
        run_of(key, self.lower_bound(key), self.rows(), |row| self.get(row))
    }

    /// True if it is known that no two rows have one key.
    pub fn is_distinct(&self) -> bool {
        self.distinct
    }

    /// Shares the page's memory.
    pub fn slice(&self, row: usize) -> Bytes {
        self.page.slice(row)
    }
}

impl Block for KeysPage {
    fn weight(&self) -> usize {
        self.page.weight() + self.heads.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_plain_search() {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for shared in ["", "s", "s\0", "12345678", "123456789", "same-prefix-"] {
            for tail in [
                "",
                "a",
                "a\0",
                "a\0\0\0\0\0\0\0\0",
                "ab",
                "abcdefgh",
                "abcdefghi",
                "abcdefghj",
                "b",
                "\u{7f}",
            ] {
                keys.push(format!("{shared}{tail}").into_bytes());
            }
        }
        keys.sort();
        for from in 0..keys.len() {
            for to in from..=keys.len() {
                let part = &keys[from..to];
                let heads = Heads::new(part.len(), |index| &part[index]);
                for wanted in &keys {
                    let below = part.partition_point(|key| key < wanted);
                    assert_eq!(heads.below(wanted, |index| &part[index]), below);
                    let up_to = part.partition_point(|key| key <= wanted);
                    for within in [0..part.len(), up_to / 2..up_to, up_to..part.len(), up_to..up_to] {
                        assert_eq!(heads.up_to(wanted, within, |index| &part[index]), up_to);
                    }
                }
            }
        }
    }
}
