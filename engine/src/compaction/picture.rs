//! Sorted runs as a picture of text: a line for each run, newest first, that runs
//! from the first key of the keyspace to the last.
//!
//! ```text
//! L0 │██████████████████████████████████████████████████│   2.4 MiB
//! L2 │▐███████▌▐██████▌▐████████▌        ▐█████████████▌│  61.0 MiB
//! ```
//!
//! A table is as wide as its share of the keyspace's bytes, and as dark as it is
//! dense, against the densest run.

use std::fmt::Write as _;

use crate::stats::{RunInfo, TableInfo};

/// From sparse to dense; each stands for four times the density of the one before.
const SHADES: [char; 4] = ['░', '▒', '▓', '█'];

/// The picture of `runs` with a keyspace `columns` wide; `size` says how many bytes
/// are written.
pub fn text(runs: &[RunInfo], columns: usize, size: impl Fn(u64) -> String) -> String {
    let densest = runs.iter().map(|run| run.density).fold(0.0, f64::max);
    let mut text = String::new();
    for run in runs {
        let mut line = vec![' '; columns];
        for table in &run.tables {
            draw(&mut line, table, shade(run.density, densest));
        }
        let line: String = line.into_iter().collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "L{} │{line}│ {:>10}", run.level, size(run.bytes()));
    }
    text
}

/// Draws a table: one column at least, and an edge where it has room for two.
fn draw(line: &mut [char], table: &TableInfo, shade: char) {
    let columns = line.len();
    let column = |share: f64| (share.clamp(0.0, 1.0) * columns as f64).round() as usize;
    let from = column(table.share_min).min(columns.saturating_sub(1));
    let to = column(table.share_max).clamp(from + 1, columns.max(from + 1));
    let Some(part) = line.get_mut(from..to) else { return };
    part.fill(shade);
    if let [first, .., last] = part {
        (*first, *last) = ('▐', '▌');
    }
}

fn shade(density: f64, densest: f64) -> char {
    let fours = (densest / density.max(f64::MIN_POSITIVE)).max(1.0).log(4.0).round();
    SHADES[SHADES.len() - 1 - (fours as usize).min(SHADES.len() - 1)]
}
