//! Proof of strength: a storage that skips or delays one kind of sync must be
//! found out, whichever it is.

use std::time::Instant;

use duramen::storage::fault::{Mutant, SyncPoint, Until};

use crate::crashes::{Effort, crash_everywhere};
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
