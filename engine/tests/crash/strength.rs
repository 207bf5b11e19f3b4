//! Proof of strength: a storage that skips or delays one kind of sync must be
//! found out, whichever it is.

use std::time::Instant;

use duramen::storage::fault::{Mutant, SyncPoint, Until};

use crate::crashes::{Effort, crash_everywhere};
use crate::workload;

/// Mutants that nothing can tell from the engine as it is, each with the reason.
const EQUIVALENT: [(SyncPoint, &str); 0] = [];

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

/// The first check that fails, and how many images it took.
fn kill(mutant: Mutant) -> Option<String> {
    let effort = Effort { some: 4, torn: 1, recoveries_every: 12 };
    for seed in 0..3 {
        for make in workload::ALL {
            if let Err(what) = crash_everywhere(&make(seed), seed, Some(mutant), effort) {
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
        let killer = kill(mutant);
        let seconds = start.elapsed().as_secs_f64();
        let equivalent = EQUIVALENT.iter().find(|(point, _)| mutant == Mutant::Skip(*point));
        match (&killer, equivalent) {
            (Some(what), _) => println!("{:45} {seconds:5.1} s  {what}", mutant.to_string()),
            (None, Some((_, why))) => {
                println!("{:45} {seconds:5.1} s  equivalent: {why}", mutant.to_string())
            }
            (None, None) => {
                println!("{:45} {seconds:5.1} s  SURVIVES", mutant.to_string());
                survivors.push(mutant.to_string());
            }
        }
    }
    assert!(survivors.is_empty(), "nothing fails with {survivors:?}");
}
