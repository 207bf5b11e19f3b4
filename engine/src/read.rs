//! The one read path: a view of a keyspace at a moment.
//!
//! Layers are searched from the newest to the oldest: own writes of a
//! transaction, memtables, sorted runs. Where layers hold the same key, a newer
//! one holds only higher sequence numbers of it, range tombstones over it
//! included; so the first value or tombstone found ends the search, and what a
//! range tombstone hides it hides in its own layer and in all older ones.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::{Cursor, Found, Lookup, Moment};
use crate::error::Result;
use crate::gaps::{DEAD_KEYS_MIN, Edge, Walk};
use crate::key::{SequenceNumber, ValueKind, is_same_key, long_head};
use crate::keyspace::{Keyspace, View};
use crate::merge::{MergeCursor, Source};
use crate::merge_operator::{self, Operator};
use crate::range_delete::RangeDeletes;
use crate::sstable::{Purpose, Stretch, hash_key};
use crate::version::RunCursor;

/// Key bounds of a scan.
pub(crate) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Sequence number of what a transaction has written and not committed: above
/// that of any commit, and seen at every moment.
pub(crate) const OWN: SequenceNumber = SequenceNumber::MAX;

/// Entries that a walk passes by one by one before it seeks past the other versions of
/// their key, of which there may be thousands.
const VERSIONS_PASSED_MAX: u32 = 16;

/// Rows of a stretch that are brought near at once. In long walks all of the page are near.
const ROWS_NEAR: usize = 32;

/// A point read.
pub(crate) struct Search<'a> {
    lookup: Lookup<'a>,
    /// The reader's sequence number, while that of the lookup goes down.
    seq: SequenceNumber,
    /// Operands found so far, newest first.
    pub operands: Vec<Bytes>,
}

impl<'a> Search<'a> {
    pub fn new(key: &'a [u8], moment: Moment) -> Self {
        let Moment { seq, now_ms } = moment;
        let lookup = Lookup { key, seq, hidden_below: SequenceNumber(0), now_ms };
        Search { lookup, seq, operands: Vec::new() }
    }

    /// The value of the key in a view, under the operands found before.
    pub fn run(mut self, view: &View, operator: &Operator) -> Result<Option<Bytes>> {
        let base = self.base(view)?;
        if self.operands.is_empty() {
            return Ok(base);
        }
        let value = merge_operator::resolve(operator, self.lookup.key, base.as_deref(), &self.operands)?;
        Ok(value.map(Bytes::from))
    }

    fn base(&mut self, view: &View) -> Result<Option<Bytes>> {
        let hash = hash_key(self.lookup.key);
        for memory in view.memtables() {
            let range_deletes = memory.range_deletes();
            let ended = self.layer(range_deletes.as_deref(), |lookup| Ok(memory.get(lookup, hash)))?;
            if let Some(base) = ended {
                return Ok(base);
            }
        }
        let version = &view.version;
        match version.cached(&self.lookup, hash) {
            Some(Found::Value(value)) => return Ok(Some(value)),
            Some(Found::Gone) => return Ok(None),
            // Operands are not kept.
            Some(Found::Operand(..)) | None => {}
        }
        for run in &version.runs {
            let Some(handle) = run.table_for(self.lookup.key) else { continue };
            if handle.meta().seq_min > self.seq {
                continue;
            }
            let table = handle.table()?;
            let ended = self.layer(Some(table.range_deletes()), |lookup| {
                table.get(lookup, hash, version.seen_whole(lookup.seq))
            })?;
            if let Some(base) = ended {
                return Ok(base);
            }
        }
        Ok(None)
    }

