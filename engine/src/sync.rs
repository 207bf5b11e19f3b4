//! Locks that outlive a panic elsewhere, and pointers that are swapped under readers.
//!
//! The data under these locks is complete between statements, so a reader may
//! go on after some other thread panicked. What a panic in the middle of a
//! *commit* means is the commit path's business: it poisons the database.
//!
//! The primitives themselves come from here, too: those of the standard library,
//! or with feature `shuttle` those that let a test choose who goes on.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError};

use arc_swap::{ArcSwap, Guard};

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread,
};
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread,
};

/// Locks a mutex.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for reading.
pub(crate) fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing.
pub(crate) fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A lock that readers on different processors take without waiting for each other's
/// memory: it has one part for each of a few threads, and a writer takes them all. For
/// what is read much more often than written, or is written by one thread alone.
///
/// A sandbox has one thread, and a test of schedules has to see each step.
#[derive(Debug, Default)]
pub(crate) struct WideLock<T>(
    #[cfg(not(any(feature = "shuttle", target_family = "wasm")))] crossbeam_utils::sync::ShardedLock<T>,
    #[cfg(any(feature = "shuttle", target_family = "wasm"))] RwLock<T>,
);

impl<T> WideLock<T> {
    pub fn read(&self) -> impl Deref<Target = T> + '_ {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> impl DerefMut<Target = T> + '_ {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What readers look at while others replace it. A look writes nothing that another thread
/// looks at: where many read at once, a lock or a count of references that they share
/// would make them wait for each other.
#[derive(Debug)]
pub(crate) struct Swap<T> {
    value: ArcSwap<T>,
    /// Touched where a test of schedules may let another thread go on.
    #[cfg(feature = "shuttle")]
    step: atomic::AtomicBool,
}

impl<T> Swap<T> {
    pub fn new(value: T) -> Swap<T> {
        Swap {
            value: ArcSwap::from_pointee(value),
            #[cfg(feature = "shuttle")]
            step: atomic::AtomicBool::new(false),
        }
    }

    fn step(&self) {
        #[cfg(feature = "shuttle")]
        self.step.store(true, atomic::Ordering::SeqCst);
    }

    /// What is there now, for a short look.
    #[inline]
    pub fn look(&self) -> Guard<Arc<T>> {
        self.step();
        self.value.load()
    }

    /// What is there now, to hold on to.
    pub fn load(&self) -> Arc<T> {
        self.step();
        self.value.load_full()
    }

    pub fn store(&self, value: T) {
        self.step();
        self.value.store(Arc::new(value));
    }
}
