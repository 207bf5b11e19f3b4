//! A k-way merge of cursors, itself a cursor.
//!
//! A tree of losers: each inner node keeps the source that lost there, so that
//! after a step only the nodes above the source that moved are played again.
//! Sources are compared by *ranks*, the first 16 bytes of their keys as one
//! integer, and by their entries only where ranks are equal.
//!
//! ```text
//!            winner: c
//!               |
//!            1: a               node n has the children 2n and 2n + 1;
//!          /       \            the sources are the leaves
//!       2: b       3: d
//!      /   \       /   \
//!     a     b     c     d
//! ```
//!
//! Source: Knuth, The Art of Computer Programming, volume 3, 5.4.1.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::{EntryRef, SequenceNumber, compare_internal, long_head};
use crate::sstable::{StoredPage, Stretch};
use crate::version::RunCursor;

/// Steps in a row that one source has taken before a stretch of it is looked for, and
/// the rows that such a one has at least: below, it costs more than it saves.
const STRETCH_STEPS: u32 = 8;
const STRETCH_ROWS_MIN: usize = 4;

/// What is merged.
pub enum Source {
    /// A sorted run, without a call by pointer for each step.
    Run(RunCursor),
    /// Anything else.
    Other(Box<dyn Cursor + Send>),
}

/// What `$do` makes of the cursor in a source.
macro_rules! with_cursor {
    ($source:expr, $cursor:ident => $do:expr) => {
        match $source {
            Source::Run($cursor) => $do,
            Source::Other($cursor) => $do,
        }
    };
}

impl Source {
    #[inline]
    fn entry(&self) -> Option<EntryRef<'_>> {
        with_cursor!(self, cursor => cursor.entry())
    }

    #[inline]
    fn key(&self) -> Option<&[u8]> {
        with_cursor!(self, cursor => cursor.key())
    }

    fn cursor(&mut self) -> &mut dyn Cursor {
        match self {
            Source::Run(cursor) => cursor,
            Source::Other(cursor) => cursor.as_mut(),
        }
    }
}

impl From<Box<dyn Cursor + Send>> for Source {
    fn from(cursor: Box<dyn Cursor + Send>) -> Self {
        Source::Other(cursor)
    }
}

/// All entries of its sources, in order. An internal key is unique over all of
/// them.
pub struct MergeCursor {
    sources: Vec<Source>,
    /// Of each source; the lowest wins.
    ranks: Vec<u128>,
    /// The loser of each inner node; the first is not used.
    losers: Vec<usize>,
    /// The source under the cursor.
    current: Option<usize>,
    /// The side of the current entry on which the other sources stand.
    forward: bool,
    /// The source that won last, and how often in a row.
    streak: (usize, u32),
}

impl MergeCursor {
    /// Merges `sources`.
    pub fn new(sources: Vec<Source>) -> Self {
        let (ranks, losers) = (vec![u128::MAX; sources.len()], vec![0; sources.len()]);
        MergeCursor { sources, ranks, losers, current: None, forward: true, streak: (0, 0) }
    }

    /// Moves every source, then picks the first or the last of them.
    fn position(
        &mut self,
        forward: bool,
        mut place: impl FnMut(&mut dyn Cursor) -> Result<()>,
    ) -> Result<()> {
        self.current = None;
        for source in &mut self.sources {
            place(source.cursor())?;
        }
        self.forward = forward;
        self.play_all();
        Ok(())
    }

    /// Moves the first `count` sources to the first entry from `first` on, and the others,
    /// which are fresh, to the first from `rest` on; with `None` they stand nowhere.
    pub fn seek_apart(&mut self, count: usize, first: &[u8], rest: Option<&[u8]>) -> Result<()> {
        let mut index = 0;
        self.position(true, |source| {
            let key = if index < count { Some(first) } else { rest };
            index += 1;
            key.map_or(Ok(()), |key| source.seek(key, SequenceNumber::MAX))
        })
    }