    /// Looks into a layer; answers what ends the search, if something does.
    fn layer(
        &mut self,
        range_deletes: Option<&RangeDeletes>,
        get: impl Fn(&Lookup<'_>) -> Result<Option<Found>>,
    ) -> Result<Option<Option<Bytes>>> {
        if let Some(range_deletes) = range_deletes.filter(|range_deletes| !range_deletes.is_empty()) {
            let hidden_below = range_deletes.newest_over(self.lookup.key, self.seq);
            self.lookup.hidden_below = self.lookup.hidden_below.max(hidden_below);
        }
        loop {
            match get(&self.lookup)? {
                None => return Ok(None),
                Some(Found::Gone) => return Ok(Some(None)),
                Some(Found::Value(value)) => return Ok(Some(Some(value))),
                Some(Found::Operand(seq, operand)) => {
                    self.operands.push(operand);
                    self.lookup.seq = SequenceNumber(seq.0.saturating_sub(1));
                }
            }
        }
    }
}

/// What a transaction adds to a scan: entries and range tombstones at [`OWN`].
pub(crate) struct OwnRows {
    pub cursor: Box<dyn Cursor + Send>,
    pub range_deletes: Arc<RangeDeletes>,
}

/// Walks the visible rows of a view within bounds, in one direction.
pub(crate) struct RowCursor {
    merge: MergeCursor,
    keyspace: Arc<Keyspace>,
    moment: Moment,
    bounds: Bounds,
    reverse: bool,
    state: State,
    /// Of all layers; those without any are left out.
    range_deletes: Vec<Arc<RangeDeletes>>,
    /// Those of a transaction, which hide all that is not its own.
    own_deletes: Option<Arc<RangeDeletes>>,
    /// Nothing but newer versions hides a row.
    plain: bool,
    /// Rows that are answered without a look at each, and the one last answered.
    stretch: Option<(Stretch, usize)>,
    /// Key and value of the row last answered, unless it is in a stretch. The value is
    /// not copied from where the merge stands until it has to be: then it is `None`.
    key: Vec<u8>,
    /// That of the merge where it stood at the key, on the way forward.
    rank: u128,
    value: Option<Bytes>,
    /// Operands of the row at hand, newest first.
    operands: Vec<Bytes>,
    /// What the merge reads from.
    view: Arc<View>,
    /// Keys without a value on the way to the row.
    dead_keys: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Walking,
    Over,
}

impl RowCursor {
    /// # Errors
    /// Those of opening a table with range tombstones.
    pub fn new(
        keyspace: Arc<Keyspace>,
        view: Arc<View>,
        bounds: Bounds,
        moment: Moment,
        reverse: bool,
        own: Option<OwnRows>,
    ) -> Result<Self> {
        let mut sources: Vec<Source> = Vec::new();
        let mut range_deletes: Vec<Arc<RangeDeletes>> = Vec::new();
        let own_deletes = own.map(|own| {
            sources.push(own.cursor.into());
            own.range_deletes
        });
        // Backwards, versions come from the oldest on.
        let reader = (!reverse).then_some(moment.seq);
        for memory in view.memtables().filter(|memory| !memory.is_empty()) {
            sources.push(Arc::clone(&memory.table).cursor(reader).into());
            range_deletes.extend(memory.range_deletes());
        }
        for run in &view.version.runs {
            let within = run.within(&bounds.0, &bounds.1);
            for table in run.tables[within.clone()].iter().filter(|table| table.meta().range_deletes > 0) {
                range_deletes.push(Arc::clone(table.table()?.range_deletes()));
            }
            if !within.is_empty() {
                sources.push(Source::Run(RunCursor::new(Arc::clone(&run.tables), within, Purpose::Reading)));
            }
        }
        Ok(RowCursor {
            merge: MergeCursor::new(sources),
            keyspace,
            moment,
            reverse,
            state: if is_empty(&bounds) { State::Over } else { State::Fresh },
            bounds,
            plain: range_deletes.is_empty() && own_deletes.as_ref().is_none_or(|own| own.is_empty()),
            range_deletes,
            own_deletes,
            stretch: None,
            key: Vec::new(),
            rank: 0,
            value: None,
            operands: Vec::new(),
            view,
            dead_keys: 0,
        })
    }

    /// Moves to the next row; false at the end. After an error the walk is over.
    #[inline]
    pub fn advance(&mut self) -> Result<bool> {
        if self.glide() { Ok(true) } else { self.walk() }
    }

    /// Moves to the next row, if that is known to be one without a look at it.
    #[inline]
    pub fn glide(&mut self) -> bool {
        let Some((stretch, at)) = &mut self.stretch else { return false };
        let glides = *at + 1 < stretch.rows();
        *at += usize::from(glides);
        glides
    }

    fn walk(&mut self) -> Result<bool> {
        let state = std::mem::replace(&mut self.state, State::Over);
        self.leave_stretch()?;
        let moved = match (state, self.reverse) {
            (State::Over, _) => false,
            (State::Fresh, false) => self.first_forward()?,
            (State::Walking, false) => self.advance_forward(true)?,
            (state, true) => self.advance_backward(state == State::Fresh)?,
        };
        if moved {
            self.state = State::Walking;
        }
        Ok(moved)
    }

    /// Key of the row.
    #[inline]
    pub fn key(&self) -> &[u8] {
        match &self.stretch {
            Some((stretch, at)) => stretch.key(*at),
            None => &self.key,
        }
    }

    /// Value of the row.
    #[inline]
    pub fn value(&self) -> &[u8] {
        match &self.stretch {
            Some((stretch, at)) => stretch.value(*at),
            None => match &self.value {
                Some(value) => value,
                None => self.merge.entry().map_or(&[], |entry| entry.value),
            },
        }
    }

