//! Goal: the engine does the same on every target. Method: the same scenarios
//! natively, as a WASI program, in Node and in a browser; over memory everywhere,
//! and over files where there are files.

use std::sync::Arc;

use duramen::storage::Storage;
use duramen::storage::memory::MemoryStorage;
use duramen::{Durability, Error};
use wasm_tests::scenarios::{self, Place};

/// Runs a function as a test, in whatever way the target has.
macro_rules! tests {
    ($($name:ident: $run:expr;)*) => {$(
        #[cfg_attr(all(target_family = "wasm", target_os = "unknown"), wasm_bindgen_test::wasm_bindgen_test)]
        #[cfg_attr(not(all(target_family = "wasm", target_os = "unknown")), test)]
        fn $name() {
            for storage in storages(stringify!($name)) {
                println!("over {}", storage.describe());
                $run(storage);
            }
        }
    )*};
}

tests! {
    reads_and_writes: |storage| scenarios::reads_and_writes(&storage);
    sstables_are_parquet: |storage| scenarios::sstables_are_parquet(&storage);
    scans: |storage| scenarios::scans(&storage);
    snapshots: |storage| scenarios::snapshots(&storage);
    reopens: |storage| scenarios::reopens(&storage);
    ranges_merges_and_expiry: |storage| scenarios::ranges_merges_and_expiry(&storage);
    keyspaces_come_and_go: |storage| scenarios::keyspaces_come_and_go(&storage);
    transactions: |storage| scenarios::transactions(&storage);
    maintains: |storage| scenarios::maintains(&storage);
    follows_the_model_1: |storage| scenarios::follows_the_model(&storage, 1);
    follows_the_model_2: |storage| scenarios::follows_the_model(&storage, 2);
    follows_the_model_3: |storage| scenarios::follows_the_model(&storage, 3);
    one_opener_at_a_time: open_twice;
    a_host_tells_what_it_cannot_sync: look_at_names;
}

/// Nobody else has these.
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
fn storages(_test: &str) -> Vec<Arc<dyn Storage>> {
    vec![Arc::new(MemoryStorage::new())]
}

/// Nobody else has these.
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
fn storages(test: &str) -> Vec<Arc<dyn Storage>> {
    use duramen::storage::fs::FsStorage;
    vec![Arc::new(MemoryStorage::new()), Arc::new(FsStorage::new(root().join(test)))]
}

/// The runner gives every program a new directory.
#[cfg(target_os = "wasi")]
fn root() -> std::path::PathBuf {
    "/".into()
}

#[cfg(not(target_family = "wasm"))]
fn root() -> std::path::PathBuf {
    use std::sync::OnceLock;
    // Removed by whoever cleans the temporary directory of the tests.
    static ROOT: OnceLock<std::path::PathBuf> = OnceLock::new();
    let new = || tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
    ROOT.get_or_init(new).clone()
}

fn open_twice(storage: Arc<dyn Storage>) {
    let first = Place::open(&storage, scenarios::small()).unwrap();
    let second = Place::open(&storage, scenarios::small());
    assert!(matches!(second.err(), Some(Error::Locked(_))));
    let keyspace = first.create_keyspace("k").unwrap();
    first.put(keyspace, b"k", b"v", Durability::Sync).unwrap();
    drop(first);
    let second = Place::open(&storage, scenarios::small()).unwrap();
    assert_eq!(second.get(keyspace, b"k", None).unwrap().unwrap(), "v");
}

/// A core module's host refuses to sync directories, and that is not hidden.
fn look_at_names(storage: Arc<dyn Storage>) {
    let db = Place::open(&storage, scenarios::small()).unwrap();
    let keyspace = db.create_keyspace("k").unwrap();
    db.put(keyspace, b"k", b"v", Durability::Sync).unwrap();
    let in_files = storage.describe() != "memory";
    assert_eq!(db.stats().unwrap().names_durable, !(in_files && cfg!(target_os = "wasi")));
}
