//! Which tables to merge next: a pure function of the sorted runs.
//!
//! Level 0 collects flushes, each a run of its own; every level below is one
//! run, and holds ten times the bytes of the one above. The level that is
//! fullest in proportion is relieved: all of level 0 goes at once, so that a
//! pick is contiguous in age; a lower level gives one table, that which costs
//! least to merge for its size. Tables that overlap nothing move as they are.
//! Source: Leveled Compaction in the RocksDB wiki.

use crate::key::FileNumber;
use crate::sstable::TableMeta;

/// A sorted run, as far as picking goes.
#[derive(Clone, Debug)]
pub struct RunShape<'a> {
    /// Its level.
    pub level: u32,
    /// Its tables, in order of their keys.
    pub tables: Vec<&'a TableMeta>,
}

impl RunShape<'_> {
    fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }
}

/// When a level is full.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Runs of level 0. Default: 4.
    pub level_0_runs: usize,
    /// Bytes of level 1. Default: 256 MiB.
    pub level_1_bytes: u64,
    /// Bytes of a level over those of the level above. Default: 10.
    pub fan_out: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters { level_0_runs: 4, level_1_bytes: 256 << 20, fan_out: 10 }
    }
}

impl Parameters {
    fn level_bytes(&self, level: u32) -> u64 {
        self.level_1_bytes.saturating_mul(self.fan_out.saturating_pow(level.saturating_sub(1)))
    }
}

/// Tables to merge.
#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    /// Their numbers.
    pub inputs: Vec<FileNumber>,
    /// Level of the outcome.
    pub level: u32,
    /// True if the inputs overlap neither each other nor the level they go to,
    /// so that they need not be rewritten.
    pub moves: bool,
    /// How full the level is, 1 and more.
    pub score: f64,
}