    /// Key and value of the row; the value is not copied.
    pub fn pair(&self) -> (Bytes, Bytes) {
        match &self.stretch {
            Some((stretch, at)) => (stretch.key_bytes(*at), stretch.value_bytes(*at)),
            None => {
                let value = self.value.clone().unwrap_or_else(|| self.merge.value());
                (Bytes::copy_from_slice(&self.key), value)
            }
        }
    }

    /// Answers the row that the merge stands on, and those after it that need no look,
    /// if there are any.
    fn enter_stretch(&mut self) -> bool {
        let Some(mut stretch) = self.merge.stretch(self.moment.seq, self.moment.now_ms) else { return false };
        let end = if self.reverse { &self.bounds.0 } else { &self.bounds.1 };
        if let Bound::Included(key) | Bound::Excluded(key) = end {
            stretch.end_before(key);
        }
        let any = stretch.rows() > 0;
        if any {
            stretch.bring_near(ROWS_NEAR);
            self.stretch = Some((stretch, 0));
        }
        any
    }

    fn leave_stretch(&mut self) -> Result<()> {
        if let Some((stretch, at)) = self.stretch.take() {
            self.key.clear();
            self.key.extend_from_slice(stretch.key(at));
            self.rank = long_head(&self.key);
            self.merge.skip(stretch.rows())?;
        }
        Ok(())
    }

    /// Keys without a value that were walked on the way to the row.
    #[cfg(test)]
    pub fn dead_keys(&self) -> usize {
        self.dead_keys
    }

    fn sees(&self, seq: SequenceNumber) -> bool {
        seq <= self.moment.seq || seq == OWN
    }

    fn is_hidden(&self, key: &[u8], seq: SequenceNumber) -> bool {
        if self.range_deletes.iter().any(|set| set.newest_over(key, self.moment.seq) > seq) {
            return true;
        }
        let own = self.own_deletes.as_ref().filter(|_| seq != OWN);
        own.is_some_and(|set| set.newest_over(key, OWN) == OWN)
    }

