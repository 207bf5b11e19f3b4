//! Gaps: ranges of keys that are known to be empty, so that not every scan walks what
//! was deleted where it begins. Of a keyspace, in memory only.
//!
//! ```text
//!      start         end           least put
//!        |────────────|─────────────────|──────────────── keys
//!         a gap: no key               a put since the watch began:
//!         has a value                 the gap may grow as far as this
//! ```
//!
//! **What a gap says.** No key in `[start, end)` has a value for whoever reads at `seq`
//! or later, by a clock at `now_ms` or later. It is a shortcut and no more: whoever
//! reads at another moment walks as if there were none. What was learned from a view in
//! which nothing expires holds for such views alone: a reader who began before a
//! compaction dropped what had expired may still see it, by the clock of then.
//!
//! **How it is learned.** A forward scan walked from `start` to its first row, or to its
//! end, and met many dead keys: that range has no value at the moment of the scan.
//! Whatever is done to a dead key later leaves it dead, time included, save a put or an
//! operand. So the range stays empty but for those that the scan has not seen, and of
//! these a *watch* keeps the least: from when it begins, the writer tells it every key
//! that it puts, before the put is visible. What was put before, up to `armed_at`, the
//! scan must have seen: it learns nothing unless its moment is at or after that, and its
//! view holds all of it. If the watch begins when the scan is over and nothing was put
//! meanwhile, the scan itself learns; otherwise the next one does.
//!
//! **Nothing falls between.** The writer stores the number of its commit in `putting`,
//! then looks whether there is a watch; a scan makes the watch known, then takes
//! `putting` for `armed_at`. Both are sequentially consistent: a put of which the watch is
//! not told has a number that is not above `armed_at`. And a scan asks for a gap after it
//! has taken its moment: what it may see was told to the gap before.
//!
//! **What else happens to a keyspace** makes no value: deletes and range deletes end
//! some; flushes and compactions keep what is visible at any moment; what is put again
//! after a range delete is a put; a transaction tells what it commits, and its own
//! entries are walked beside the gap. A keyspace that is dropped takes its gaps along,
//! and the next of its name is another. At open there are none: what recovery brings
//! back is visible to every scan.
//!
//! A watch whose least put the gap has reached begins anew. So a queue costs one longer
//! walk each time that all in it has been replaced, and one per number of dead keys
//! that makes a walk long.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::cursor::Moment;
use crate::key::SequenceNumber;
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::sync::{Mutex, lock};

/// Dead keys before the first row after which it is worth knowing of them: a walk over
/// fewer costs no more than the seek before it. Tests learn from little.
pub(crate) const DEAD_KEYS_MIN: usize = if cfg!(any(test, feature = "shuttle")) { 3 } else { 64 };

/// Gaps of a keyspace, so that several queues may share it. Each put is compared with
/// all of them.
const GAPS_MAX: usize = 8;

/// Puts after which a gap is forgotten that no scan has used since.
const IDLE_PUTS_MAX: u32 = 1 << 20;

/// Where a range of keys ends: before a key, or nowhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Edge {
    Key(Vec<u8>),
    Open,
}

impl Edge {
    /// The key, unless it is open.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Edge::Key(key) => Some(key),
            Edge::Open => None,
        }
    }

    fn is_above(&self, key: &[u8]) -> bool {
        self.key().is_none_or(|edge| key < edge)
    }

    /// Moves it down to `key`, if it is above.
    fn cut(&mut self, key: &[u8]) {
        if self.is_above(key) {
            *self = Edge::Key(key.to_vec());
        }
    }
}

/// The gaps of a keyspace.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// False while there is none: then the writer does not look.
    any: AtomicBool,
    /// Highest sequence number of which a put may have gone in untold.
    putting: AtomicU64,
    list: Mutex<Vec<Gap>>,
}

/// A gap and the watch over what follows it.
#[derive(Debug)]
struct Gap {
    start: Vec<u8>,
    /// Where it ends; at `start` while nothing is known.
    end: Edge,
    seq: SequenceNumber,
    /// `None` where nothing expired in the view that it was learned from.
    now_ms: Option<u64>,
    /// Puts above it, at or after `start`, have been told.
    armed_at: SequenceNumber,
    /// The least key of those.
    least_put: Edge,
    /// Puts since a scan has used it.
    idle_puts: u32,
}

/// A scan that met dead keys alone between two keys.
pub(crate) struct Walk<'a> {
    /// Where it began.
    pub start: &'a [u8],
    /// Its first row, or where it ends.
    pub end: Edge,
    pub moment: Moment,
    /// Nothing in its view expires: the time makes no difference to it.
    pub timeless: bool,
}