    /// The rank of a source: no more than that of any that comes after it.
    fn rank(&self, source: usize) -> u128 {
        match self.sources[source].key() {
            None => u128::MAX,
            Some(key) if self.forward => long_head(key),
            Some(key) => !long_head(key),
        }
    }

    /// True if `a` comes before `b` on the way.
    fn precedes(&self, a: usize, b: usize) -> bool {
        match self.ranks[a].cmp(&self.ranks[b]) {
            Ordering::Equal => self.precedes_by_entry(a, b),
            order => order.is_lt(),
        }
    }

    fn precedes_by_entry(&self, a: usize, b: usize) -> bool {
        let (Some(a), b) = (self.sources[a].entry(), self.sources[b].entry()) else { return false };
        let Some(b) = b else { return true };
        let order = compare_internal((a.key, a.seq), (b.key, b.seq));
        if self.forward { order.is_lt() } else { order.is_gt() }
    }

    /// Finds the winner anew.
    fn play_all(&mut self) {
        for source in 0..self.sources.len() {
            self.ranks[source] = self.rank(source);
        }
        let winner = (!self.sources.is_empty()).then(|| self.play_below(1));
        self.crown(winner);
    }

    /// The winner below a node.
    fn play_below(&mut self, node: usize) -> usize {
        if let Some(source) = node.checked_sub(self.sources.len()) {
            return source;
        }
        let (left, right) = (self.play_below(2 * node), self.play_below(2 * node + 1));
        let left_wins = !self.precedes(right, left);
        let (winner, loser) = if left_wins { (left, right) } else { (right, left) };
        self.losers[node] = loser;
        winner
    }

    /// Finds the winner after `source` has moved.
    fn play(&mut self, source: usize) {
        self.ranks[source] = self.rank(source);
        let mut winner = source;
        let mut node = (source + self.sources.len()) / 2;
        while node > 0 {
            if self.precedes(self.losers[node], winner) {
                std::mem::swap(&mut self.losers[node], &mut winner);
            }
            node /= 2;
        }
        self.crown(Some(winner));
    }

    fn crown(&mut self, winner: Option<usize>) {
        // A rank tells that a source stands somewhere, unless it is the highest.
        let stands =
            |source: &usize| self.ranks[*source] != u128::MAX || self.sources[*source].key().is_some();
        self.current = winner.filter(stands);
        if let Some(winner) = self.current {
            let steps = if winner == self.streak.0 { self.streak.1.saturating_add(1) } else { 0 };
            self.streak = (winner, steps);
        }
    }

    /// Whether two entries on the way forward may have one key: only if this is equal at
    /// both.
    #[inline]
    pub fn rank_here(&self) -> u128 {
        self.current.map_or(u128::MAX, |current| self.ranks[current])
    }

    /// True if it is worth while to ask for a [`MergeCursor::stretch`].
    #[inline]
    pub fn may_stretch(&self) -> bool {
        self.streak.1 >= STRETCH_STEPS || self.sources.len() == 1
    }

    /// The rows from the one under the cursor on, as long as they lie together, nobody
    /// else has entries between them, and a reader at `seq` and `now_ms` may see each.
    pub fn stretch(&mut self, seq: SequenceNumber, now_ms: u64) -> Option<Stretch> {
        self.streak.1 = 0;
        let stretch = self.undisturbed(seq, now_ms);
        stretch.filter(|stretch| stretch.rows() >= STRETCH_ROWS_MIN)
    }

    fn undisturbed(&self, seq: SequenceNumber, now_ms: u64) -> Option<Stretch> {
        let current = self.current?;
        let Source::Run(run) = &self.sources[current] else { return None };
        let mut stretch = run.stretch(self.forward, seq, now_ms)?;
        self.rivals(current).for_each(|key| stretch.end_before(key));
        Some(stretch)
    }

