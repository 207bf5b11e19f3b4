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
    /// The last key that each end has answered: where they meet, it is over.
    front_key: Option<Bytes>,
    back_key: Option<Bytes>,
    over: bool,
}

impl Rows {
    pub(super) fn new(keyspace: Keyspace, bounds: Bounds, snapshot: Option<SequenceNumber>) -> Rows {
        let view = keyspace.inner.view();
        let dropped = keyspace.inner.is_dropped();
        let moment = keyspace.engine.parts.core.moment(&view, snapshot);
        Rows {
            view,
            dropped,
            moment,
            bounds,
            keyspace,
            front: None,
            back: None,
            front_key: None,
            back_key: None,
            over: false,
        }
    }

    fn step(&mut self, reverse: bool) -> Result<Option<(Bytes, Bytes)>> {
        self.keyspace.engine.parts.core.check_open()?;
        if self.dropped {
            self.keyspace.inner.check()?;
        }
        let end = if reverse { &mut self.back } else { &mut self.front };
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
            return Ok(None);
        }
        let key = Bytes::copy_from_slice(cursor.key());
        let value = cursor.value().clone();
        let met = match (reverse, &self.front_key, &self.back_key) {
            (false, _, Some(back)) => key >= *back,
            (true, Some(front), _) => key <= *front,
            _ => false,
        };
        if met {
            return Ok(None);
        }
        *(if reverse { &mut self.back_key } else { &mut self.front_key }) = Some(key.clone());
        Ok(Some((key, value)))
    }

    fn next_from(&mut self, reverse: bool) -> Option<Result<(Bytes, Bytes)>> {
        if self.over {
            return None;
        }
        let row = self.step(reverse).transpose();
        self.over = !matches!(row, Some(Ok(_)));
        row
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
