//! The registry of live snapshots: which points in time somebody may still read.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Acquire;

use crate::key::SequenceNumber;
use crate::sync::atomic::AtomicU64;
use crate::sync::{Mutex, lock};

/// Live snapshots by sequence number, with how many hold each.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    live: Mutex<BTreeMap<SequenceNumber, usize>>,
}

impl Snapshots {
    /// Takes a snapshot of what is visible now.
    ///
    /// `visible` is read under the lock that [`Snapshots::points`] takes, so a
    /// job that did not see this snapshot merges nothing that it could miss.
    pub fn acquire(&self, visible: &AtomicU64) -> SequenceNumber {
        let mut live = lock(&self.live);
        let seq = SequenceNumber(visible.load(Acquire));
        *live.entry(seq).or_default() += 1;
        seq
    }

    /// Lets one go.
    pub fn release(&self, seq: SequenceNumber) {
        let mut live = lock(&self.live);
        if let Some(count) = live.get_mut(&seq) {
            *count -= 1;
            if *count == 0 {
                live.remove(&seq);
            }
        }
    }

    /// The sequence numbers somebody reads at, ascending.
    pub fn points(&self) -> Vec<SequenceNumber> {
        lock(&self.live).keys().copied().collect()
    }

    /// Number of live snapshots, and the oldest.
    pub fn summary(&self) -> (u64, Option<SequenceNumber>) {
        let live = lock(&self.live);
        (live.values().sum::<usize>() as u64, live.keys().next().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_lives_as_long_as_its_last_holder() {
        let snapshots = Snapshots::default();
        let visible = AtomicU64::new(5);
        let a = snapshots.acquire(&visible);
        let b = snapshots.acquire(&visible);
        assert_eq!((a, b), (SequenceNumber(5), SequenceNumber(5)));
        visible.store(9, std::sync::atomic::Ordering::Release);
        let c = snapshots.acquire(&visible);
        assert_eq!(snapshots.summary(), (3, Some(a)));
        snapshots.release(a);
        assert_eq!(snapshots.points(), [a, c]);
        snapshots.release(b);
        assert_eq!(snapshots.points(), [c]);
    }
}
