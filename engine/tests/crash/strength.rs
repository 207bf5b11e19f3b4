//! Proof of strength: a storage that skips or delays one kind of sync must be
//! found out, whichever it is.

use std::time::Instant;

use duramen::storage::fault::{Crash, FaultStorage, Mutant, SyncPoint, Until};
use duramen::{Database, Durability};

use crate::crashes::{Effort, crash_everywhere};
use crate::model::{self, PASSING};
use crate::run::{open, options};
use crate::workload;

/// Syncs that the engine does not need, each with the reason why it is there.
const EQUIVALENT: [(SyncPoint, &str); 1] = [(
    SyncPoint::ManifestCutBack,
    "WAL and manifest share the writer of logs, and only a WAL goes on after it was cut back: \
     an edit that could not be appended poisons the database",
)];

/// Orders that the engine keeps, broken one at a time.
const REORDERED: [Mutant; 7] = [
    // A table is in the manifest before it is durable.
    Mutant::Delay(SyncPoint::FlushTable, Until::Synced(SyncPoint::ManifestEdit)),
    Mutant::Delay(SyncPoint::FlushName, Until::Synced(SyncPoint::ManifestEdit)),
    Mutant::Delay(SyncPoint::CompactionTable, Until::Synced(SyncPoint::ManifestEdit)),
    // CURRENT leads to a manifest that is not durable.
    Mutant::Delay(SyncPoint::ManifestNew, Until::Synced(SyncPoint::CurrentSlot)),
    // A file goes before the edit that lets it go is durable.
    Mutant::Delay(SyncPoint::ManifestEdit, Until::Removed),
    // A WAL takes batches before the one before it is sealed for good.
    Mutant::Delay(SyncPoint::WalSeal, Until::Synced(SyncPoint::WalCommit)),
    // A WAL takes batches before its name is durable.
    Mutant::Delay(SyncPoint::WalName, Until::Synced(SyncPoint::WalCommit)),
];

/// The first check that fails.
fn kill(mutant: Mutant) -> Option<String> {
    for effort in [Effort::LIGHT, Effort::HEAVY] {
        for make in workload::ALL {
            if let Err(what) = crash_everywhere(&make(0), 0, Some(mutant), effort) {
                return Some(what);
            }
        }
    }
    None
}

#[test]
fn every_sync_is_needed() {
    let skipped = SyncPoint::ALL.map(Mutant::Skip);
    let mut survivors = Vec::new();
    for mutant in skipped.into_iter().chain(REORDERED) {
        let start = Instant::now();
        let equivalent = EQUIVALENT.iter().find(|(point, _)| mutant == Mutant::Skip(*point));
        let outcome = match equivalent {
            Some((_, why)) => format!("equivalent: {why}"),
            None => kill(mutant).unwrap_or_else(|| {
                survivors.push(mutant.to_string());
                "SURVIVES".to_owned()
            }),
        };
        println!("{:35} {:4.1} s  {outcome}", mutant.to_string(), start.elapsed().as_secs_f64());
    }
    assert!(survivors.is_empty(), "nothing fails with {survivors:?}");
}

/// What goes wrong where a storage is a mutant from the moment on at which a
/// keyspace with a table is dropped.
fn drop_on(mutant: Option<Mutant>) -> Vec<String> {
    let workload = workload::passing(0);
    let storage = FaultStorage::new(1);
    let db = open(&storage, &options(&workload)).unwrap();
    let id = model::create_passing(&db, 0).unwrap().id;
    db.put(id, b"key", b"value", Durability::Sync).unwrap();
    db.flush().unwrap();
    let before = storage.moment();
    storage.set_mutant(mutant);
    assert!(db.drop_keyspace(PASSING).unwrap());
    let after = storage.moment();
    let mut replay = storage.replay();
    replay.advance_to(before);
    let mut failures = Vec::new();
    while replay.advance() {
        for crash in std::iter::once(Crash::LoseAll).chain((0..100).map(Crash::LoseSome)) {
            let context = format!("{crash:?} after {}", replay.last_change());
            match open(&replay.crash(crash), &options(&workload)) {
                Err(error) => failures.push(format!("{context}: {error}")),
                Ok(db) if replay.moment() >= after && db.find_keyspace(PASSING).unwrap().is_some() => {
                    failures.push(format!("{context}: the keyspace is back"));
                }
                Ok(_) => {}
            }
        }
    }
    failures
}

/// A drop has no kind of sync to itself, only that of its edit.
#[test]
fn a_drop_needs_its_edit_to_be_synced_before_files_go() {
    assert_eq!(drop_on(None), [""; 0]);
    let edit = SyncPoint::ManifestEdit;
    for mutant in [Mutant::Skip(edit), Mutant::Delay(edit, Until::Removed)] {
        let failures = drop_on(Some(mutant));
        println!("a drop with {mutant}: {} failures, the first {:?}", failures.len(), failures.first());
        assert!(!failures.is_empty(), "{mutant} survives");
    }
}