    /// Keys under other sources, that of the next one among them: it has lost to the
    /// `current` one.
    fn rivals(&self, current: usize) -> impl Iterator<Item = &[u8]> {
        let leaf = current + self.sources.len();
        let nodes = std::iter::successors(Some(leaf / 2), |node| Some(node / 2));
        nodes.take_while(|node| *node > 0).filter_map(|node| self.sources[self.losers[node]].key())
    }

    /// True if it is worth while to ask for a [`MergeCursor::stored_page`]: where one
    /// source goes on and on, or the page has just one row, that of a long value.
    #[inline]
    pub fn may_copy(&self) -> bool {
        let begins_lone = |current: usize| match &self.sources[current] {
            Source::Run(run) => run.rows_of_page_begun() == Some(1),
            Source::Other(_) => false,
        };
        self.may_stretch() || self.current.is_some_and(begins_lone)
    }

    /// The page under the cursor as it is stored, if the cursor stands on its first row,
    /// whose key is not `before`, nobody else has entries between its keys, no two rows
    /// have one key, and each is a put that has not expired at `now_ms`.
    ///
    /// # Errors
    /// Those of reading; the cursor stands nowhere then.
    pub fn stored_page(&mut self, before: &[u8], now_ms: u64) -> Result<Option<StoredPage>> {
        let Some(current) = self.current else { return Ok(None) };
        let Source::Run(run) = &self.sources[current] else { return Ok(None) };
        let Some(rows) = run.rows_of_page_begun() else { return Ok(None) };
        let Some(stretch) = run.stretch(true, SequenceNumber::MAX, now_ms) else { return Ok(None) };
        if stretch.rows() < rows || stretch.key(0) == before {
            return Ok(None);
        }
        let last = stretch.key(rows - 1);
        // Of the key of a single row, others have older versions.
        let is_behind = |key: &[u8]| last < key || (rows == 1 && last == key);
        if !self.rivals(current).all(is_behind) {
            return Ok(None);
        }
        let Source::Run(run) = &mut self.sources[current] else { return Ok(None) };
        run.stored_page().map(Some).inspect_err(|_| self.current = None)
    }

    /// Moves past the first `rows` of a stretch.
    pub fn skip(&mut self, rows: usize) -> Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        if let Source::Run(run) = &mut self.sources[current] {
            run.skip(rows, self.forward)?;
        }
        self.play(current);
        // It may well go on.
        self.streak.1 = STRETCH_STEPS;
        Ok(())
    }

    /// Moves the source under the cursor, which walks forward, on to the first entry from
    /// an internal key on; the others stand where they stood.
    pub fn seek_on(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        self.sources[current].cursor().seek(key, seq)?;
        self.play(current);
        Ok(())
    }

    /// Moves the current source one step and, where the direction turns, all
    /// other sources to the other side of the entry left behind.
    fn step(&mut self, forward: bool) -> Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let turns = self.forward != forward;
        if turns {
            self.turn(current, forward)?;
        }
        with_cursor!(&mut self.sources[current], source => if forward { source.next()? } else { source.prev()? });
        if turns {
            self.play_all();
        } else {
            self.play(current);
        }
        Ok(())
    }

    fn turn(&mut self, current: usize, forward: bool) -> Result<()> {
        let Some(entry) = self.sources[current].entry() else { return Ok(()) };
        let (key, seq) = (entry.key.to_vec(), entry.seq);
        for (index, source) in self.sources.iter_mut().enumerate() {
            match (index == current, forward) {
                (true, _) => {}
                (false, true) => source.cursor().seek(&key, seq)?,
                (false, false) => source.cursor().seek_before(&key, seq)?,
            }
        }
        self.forward = forward;
        Ok(())
    }
}

