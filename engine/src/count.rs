//! A count that many threads add to.

use std::cell::Cell;
// Not those of `crate::sync`: no answer depends on a count.
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Threads beyond so many share.
const STRIPES: usize = 8;

/// Each thread adds to a line of memory of its own: one that all write to would go back
/// and forth between processors, which takes longer than what is counted.
#[derive(Debug, Default)]
pub(crate) struct Count([Stripe; STRIPES]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(AtomicU64);

/// Threads that have counted something.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The stripe of the thread; none before it has counted something.
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

impl Count {
    /// Adds one.
    #[inline]
    pub fn add(&self) {
        let stripe = STRIPE.with(|stripe| {
            if stripe.get() == usize::MAX {
                stripe.set(THREADS.fetch_add(1, Relaxed) % STRIPES);
            }
            stripe.get()
        });
        self.0[stripe % STRIPES].0.fetch_add(1, Relaxed);
    }

    /// The sum.
    pub fn get(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_what_every_thread_counts() {
        let count = Count::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| (0..1000).for_each(|_| count.add()));
            }
        });
        assert_eq!(count.get(), 2000 * STRIPES as u64);
    }
}
