//! A k-way merge of cursors, itself a cursor.
//!
//! Sources are ordered newest first; an internal key is unique over all of
//! them, so the order matters only for damaged input. A scan has few sources
//! (one per memtable and sorted run), so the smallest is found by looking at
//! all of them.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::{EntryRef, SequenceNumber, compare_internal};

/// All entries of its sources, in order.
pub struct MergeCursor {
    sources: Vec<Box<dyn Cursor + Send>>,
    /// The source under the cursor.
    current: Option<usize>,
    /// The side of the current entry on which the other sources stand.
    forward: bool,
}

impl MergeCursor {
    /// Merges `sources`, newest first.
    pub fn new(sources: Vec<Box<dyn Cursor + Send>>) -> Self {
        MergeCursor { sources, current: None, forward: true }
    }

    /// Moves every source, then picks the first or the last of them.
    fn position(
        &mut self,
        forward: bool,
        mut place: impl FnMut(&mut (dyn Cursor + Send)) -> Result<()>,
    ) -> Result<()> {
        self.current = None;
        for source in &mut self.sources {
            place(source.as_mut())?;
        }
        self.forward = forward;
        self.select();
        Ok(())
    }

    fn select(&mut self) {
        let wanted = if self.forward { Ordering::Less } else { Ordering::Greater };
        let mut best: Option<(usize, EntryRef<'_>)> = None;
        for (index, source) in self.sources.iter().enumerate() {
            let Some(entry) = source.entry() else { continue };
            let better = match &best {
                None => true,
                Some((_, best)) => compare_internal((entry.key, entry.seq), (best.key, best.seq)) == wanted,
            };
            if better {
                best = Some((index, entry));
            }
        }
        self.current = best.map(|(index, _)| index);
    }

    /// Moves the current source one step and, where the direction turns, all
    /// other sources to the other side of the entry left behind.
    fn step(&mut self, forward: bool) -> Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        if self.forward != forward
            && let Some(entry) = self.sources[current].entry()
        {
            let (key, seq) = (entry.key.to_vec(), entry.seq);
            for (index, source) in self.sources.iter_mut().enumerate() {
                match (index == current, forward) {
                    (true, _) => {}
                    (false, true) => source.seek(&key, seq)?,
                    (false, false) => source.seek_before(&key, seq)?,
                }
            }
            self.forward = forward;
        }
        let source = &mut self.sources[current];
        if forward {
            source.next()?
        } else {
            source.prev()?
        }
        self.select();
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

    fn entry(&self) -> Option<EntryRef<'_>> {
        self.sources[self.current?].entry()
    }

    fn value(&self) -> Bytes {
        self.current.map(|current| self.sources[current].value()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    //! Random walks over a merge of memtables, against a sorted list.

    use std::sync::Arc;

    use super::*;
    use crate::key::{Entry, Expiry, ValueKind};
    use crate::memtable::{Memtable, sorted::SortedMemtable};

    #[test]
    fn walks_like_a_sorted_list() {
        for seed in 1..=40_u64 {
            let mut random = seed;
            let mut next = |bound: u64| {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (random >> 33) % bound
            };
            let tables: Vec<Arc<SortedMemtable>> = (0..4).map(|_| Arc::default()).collect();
            let mut model: Vec<(Vec<u8>, SequenceNumber)> = Vec::new();
            for seq in 1..=next(120) {
                let key = format!("{}", next(30)).into_bytes();
                let seq = SequenceNumber(seq);
                let table = &tables[next(4) as usize];
                let value = Bytes::copy_from_slice(&key);
                let (kind, expires_at) = (ValueKind::Put, Expiry::NEVER);
                table.insert(Entry { key: value.clone(), seq, kind, expires_at, value });
                model.push((key, seq));
            }
            model.sort_by(|a, b| compare_internal((&a.0, a.1), (&b.0, b.1)));
            let sources = tables.iter().map(|table| Arc::clone(table).cursor()).collect();
            let mut cursor = MergeCursor::new(sources);
            let mut at: Option<usize> = None;
            for _ in 0..400 {
                let probe = (format!("{}", next(32)).into_bytes(), SequenceNumber(next(130)));
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
