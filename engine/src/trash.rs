//! Files that nothing refers to any more, on their way out.
//!
//! To remove a file takes the system as long as its bytes are many: 15 ms for 64 MiB that
//! it has in memory. Where worker threads do the background work they wait for it. Where
//! commits do it, files go one at a time, as bytes are written: several at once would hold
//! a commit up for as long as a compaction has inputs.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::storage::Storage;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::{Mutex, lock};

/// Bytes that are written before the next file goes.
const BYTES_PER_FILE: u64 = 1 << 20;

/// Removes files, at once or later; what cannot be removed is an orphan, which the next
/// open removes.
#[derive(Debug)]
pub(crate) struct Trash {
    storage: Arc<dyn Storage>,
    /// Files wait to be removed.
    waits: bool,
    /// `None` once the database is closed: then they are another opener's.
    waiting: Mutex<Option<VecDeque<String>>>,
    /// Bytes written since the last one went.
    bytes: AtomicU64,
}

impl Trash {
    pub fn new(storage: Arc<dyn Storage>, waits: bool) -> Trash {
        Trash { storage, waits, waiting: Mutex::new(Some(VecDeque::new())), bytes: AtomicU64::new(0) }
    }

    /// Takes a file that nobody needs, or will ever need again.
    pub fn throw(&self, path: String) {
        let mut waiting = lock(&self.waiting);
        let Some(files) = &mut *waiting else { return };
        files.push_back(path);
        drop(waiting);
        if !self.waits {
            self.empty();
        }
    }

    /// After so many bytes were written: removes a file, if one's turn has come.
    pub fn pay(&self, bytes: u64) -> bool {
        let bytes = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        bytes >= BYTES_PER_FILE && self.remove_one()
    }

    /// Removes every file that waits.
    pub fn empty(&self) {
        while self.remove_one() {}
    }

    /// Removes nothing from now on, and leaves what waits.
    pub fn close(&self) {
        *lock(&self.waiting) = None;
    }

    fn remove_one(&self) -> bool {
        let next = lock(&self.waiting).as_mut().and_then(VecDeque::pop_front);
        let Some(path) = next else { return false };
        self.bytes.store(0, Relaxed);
        let _ = self.storage.remove(&path);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn trash(waits: bool) -> (MemoryStorage, Trash) {
        let storage = MemoryStorage::new();
        for path in ["a", "b", "c"] {
            storage.create(path).unwrap();
        }
        let trash = Trash::new(Arc::new(storage.clone()), waits);
        ["a", "b"].into_iter().for_each(|path| trash.throw(path.to_owned()));
        (storage, trash)
    }

    #[test]
    fn files_go_one_by_one_as_bytes_are_written() {
        let (storage, trash) = trash(true);
        assert!(!trash.pay(BYTES_PER_FILE - 1));
        assert_eq!(storage.files(), ["a", "b", "c"]);
        assert!(trash.pay(1));
        assert_eq!(storage.files(), ["b", "c"]);
        assert!(!trash.pay(1));
        trash.empty();
        assert_eq!(storage.files(), ["c"]);
        assert!(!trash.pay(u64::MAX / 2));
    }

    #[test]
    fn files_go_at_once_where_nobody_waits_for_it() {
        let (storage, _) = trash(false);
        assert_eq!(storage.files(), ["c"]);
    }

    #[test]
    fn a_closed_database_removes_nothing() {
        let (storage, trash) = trash(true);
        trash.close();
        trash.throw("c".to_owned());
        trash.empty();
        assert!(!trash.pay(BYTES_PER_FILE));
        assert_eq!(storage.files(), ["a", "b", "c"]);
    }
}