/// The next merge; `None` while no level is full. `runs` are newest first.
pub fn pick(runs: &[RunShape<'_>], parameters: &Parameters) -> Option<Pick> {
    let level_0: Vec<&RunShape<'_>> = runs.iter().filter(|run| run.level == 0).collect();
    let score_0 = level_0.len() as f64 / parameters.level_0_runs as f64;
    let fullest = runs
        .iter()
        .filter(|run| run.level > 0)
        .map(|run| (run.bytes() as f64 / parameters.level_bytes(run.level) as f64, run))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match fullest {
        Some((score, run)) if score > score_0 && score > 1.0 => {
            let tables = [cheapest(run, runs)?];
            Some(merge_into(&tables, run.level + 1, runs, score))
        }
        _ if score_0 >= 1.0 => {
            let tables: Vec<&TableMeta> = level_0.iter().flat_map(|run| run.tables.iter().copied()).collect();
            Some(merge_into(&tables, 1, runs, score_0))
        }
        _ => None,
    }
}

/// The merge of everything into one run, on the first level that holds it;
/// `None` without tables.
pub fn pick_all(runs: &[RunShape<'_>], parameters: &Parameters) -> Option<Pick> {
    let bytes = runs.iter().map(RunShape::bytes).sum();
    let deepest = runs.iter().map(|run| run.level).max()?.max(1);
    let level = (deepest..u32::MAX).find(|level| parameters.level_bytes(*level) >= bytes)?;
    let inputs = runs.iter().flat_map(|run| &run.tables).map(|table| table.number).collect();
    Some(Pick { inputs, level, moves: false, score: f64::INFINITY })
}

/// The table of `run` that overlaps the fewest bytes of the next level for its
/// own; the first of equals.
fn cheapest<'a>(run: &RunShape<'a>, runs: &[RunShape<'a>]) -> Option<&'a TableMeta> {
    let cost = |table: &TableMeta| {
        let below = overlapping(&[table], run.level + 1, runs);
        below.iter().map(|table| table.bytes).sum::<u64>() as f64 / table.bytes.max(1) as f64
    };
    let costs = run.tables.iter().map(|table| (cost(table), *table));
    costs.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, table)| table)
}

/// The merge of `tables`, and of what they overlap on `level`, into it.
fn merge_into(tables: &[&TableMeta], level: u32, runs: &[RunShape<'_>], score: f64) -> Pick {
    let below = overlapping(tables, level, runs);
    let mut sorted = tables.to_vec();
    sorted.sort_by(|a, b| a.key_min.cmp(&b.key_min));
    let disjoint = sorted.windows(2).all(|pair| pair[0].key_max < pair[1].key_min);
    let inputs = tables.iter().chain(&below).map(|table| table.number).collect();
    Pick { inputs, level, moves: below.is_empty() && disjoint, score }
}

/// Tables of `level` that overlap the key range from the first to the last key
/// of `tables`: the outcome may have keys anywhere in between.
fn overlapping<'a>(tables: &[&TableMeta], level: u32, runs: &[RunShape<'a>]) -> Vec<&'a TableMeta> {
    let min = tables.iter().map(|table| &table.key_min).min();
    let max = tables.iter().map(|table| &table.key_max).max();
    let (Some(min), Some(max)) = (min, max) else { return Vec::new() };
    let run = runs.iter().filter(|run| run.level == level);
    run.flat_map(|run| run.tables.iter().copied())
        .filter(|table| table.key_max >= *min && table.key_min <= *max)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyspaceId, SequenceNumber};

    fn table(number: u64, keys: (&str, &str), bytes: u64) -> TableMeta {
        TableMeta {
            number: FileNumber(number),
            keyspace: KeyspaceId(1),
            bytes,
            tail_offset: 0,
            tail_checksum: 0,
            key_min: keys.0.into(),
            key_max: keys.1.into(),
            seq_min: SequenceNumber(1),
            seq_max: SequenceNumber(1),
            puts: 1,
            deletes: 0,
            merges: 0,
            range_deletes: 0,
            expires_min: 0,
            expires_max: 0,
        }
    }

    fn run(level: u32, tables: &[TableMeta]) -> RunShape<'_> {
        RunShape { level, tables: tables.iter().collect() }
    }

    fn numbers(pick: &Pick) -> Vec<u64> {
        let mut numbers: Vec<u64> = pick.inputs.iter().map(|number| number.0).collect();
        numbers.sort_unstable();
        numbers
    }

    const PARAMETERS: Parameters = Parameters { level_0_runs: 2, level_1_bytes: 100, fan_out: 10 };

    #[test]
    fn level_0_goes_whole_with_what_it_overlaps() {
        let new = [table(9, ("d", "f"), 10)];
        let old = [table(8, ("c", "e"), 10)];
        let below = [table(1, ("a", "b"), 10), table(2, ("c", "d"), 10), table(3, ("x", "z"), 10)];
        let mut runs = vec![run(0, &new), run(1, &below)];
        assert_eq!(pick(&runs, &PARAMETERS), None);
        runs.insert(1, run(0, &old));
        let picked = pick(&runs, &PARAMETERS).unwrap();
        assert_eq!((numbers(&picked), picked.level, picked.moves), (vec![2, 8, 9], 1, false));
    }

    #[test]
    fn keys_between_disjoint_flushes_are_merged_too() {
        let new = [table(9, ("a", "b"), 10)];
        let old = [table(8, ("y", "z"), 10)];
        let below = [table(1, ("m", "n"), 10)];
        let picked = pick(&[run(0, &new), run(0, &old), run(1, &below)], &PARAMETERS).unwrap();
        assert_eq!((numbers(&picked), picked.moves), (vec![1, 8, 9], false));
    }

    #[test]
    fn tables_that_overlap_nothing_move() {
        let new = [table(9, ("k", "l"), 10)];
        let old = [table(8, ("i", "j"), 10)];
        let below = [table(1, ("a", "b"), 10)];
        let picked = pick(&[run(0, &new), run(0, &old), run(1, &below)], &PARAMETERS).unwrap();
        assert_eq!((numbers(&picked), picked.level, picked.moves), (vec![8, 9], 1, true));
    }

    #[test]
    fn a_full_level_gives_its_cheapest_table() {
        let full = [table(1, ("a", "c"), 60), table(2, ("d", "f"), 60)];
        let below = [table(3, ("a", "b"), 500), table(4, ("e", "e"), 5)];
        let picked = pick(&[run(1, &full), run(2, &below)], &PARAMETERS).unwrap();
        assert_eq!((numbers(&picked), picked.level, picked.moves), (vec![2, 4], 2, false));
    }

    #[test]
    fn everything_goes_to_the_level_that_holds_it() {
        let flushed = [table(5, ("a", "z"), 500)];
        let picked = pick_all(&[run(0, &flushed)], &PARAMETERS).unwrap();
        assert_eq!((numbers(&picked), picked.level, picked.moves), (vec![5], 2, false));
        assert_eq!(pick_all(&[], &PARAMETERS), None);
    }
}