impl Cursor for MergeCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.position(true, |source| source.seek_first())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.position(false, |source| source.seek_last())
    }

    fn seek(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        self.position(true, |source| source.seek(key, seq))
    }

    fn seek_before(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        self.position(false, |source| source.seek_before(key, seq))
    }

    fn next(&mut self) -> Result<()> {
        self.step(true)
    }

    fn prev(&mut self) -> Result<()> {
        self.step(false)
    }

    #[inline]
    fn entry(&self) -> Option<EntryRef<'_>> {
        self.sources[self.current?].entry()
    }

    #[inline]
    fn key(&self) -> Option<&[u8]> {
        self.sources[self.current?].key()
    }

    fn value(&self) -> Bytes {
        self.current
            .map(|current| with_cursor!(&self.sources[current], cursor => cursor.value()))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    //! Random walks over a merge of memtables, against a sorted list. Keys that
    //! share their first 16 bytes, or that differ from them by zeros only, have
    //! equal ranks; 16 bytes of 0xff have the rank of a source that has ended.

    use std::sync::Arc;

    use super::*;
    use crate::key::{Expiry, ValueKind};
    use crate::memtable::{Memtable, sorted::SortedMemtable};

    fn key(seed: u64, number: u64) -> Vec<u8> {
        match seed % 4 {
            0 => format!("{number}").into_bytes(),
            // One, two, ... zero bytes.
            1 => vec![0; number as usize],
            2 => [&[0xff; 15][..], &vec![0xff; number as usize]].concat(),
            _ => format!("sixteen bytes or {number}").into_bytes(),
        }
    }

    #[test]
    fn walks_like_a_sorted_list() {
        for seed in 1..=100_u64 {
            let mut random = seed;
            let mut next = |bound: u64| {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (random >> 33) % bound
            };
            let count = next(9);
            let tables: Vec<Arc<SortedMemtable>> = (0..count).map(|_| Arc::default()).collect();
            let mut model: Vec<(Vec<u8>, SequenceNumber)> = Vec::new();
            for seq in 1..=next(120) * count.min(1) {
                let key = key(seed, next(30));
                let seq = SequenceNumber(seq);
                let table = &tables[next(count) as usize];
                let value = key.as_slice();
                let (kind, expires_at) = (ValueKind::Put, Expiry::NEVER);
                table.insert(EntryRef { key: value, seq, kind, expires_at, value });
                model.push((key, seq));
            }
            model.sort_by(|a, b| compare_internal((&a.0, a.1), (&b.0, b.1)));
            let sources = tables.iter().map(|table| Arc::clone(table).cursor(None).into()).collect();
            let mut cursor = MergeCursor::new(sources);
            let mut at: Option<usize> = None;
            for _ in 0..400 {
                let probe = (key(seed, next(32)), SequenceNumber(next(130)));
                let lower = model.partition_point(|e| {
                    compare_internal((&e.0, e.1), (&probe.0, probe.1)) == Ordering::Less
                });
                match (next(8), at) {
                    (0, _) => {
                        cursor.seek_first().unwrap();
                        at = (!model.is_empty()).then_some(0);
                    }
                    (1, _) => {
                        cursor.seek_last().unwrap();
                        at = model.len().checked_sub(1);
                    }
                    (2, _) => {
                        cursor.seek(&probe.0, probe.1).unwrap();
                        at = (lower < model.len()).then_some(lower);
                    }
                    (3, _) => {
                        cursor.seek_before(&probe.0, probe.1).unwrap();
                        at = lower.checked_sub(1);
                    }
                    (4 | 5, Some(index)) => {
                        cursor.next().unwrap();
                        at = (index + 1 < model.len()).then_some(index + 1);
                    }
                    (_, Some(index)) => {
                        cursor.prev().unwrap();
                        at = index.checked_sub(1);
                    }
                    _ => {}
                }
                let found = cursor.entry().map(|entry| (entry.key.to_vec(), entry.seq));
                assert_eq!(found, at.map(|index| model[index].clone()), "seed {seed}");
            }
        }
    }
}