impl Gaps {
    /// Takes in that the commit `seq` puts `key`, or merges into it. Before the commit
    /// is visible, and before the entry is in the memtable; one writer at a time.
    pub fn note_put(&self, seq: SequenceNumber, key: &[u8]) {
        if self.putting.load(Relaxed) != seq.0 {
            self.putting.store(seq.0, SeqCst);
        }
        if self.any.load(SeqCst) {
            self.cut(key);
        }
    }

    fn cut(&self, key: &[u8]) {
        let mut list = lock(&self.list);
        list.retain_mut(|gap| {
            gap.idle_puts += 1;
            if gap.start.as_slice() <= key {
                gap.end.cut(key);
                gap.least_put.cut(key);
            }
            gap.idle_puts < IDLE_PUTS_MAX
        });
        self.any.store(!list.is_empty(), SeqCst);
    }

    /// The end of what is known to be empty from `start` on, for a reader at `moment`;
    /// `None` if nothing is. The moment must have been taken before; the view of the
    /// reader must hold everything up to it.
    pub fn end_of(&self, start: &[u8], moment: Moment, timeless: bool) -> Option<Edge> {
        if !self.any.load(SeqCst) {
            return None;
        }
        let mut end: Option<Edge> = None;
        let mut list = lock(&self.list);
        // One may lead to another.
        loop {
            let at = match &end {
                None => start,
                Some(Edge::Key(key)) => key,
                Some(Edge::Open) => return end,
            };
            let holds = |gap: &&mut Gap| {
                gap.start.as_slice() <= at && gap.end.is_above(at) && gap.holds_at(moment, timeless)
            };
            let Some(gap) = list.iter_mut().filter(holds).max_by(|a, b| a.end.cmp(&b.end)) else {
                return end;
            };
            gap.idle_puts = 0;
            end = Some(gap.end.clone());
        }
    }

    /// Takes in what a scan has met, as far as that is still so. Its view must hold
    /// everything up to its moment, and none of a transaction's own writes.
    pub fn learn(&self, walk: Walk<'_>) {
        let mut list = lock(&self.list);
        let found = list.iter_mut().filter(|gap| walk.continues(gap)).max_by(|a, b| a.end.cmp(&b.end));
        if let Some(gap) = found {
            if gap.learn(&walk) && gap.least_put < walk.end {
                // The watch has told all that it can.
                gap.least_put = Edge::Open;
                gap.armed_at = SequenceNumber(self.putting.load(SeqCst));
            }
            return;
        }
        if list.len() == GAPS_MAX
            && let Some((index, _)) = list.iter().enumerate().max_by_key(|(_, gap)| gap.idle_puts)
        {
            list.swap_remove(index);
        }
        self.any.store(true, SeqCst);
        let mut gap = Gap {
            start: walk.start.to_vec(),
            end: Edge::Key(walk.start.to_vec()),
            seq: walk.moment.seq,
            now_ms: None,
            armed_at: SequenceNumber(self.putting.load(SeqCst)),
            least_put: Edge::Open,
            idle_puts: 0,
        };
        gap.learn(&walk);
        list.push(gap);
    }
}

impl Walk<'_> {
    /// True if it began in the gap, or where that ends.
    fn continues(&self, gap: &Gap) -> bool {
        gap.start.as_slice() <= self.start && gap.end.key().is_none_or(|end| self.start <= end)
    }
}

impl Gap {
    fn holds_at(&self, moment: Moment, timeless: bool) -> bool {
        let by_then = timeless || self.now_ms.is_some_and(|now_ms| now_ms <= moment.now_ms);
        self.seq <= moment.seq && by_then
    }

    /// Takes in a walk that began within it, as far as nothing was put there since; false
    /// if the walk was too early to tell.
    fn learn(&mut self, walk: &Walk<'_>) -> bool {
        let Moment { seq, now_ms } = walk.moment;
        if seq < self.seq.max(self.armed_at) {
            return false;
        }
        let end = walk.end.clone().min(self.least_put.clone());
        if !end.is_above(walk.start) {
            return true;
        }
        if self.holds_at(walk.moment, walk.timeless) {
            self.end = end.max(self.end.clone());
        } else {
            // A clock that went back knows no more than it has met itself.
            self.start = walk.start.to_vec();
            self.end = end;
        }
        self.seq = seq;
        self.now_ms = (!walk.timeless).then_some(now_ms);
        self.idle_puts = 0;
        true
    }
}

#[cfg(test)]
mod tests;
