//! The one read path: a view of a keyspace at a sequence number.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::{Cursor, Found};
use crate::error::Result;
use crate::key::{SequenceNumber, ValueKind};
use crate::keyspace::View;
use crate::merge::MergeCursor;
use crate::version::RunCursor;

/// Key bounds of a scan.
pub(crate) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The newest version of `key` at or before `seq`, tombstones included.
pub(crate) fn find(view: &View, key: &[u8], seq: SequenceNumber) -> Result<Option<Found>> {
    for memory in view.memtables() {
        if let Some(found) = memory.table.get(key, seq) {
            return Ok(Some(found));
        }
    }
    view.version.get(key, seq)
}

/// The value of `key` at `seq`.
pub(crate) fn get(view: &View, key: &[u8], seq: SequenceNumber) -> Result<Option<Bytes>> {
    Ok(find(view, key, seq)?.filter(|found| found.kind == ValueKind::Put).map(|found| found.value))
}

/// Walks the visible rows of a view within bounds, in one direction.
pub(crate) struct RowCursor {
    merge: MergeCursor,
    seq: SequenceNumber,
    bounds: Bounds,
    reverse: bool,
    state: State,
    /// Key of the row last answered.
    key: Vec<u8>,
    value: Bytes,
    /// What the merge reads from.
    _view: Arc<View>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Walking,
    Over,
}

impl RowCursor {
    pub fn new(view: Arc<View>, bounds: Bounds, seq: SequenceNumber, reverse: bool) -> Self {
        let mut sources: Vec<Box<dyn Cursor + Send>> = Vec::new();
        for memory in view.memtables().filter(|memory| !memory.is_empty()) {
            sources.push(Arc::clone(&memory.table).cursor());
        }
        for run in &view.version.runs {
            let tables = run.within(&bounds.0, &bounds.1);
            if !tables.is_empty() {
                sources.push(Box::new(RunCursor::new(tables.to_vec())));
            }
        }
        let state = if is_empty(&bounds) { State::Over } else { State::Fresh };
        let merge = MergeCursor::new(sources);
        RowCursor { merge, seq, bounds, reverse, state, key: Vec::new(), value: Bytes::new(), _view: view }
    }

    /// Moves to the next row; false at the end. After an error the walk is over.
    pub fn advance(&mut self) -> Result<bool> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let moved = match (state, self.reverse) {
            (State::Over, _) => false,
            (state, false) => self.advance_forward(state == State::Fresh)?,
            (state, true) => self.advance_backward(state == State::Fresh)?,
        };
        if moved {
            self.state = State::Walking;
        }
        Ok(moved)
    }

    /// Key of the row.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Value of the row.
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    fn advance_forward(&mut self, fresh: bool) -> Result<bool> {
        if fresh {
            match &self.bounds.0 {
                Bound::Unbounded => self.merge.seek_first()?,
                Bound::Included(key) => self.merge.seek(key, SequenceNumber::MAX)?,
                Bound::Excluded(key) => {
                    let key = successor(key);
                    self.merge.seek(&key, SequenceNumber::MAX)?;
                }
            }
        }
        // True while the entry may be a version of a key that is done with.
        let mut done = !fresh;
        loop {
            let Some(entry) = self.merge.entry() else { return Ok(false) };
            if done && entry.key == self.key {
                self.merge.next()?;
                continue;
            }
            done = false;
            if !below_end(entry.key, &self.bounds.1) {
                return Ok(false);
            }
            if entry.seq > self.seq {
                self.merge.next()?;
                continue;
            }
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            if entry.kind == ValueKind::Put {
                self.value = self.merge.value();
                return Ok(true);
            }
            done = true;
            self.merge.next()?;
        }
    }

    /// Walks the versions of a key from the oldest to the newest visible one.
    fn advance_backward(&mut self, fresh: bool) -> Result<bool> {
        if fresh {
            match &self.bounds.1 {
                Bound::Unbounded => self.merge.seek_last()?,
                Bound::Excluded(key) => self.merge.seek_before(key, SequenceNumber::MAX)?,
                Bound::Included(key) => {
                    let key = successor(key);
                    self.merge.seek_before(&key, SequenceNumber::MAX)?;
                }
            }
        }
        let mut live: Option<Bytes> = None;
        let mut started = false;
        loop {
            let entry = self.merge.entry().filter(|entry| above_start(entry.key, &self.bounds.0));
            let Some(entry) = entry else { break };
            if started && entry.key != self.key {
                if live.is_some() {
                    break;
                }
                started = false;
            }
            if !started {
                started = true;
                self.key.clear();
                self.key.extend_from_slice(entry.key);
            }
            if entry.seq <= self.seq {
                live = (entry.kind == ValueKind::Put).then(|| self.merge.value());
            }
            self.merge.prev()?;
        }
        match live {
            Some(value) => {
                self.value = value;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

/// The first key after `key`.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

fn is_empty((start, end): &Bounds) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
            start >= end
        }
    }
}

fn below_end(key: &[u8], end: &Bound<Vec<u8>>) -> bool {
    match end {
        Bound::Unbounded => true,
        Bound::Included(end) => key <= end.as_slice(),
        Bound::Excluded(end) => key < end.as_slice(),
    }
}

fn above_start(key: &[u8], start: &Bound<Vec<u8>>) -> bool {
    match start {
        Bound::Unbounded => true,
        Bound::Included(start) => key >= start.as_slice(),
        Bound::Excluded(start) => key > start.as_slice(),
    }
}
