//! Goal: what compaction does to a tree is there to be looked at, and no change of the
//! picker goes unseen. Method: pictures of the tree after each flush, compared with a
//! file; `DURAMEN_BLESS=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use duramen::compaction::picture;
use duramen::compaction::simulate::{Model, Simulation, Workload};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pictures.txt");

const COLUMNS: usize = 48;

/// Pictures of a scaling over the flushes of a workload, and of what is left at the
/// end.
fn pictures(scaling: &str, workload: Workload) -> String {
    let simulation = Simulation {
        scaling: scaling.parse().unwrap(),
        workload,
        entries: 4000,
        memtable_bytes: 64 << 10,
        target_file_bytes: 64 << 10,
        ..Simulation::default()
    };
    let mut model = Model::new(&simulation).unwrap();
    let mut text = format!("== {scaling}, {workload}\n");
    let size = |bytes: u64| format!("{} KiB", bytes.div_ceil(1024));
    while model.flush() {
        let outcome = model.outcome();
        let _ = writeln!(
            text,
            "flush {}: {} merges, {} moves, {} drops; next {}",
            outcome.flushes,
            outcome.merges,
            outcome.moves,
            outcome.drops,
            model.next_pick().map_or("nothing".to_owned(), |pick| format!("{:?}", pick.cause))
        );
        text.push_str(&picture::text(&model.runs(), COLUMNS, size));
    }
    model.settle();
    text.push_str("settled\n");
    text.push_str(&picture::text(&model.runs(), COLUMNS, size));
    text.push('\n');
    text
}

#[test]
fn trees_grow_as_they_did() {
    let mut found = String::new();
    for scaling in ["T4", "L4", "T4/L4"] {
        found.push_str(&pictures(scaling, Workload::Uniform));
    }
    found.push_str(&pictures("T8", Workload::TimeSeries));
    found.push_str(&pictures("T4/L4", Workload::Queue));
    if std::env::var_os("DURAMEN_BLESS").is_some() {
        std::fs::write(Path::new(FILE), &found).unwrap();
    }
    let expected = std::fs::read_to_string(FILE).unwrap();
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{FILE}, line {}", number + 1);
    }
    assert_eq!(found.len(), expected.len());
}