    /// Makes `base`, under the operands found, the row's value.
    fn settle(&mut self, base: Option<Bytes>) -> Result<bool> {
        let value = if self.operands.is_empty() {
            base
        } else {
            let resolved =
                merge_operator::resolve(&self.keyspace.operator, &self.key, base.as_deref(), &self.operands)?;
            self.operands.clear();
            resolved.map(Bytes::from)
        };
        match value {
            Some(value) => {
                self.value = Some(value);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Moves to the first row, past what is known to be empty, and tells what else is.
    fn first_forward(&mut self) -> Result<bool> {
        let start = match &self.bounds.0 {
            Bound::Unbounded => Vec::new(),
            Bound::Included(key) => key.clone(),
            Bound::Excluded(key) => successor(key),
        };
        let timeless = !self.view.expires();
        let empty_to = self.keyspace.gaps.end_of(&start, self.moment, timeless);
        match empty_to.filter(|_| self.keyspace.is_complete(&self.view)) {
            None => self.merge.seek(&start, OWN)?,
            // What a transaction has written itself, the first source, is not.
            Some(end) => self.merge.seek_apart(usize::from(self.own_deletes.is_some()), &start, end.key())?,
        }
        let moved = self.advance_forward(false)?;
        if self.dead_keys >= DEAD_KEYS_MIN
            && self.own_deletes.is_none()
            && self.keyspace.is_complete(&self.view)
        {
            let end = match (&self.bounds.1, moved) {
                (_, true) => Edge::Key(self.key().to_vec()),
                (Bound::Unbounded, false) => Edge::Open,
                (Bound::Excluded(key), false) => Edge::Key(key.clone()),
                (Bound::Included(key), false) => Edge::Key(successor(key)),
            };
            self.keyspace.gaps.learn(Walk { start: &start, end, moment: self.moment, timeless });
        }
        Ok(moved)
    }

    /// Moves to the next row; `done` while the entry may be a version of a key that is
    /// done with.
    fn advance_forward(&mut self, mut done: bool) -> Result<bool> {
        self.dead_keys = 0;
        let mut passed = 0;
        loop {
            let Some(key) = self.merge.key().filter(|key| below_end(key, &self.bounds.1)) else {
                // Operands without a value below them make one.
                return self.settle(None);
            };
            let rank = self.merge.rank_here();
            let is_same = rank == self.rank && is_same_key(key, &self.key);
            if done && is_same {
                passed += 1;
                match passed % VERSIONS_PASSED_MAX {
                    // After every version of the key, as no sequence number is 0.
                    0 => self.merge.seek_on(&self.key, SequenceNumber(0))?,
                    _ => self.merge.next()?,
                }
                continue;
            }
            done = false;
            if !self.operands.is_empty() && !is_same {
                return self.settle(None);
            }
            if self.plain && self.operands.is_empty() && self.merge.may_stretch() && self.enter_stretch() {
                return Ok(true);
            }
            let Some(entry) = self.merge.entry() else { return Ok(false) };
            if !self.sees(entry.seq) {
                passed += 1;
                match passed % VERSIONS_PASSED_MAX {
                    0 => {
                        let key = entry.key.to_vec();
                        self.merge.seek_on(&key, self.moment.seq)?;
                    }
                    _ => self.merge.next()?,
                }
                continue;
            }
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            self.rank = rank;
            passed = 0;
            let gone = entry.is_gone(self.moment.now_ms) || self.is_hidden(entry.key, entry.seq);
            if !gone && entry.kind == ValueKind::Merge {
                self.operands.push(self.merge.value());
                self.merge.next()?;
                continue;
            }
            if !gone && self.operands.is_empty() {
                self.value = None;
                return Ok(true);
            }
            let base = (!gone).then(|| self.merge.value());
            if self.settle(base)? {
                return Ok(true);
            }
            self.dead_keys += 1;
            done = true;
            self.merge.next()?;
        }
    }

    /// Looks for the newest version of the key at hand; the merge stands there then.
    fn newest(&mut self) -> Result<Newest> {
        self.merge.seek(&self.key, OWN)?;
        if self.merge.entry().is_some_and(|entry| !self.sees(entry.seq)) {
            self.merge.seek(&self.key, self.moment.seq)?;
        }
        Ok(match self.merge.entry().filter(|entry| entry.key == self.key) {
            None => Newest::Gone,
            Some(entry) if entry.is_gone(self.moment.now_ms) => Newest::Gone,
            Some(entry) if self.is_hidden(entry.key, entry.seq) => Newest::Gone,
            Some(entry) if entry.kind == ValueKind::Merge => Newest::Operand,
            Some(_) => Newest::Value(self.merge.value()),
        })
    }

    /// Walks the versions of a key from the oldest to the newest visible one.
    fn advance_backward(&mut self, fresh: bool) -> Result<bool> {
        if fresh {
            match &self.bounds.1 {
                Bound::Unbounded => self.merge.seek_last()?,
                Bound::Excluded(key) => self.merge.seek_before(key, OWN)?,
                Bound::Included(key) => {
                    let key = successor(key);
                    self.merge.seek_before(&key, OWN)?;
                }
            }
        }
        let mut live: Option<Bytes> = None;
        let mut started = false;
        // Versions of the key so far; none of them is an operand.
        let mut passed = Some(0);
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
                if self.plain && self.merge.may_stretch() && self.enter_stretch() {
                    return Ok(true);
                }
                let Some(entry) = self.merge.entry() else { break };
                started = true;
                passed = Some(0);
                self.key.clear();
                self.key.extend_from_slice(entry.key);
            }
            let Some(entry) = self.merge.entry() else { break };
            passed = passed.filter(|_| entry.kind != ValueKind::Merge).map(|passed| passed + 1);
            if passed == Some(VERSIONS_PASSED_MAX) {
                live = match self.newest()? {
                    Newest::Operand => {
                        // They are walked all the same, from the oldest.
                        self.merge.seek_before(&self.key, SequenceNumber(0))?;
                        None
                    }
                    Newest::Gone => {
                        self.merge.seek_before(&self.key, OWN)?;
                        None
                    }
                    Newest::Value(value) => {
                        self.merge.seek_before(&self.key, OWN)?;
                        Some(value)
                    }
                };
                if live.is_some() {
                    break;
                }
                continue;
            }
            if self.sees(entry.seq) {
                let gone = entry.is_gone(self.moment.now_ms) || self.is_hidden(entry.key, entry.seq);
                live = match entry.kind {
                    _ if gone => None,
                    ValueKind::Merge => {
                        let (operator, operand) = (&self.keyspace.operator, [self.merge.value()]);
                        let base = live.as_deref();
                        merge_operator::resolve(operator, &self.key, base, &operand)?.map(Bytes::from)
                    }
                    _ => Some(self.merge.value()),
                };
            }
            self.merge.prev()?;
        }
        match live {
            Some(value) => {
                self.value = Some(value);
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

/// What the newest version of a key that a reader sees is.
enum Newest {
    Value(Bytes),
    Gone,
    Operand,
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
