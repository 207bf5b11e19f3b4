//! Iterators over pairs.

use std::sync::Arc;

use bytes::Bytes;

use super::Keyspace;
use crate::cursor::Moment;
use crate::error::Result;
use crate::key::SequenceNumber;
use crate::keyspace::View;
use crate::read::{Bounds, RowCursor};

/// Key-value pairs of a range, from both ends; all as they were when the
/// iterator was made. It ends after an error.
pub struct Rows {
    keyspace: Keyspace,
    view: Arc<View>,
    /// The keyspace had been dropped when the view was taken.
    dropped: bool,
    moment: Moment,
    bounds: Bounds,
    front: Option<RowCursor>,
    back: Option<RowCursor>,
    over: bool,
}

impl Rows {
    pub(super) fn new(keyspace: Keyspace, bounds: Bounds, snapshot: Option<SequenceNumber>) -> Rows {
        let view = keyspace.inner.view();
        let dropped = keyspace.inner.is_dropped();
        let moment = keyspace.engine.parts.core.moment(&view, snapshot);
        Rows { view, dropped, moment, bounds, keyspace, front: None, back: None, over: false }
    }

    /// The next pair, borrowed until the next call: nothing is copied or counted, which
    /// makes a long scan twice as fast.
    ///
    /// # Errors
    /// As the iterator's; after one it is over.
    #[inline]
    pub fn next_borrowed(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let row = self.step(false)?;
        Ok(row.map(|cursor| (cursor.key(), cursor.value())))
    }

    /// The next pair from the other end, borrowed like that of [`Rows::next_borrowed`].
    ///
    /// # Errors
    /// As the iterator's; after one it is over.
    #[inline]
    pub fn next_back_borrowed(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let row = self.step(true)?;
        Ok(row.map(|cursor| (cursor.key(), cursor.value())))
    }

    /// Moves an end; answers its cursor where there is a row.
    #[inline]
    fn step(&mut self, reverse: bool) -> Result<Option<&RowCursor>> {
        if self.over {
            return Ok(None);
        }
        let is_open = self.keyspace.engine.parts.core.is_open();
        let (end, other) =
            if reverse { (&mut self.back, &self.front) } else { (&mut self.front, &self.back) };
        let glides = is_open && other.is_none() && end.as_mut().is_some_and(RowCursor::glide);
        if !glides && !self.walk(reverse)? {
            return Ok(None);
        }
        Ok(if reverse { self.back.as_ref() } else { self.front.as_ref() })
    }

    /// Moves an end, wherever it is; false at the end of the walk, which it remembers.
    fn walk(&mut self, reverse: bool) -> Result<bool> {
        self.over = true;
        self.keyspace.engine.parts.core.check_open()?;
        if self.dropped {
            self.keyspace.inner.check()?;
        }
        let (end, other) =
            if reverse { (&mut self.back, &self.front) } else { (&mut self.front, &self.back) };
        let cursor = match end {
            Some(cursor) => cursor,
            None => {
                let keyspace = Arc::clone(&self.keyspace.inner);
                keyspace.usage.note_scan();
                let (view, bounds) = (Arc::clone(&self.view), self.bounds.clone());
                let cursor = RowCursor::new(keyspace, view, bounds, self.moment, reverse, None)?;
                end.insert(cursor)
            }
        };
        if !cursor.advance()? {
            return Ok(false);
        }
        // Where the ends meet, it is over.
        let met = match other {
            Some(other) if reverse => cursor.key() <= other.key(),
            Some(other) => cursor.key() >= other.key(),
            None => false,
        };
        self.over = met;
        Ok(!met)
    }

    fn next_from(&mut self, reverse: bool) -> Option<Result<(Bytes, Bytes)>> {
        self.step(reverse).map(|row| row.map(RowCursor::pair)).transpose()
    }
}

impl Iterator for Rows {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_from(false)
    }
}

impl DoubleEndedIterator for Rows {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.next_from(true)
    }
}
