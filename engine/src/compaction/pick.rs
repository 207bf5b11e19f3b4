//! Which tables to merge next: a pure function of the sorted runs.
//!
//! Source: the unified compaction strategy of Cassandra (CEP-26), carried over to
//! runs that are in order of age.
//!
//! **Levels are bands of density.** The density of a table is its bytes over the
//! share of the keyspace that its keys span, so that a part of a run weighs as the
//! whole of it would. Levels are computed from the densities at every pick, and
//! nothing that is stored depends on them; so the parameters may change whenever
//! somebody likes. The bands are laid downwards from the densest run, each a fan-out
//! wide, which bounds what the levels above the deepest hold by its size.
//!
//! **What overlaps is merged.** From a table on down, the older runs that hold keys
//! in its range and belong to its level are counted; when they are as many as the
//! level's parameter allows, they are merged, with all that they overlap in the runs
//! between: a pick is contiguous in age. Where the outcome would set off the next
//! level at once, that level is merged along.
//!
//! **A merge goes where its oldest input was**, and joins the tables there that are
//! no inputs; the order of ages needs no more. What overlaps nothing in the next
//! older runs moves there as it is.

use std::fmt;
use std::ops::Range;

use crate::key::{FileNumber, SequenceNumber, shared_prefix};
use crate::scaling::Scaling;
use crate::sstable::TableMeta;
use crate::stats::{RunInfo, TableInfo};

/// Files' worth of bytes that a merge may take along from deeper levels.
const CASCADE_FILES_MAX: u64 = 16;

/// A tiered level hands on what is this part of its fan-out denser: some of what was
/// merged has been superseded.
const SURVIVAL: f64 = 0.7;

/// Part of the narrower of two tables below which they share an edge and no more: keys
/// that ascend but for a few make each flush overlap the edge of the one before.
const EDGE_MAX: f64 = 0.25;

/// Tables that share edges alone are merged when they are so many, whatever the
/// level: a read meets two of them at most, and it is their number that costs.
const EDGED_TABLES: f64 = 8.0;

/// What sums of shares may lack.
const ROUNDING: f64 = 1e-9;

/// Tables in a row that are merged because they are small.
const SMALL_FILES: usize = 8;

/// Older entries that may be rewritten for each of a table that is mostly tombstones:
/// by number, as a tombstone takes few bytes for the many that it gives back.
const PURGE_RATIO: u64 = 4;

/// A sorted run, as far as picking goes: its tables, in order of their keys.
#[derive(Clone, Debug)]
pub struct RunShape<'a> {
    /// Never empty.
    pub tables: Vec<&'a TableMeta>,
}

/// What a pick depends on beside the runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// When a level is merged.
    pub scaling: Scaling,
    /// Bytes of a flush.
    pub flush_bytes: u64,
    /// Bytes of a table of a merge.
    pub target_file_bytes: u64,
    /// The time, in Unix milliseconds.
    pub now_ms: u64,
    /// The oldest moment that somebody reads at.
    pub oldest_snapshot: Option<SequenceNumber>,
    /// Tables that a newer range tombstone hides whole, from everybody.
    pub covered: Vec<FileNumber>,
    /// Bytes that a merge may write; it writes no more than it reads.
    pub space_left: u64,
}

/// Why a pick was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Everything in the tables has expired, and hides nothing.
    Expired,
    /// A range tombstone hides everything in the tables.
    Covered,
    /// The tables overlap nothing older.
    Disjoint,
    /// As many runs overlap as the level's parameter allows.
    Overlap,
    /// The levels above a levelled deepest one hold as much as they may.
    Space,
    /// Most entries of a table are tombstones.
    Tombstones,
    /// Many small tables in a row.
    SmallFiles,
    /// Somebody asked for it.
    Asked,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Expired => "expired",
            Cause::Covered => "covered",
            Cause::Disjoint => "disjoint",
            Cause::Overlap => "overlap",
            Cause::Space => "space",
            Cause::Tombstones => "tombstones",
            Cause::SmallFiles => "small files",
            Cause::Asked => "asked",
        })
    }
}

/// What is done with the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// They are merged.
    Merge,
    /// They change their run as they are.
    Move,
    /// They go, unread.
    Drop,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    /// What is done.
    pub work: Work,
    /// Why.
    pub cause: Cause,
    /// Numbers of the tables, from the newest run to the oldest.
    pub inputs: Vec<FileNumber>,
    /// Bytes of the tables.
    pub bytes: u64,
    /// Index of the run that the outcome joins: the oldest of the inputs, save where
    /// they move.
    pub run: usize,
    /// Level that the outcome is expected on.
    pub level: u32,
    /// Urgency: the overlap over what the level allows; below 1 for what can wait.
    pub score: f64,
}

/// What [`pick`] sees in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunLevel {
    /// Its deepest level.
    pub level: u32,
    /// Its bytes over its share of the keyspace.
    pub density: f64,
}

/// The most urgent work on `runs`, which are newest first.
pub fn pick(runs: &[RunShape<'_>], parameters: &Parameters) -> Option<Pick> {
    let tree = Tree::new(runs, parameters);
    tree.gone()
        .or_else(|| tree.disjoint())
        .or_else(|| tree.overlap())
        .or_else(|| tree.space())
        .or_else(|| tree.tombstones())
        .or_else(|| tree.small_files())
}

/// The merge of everything that may hold a key from `min` to `max`, both included and
/// `None` for no bound, into the oldest run that does; `None` without tables.
pub fn pick_range(
    runs: &[RunShape<'_>],
    (min, max): (Option<&[u8]>, Option<&[u8]>),
    parameters: &Parameters,
) -> Option<Pick> {
    let tree = Tree::new(runs, parameters);
    let mut group = Group::default();
    let mut range: Option<Keys<'_>> = None;
    for run in 0..runs.len() {
        let wanted = |table: &Node<'_>| {
            min.is_none_or(|min| table.meta.key_max.as_slice() >= min)
                && max.is_none_or(|max| table.meta.key_min.as_slice() <= max)
        };
        let nodes = &tree.runs[run].nodes;
        let overlapped = range.map_or(0..0, |range| tree.runs[run].overlapping(range));
        let members: Vec<usize> =
            (0..nodes.len()).filter(|index| overlapped.contains(index) || wanted(&nodes[*index])).collect();
        // Between the first and the last of them nothing may stay behind.
        if let (Some(first), Some(last)) = (members.first(), members.last()) {
            let members = *first..last + 1;
            range = Some(tree.runs[run].keys(members.clone(), range));
            group.add(&tree, run, members);
        }
    }
    (!group.parts.is_empty()).then(|| group.pick(&tree, Cause::Asked, f64::INFINITY))
}

/// The density at which each level ends, from the top, and the levels of `runs`.
pub fn levels(runs: &[RunShape<'_>], parameters: &Parameters) -> (Vec<f64>, Vec<RunLevel>) {
    let tree = Tree::new(runs, parameters);
    let levels = tree.runs.iter().map(|run| RunLevel {
        level: run.nodes.iter().map(|node| node.level).max().unwrap_or(0) as u32,
        density: run.density,
    });
    let levels = levels.collect();
    (tree.bounds, levels)
}

/// Everything about `runs` that a picture of them shows.
pub fn describe(runs: &[RunShape<'_>], parameters: &Parameters) -> Vec<RunInfo> {
    let tree = Tree::new(runs, parameters);
    let table = |node: &Node<'_>| {
        let meta = node.meta;
        TableInfo {
            number: meta.number,
            level: node.level as u32,
            bytes: meta.bytes,
            density: node.density,
            entries: meta.entries(),
            tombstones: meta.deletes + meta.range_deletes,
            key_min: meta.key_min.clone(),
            key_max: meta.key_max.clone(),
            share_min: node.shares.0,
            share_max: node.shares.1,
            expires_max: meta.expires_max,
        }
    };
    let runs = tree.runs.iter().map(|run| RunInfo {
        level: run.nodes.iter().map(|node| node.level).max().unwrap_or(0) as u32,
        density: run.density,
        tables: run.nodes.iter().map(table).collect(),
    });
    runs.collect()
}

type Keys<'a> = (&'a [u8], &'a [u8]);

/// A table and where it belongs.
struct Node<'a> {
    meta: &'a TableMeta,
    /// Share of all bytes below its first key, and up to its last.
    shares: (f64, f64),
    density: f64,
    level: usize,
}

struct RunNodes<'a> {
    nodes: Vec<Node<'a>>,
    /// Bytes of the tables before each, and of all.
    bytes_before: Vec<u64>,
    density: f64,
}

impl<'a> RunNodes<'a> {
    /// Tables that may hold a key from the first to the last of `range`.
    fn overlapping(&self, (min, max): Keys<'_>) -> Range<usize> {
        let from = self.nodes.partition_point(|node| node.meta.key_max.as_slice() < min);
        let to = self.nodes.partition_point(|node| node.meta.key_min.as_slice() <= max);
        from..to.max(from)
    }

    /// The keys of `members`, which is not empty, and of `range`.
    fn keys(&self, members: Range<usize>, range: Option<Keys<'a>>) -> Keys<'a> {
        let own: Keys<'a> =
            (&self.nodes[members.start].meta.key_min, &self.nodes[members.end - 1].meta.key_max);
        range.map_or(own, |(min, max)| (min.min(own.0), max.max(own.1)))
    }

    /// Bytes of keys below `key`, where keys lie evenly within a table.
    fn bytes_below(&self, key: &[u8]) -> f64 {
        let index = self.nodes.partition_point(|node| node.meta.key_max.as_slice() < key);
        let within = self.nodes.get(index).map_or(0.0, |node| {
            let TableMeta { key_min, key_max, bytes, .. } = node.meta;
            *bytes as f64 * fraction(key_min, key_max, key)
        });
        self.bytes_before[index] as f64 + within
    }

    fn bytes(&self) -> u64 {
        self.bytes_before[self.nodes.len()]
    }
}

/// Where `key` lies from `min` (0) to `max` (1), by the first eight bytes that may
/// differ.
fn fraction(min: &[u8], max: &[u8], key: &[u8]) -> f64 {
    if key <= min {
        return 0.0;
    }
    if key >= max {
        return 1.0;
    }
    let shared = shared_prefix(min, max);
    let number = |key: &[u8]| {
        let head = key.get(shared..).unwrap_or_default().iter().chain(std::iter::repeat(&0)).take(8);
        head.fold(0.0, |number, byte| number * 256.0 + f64::from(*byte))
    };
    let (min, max, key) = (number(min), number(max), number(key));
    if max > min { ((key - min) / (max - min)).clamp(0.0, 1.0) } else { 0.5 }
}

/// The runs with what follows from them.
struct Tree<'a> {
    runs: Vec<RunNodes<'a>>,
    /// Density at which each level ends; the last is that of the densest run.
    bounds: Vec<f64>,
    parameters: &'a Parameters,
}

impl<'a> Tree<'a> {
    fn new(shapes: &[RunShape<'a>], parameters: &'a Parameters) -> Tree<'a> {
        let runs = shapes.iter().map(|shape| {
            let mut bytes_before = vec![0];
            let mut sum = 0;
            for table in &shape.tables {
                sum += table.bytes;
                bytes_before.push(sum);
            }
            let nodes =
                shape.tables.iter().map(|meta| Node { meta, shares: (0.0, 0.0), density: 0.0, level: 0 });
            RunNodes { nodes: nodes.collect(), bytes_before, density: 0.0 }
        });
        let mut tree = Tree { runs: runs.collect(), bounds: Vec::new(), parameters };
        tree.measure();
        tree
    }

    /// Fills in densities, then bounds, then levels.
    fn measure(&mut self) {
        let total: u64 = self.runs.iter().map(RunNodes::bytes).sum();
        let total = total as f64;
        let below = |key: &[u8]| {
            let bytes: f64 = self.runs.iter().map(|run| run.bytes_below(key)).sum();
            bytes / total.max(1.0)
        };
        let shares_of = |node: &Node<'_>| (below(&node.meta.key_min), below(&node.meta.key_max));
        let shares: Vec<Vec<(f64, f64)>> =
            self.runs.iter().map(|run| run.nodes.iter().map(shares_of).collect()).collect();
        // A single key has no width, and is as dense as can be.
        let density = |bytes: u64, share: f64| (bytes as f64 / share.max(1e-12)).min(total);
        for (run, shares) in self.runs.iter_mut().zip(shares) {
            let mut sum = 0.0;
            for (node, shares) in run.nodes.iter_mut().zip(shares) {
                let share = shares.1 - shares.0;
                sum += share;
                node.shares = shares;
                node.density = density(node.meta.bytes, share);
            }
            run.density = density(run.bytes(), sum);
        }
        let densest = self.runs.iter().map(|run| run.density).fold(0.0, f64::max);
        self.bounds = bounds(self.parameters, densest);
        let mut runs = std::mem::take(&mut self.runs);
        for node in runs.iter_mut().flat_map(|run| &mut run.nodes) {
            node.level = self.level_of(node.density);
        }
        self.runs = runs;
    }

    fn deepest(&self) -> usize {
        self.bounds.len() - 1
    }

    fn level_of(&self, density: f64) -> usize {
        let deepest = self.deepest();
        (0..deepest)
            .find(|level| {
                let tiered = self.parameters.scaling.of(*level, deepest).is_tiered();
                density < self.bounds[*level] * if tiered { SURVIVAL } else { 1.0 }
            })
            .unwrap_or(deepest)
    }

    fn trigger(&self, level: usize) -> usize {
        self.parameters.scaling.of(level, self.deepest()).trigger()
    }

    /// Tables that a range tombstone hides, and those all of whose entries have expired,
    /// as far as they hide nothing older.
    fn gone(&self) -> Option<Pick> {
        let now_ms = self.parameters.now_ms;
        for (run, of_run) in self.runs.iter().enumerate() {
            let metas = || of_run.nodes.iter().map(|node| node.meta);
            let covered = |meta: &&TableMeta| self.parameters.covered.contains(&meta.number);
            let expired = |meta: &&TableMeta| {
                let expired = meta.expires_max != 0 && meta.expires_max <= now_ms;
                expired && meta.range_deletes == 0 && self.is_oldest(run, meta)
            };
            let covered: Vec<&TableMeta> = metas().filter(covered).collect();
            let (gone, cause) = match covered.is_empty() {
                false => (covered, Cause::Covered),
                true => (metas().filter(expired).collect(), Cause::Expired),
            };
            if !gone.is_empty() {
                return Some(Pick {
                    work: Work::Drop,
                    cause,
                    inputs: gone.iter().map(|meta| meta.number).collect(),
                    bytes: gone.iter().map(|meta| meta.bytes).sum(),
                    run,
                    level: 0,
                    score: f64::INFINITY,
                });
            }
        }
        None
    }

    /// True if no run older than `run` may hold a key of `meta`.
    fn is_oldest(&self, run: usize, meta: &TableMeta) -> bool {
        self.next_overlap(run, meta).is_none()
    }

    /// The next older run than `run` that may hold a key of `meta`.
    fn next_overlap(&self, run: usize, meta: &TableMeta) -> Option<usize> {
        let range: Keys<'_> = (&meta.key_min, &meta.key_max);
        (run + 1..self.runs.len()).find(|older| !self.runs[*older].overlapping(range).is_empty())
    }

    /// Tables that overlap nothing in the next older run or runs, to the oldest of
    /// those.
    fn disjoint(&self) -> Option<Pick> {
        for (run, of_run) in self.runs.iter().enumerate() {
            let target = |node: &Node<'_>| self.next_overlap(run, node.meta).unwrap_or(self.runs.len()) - 1;
            let deepest = of_run.nodes.iter().map(target).max()?;
            if deepest == run {
                continue;
            }
            let moved: Vec<&Node<'_>> = of_run.nodes.iter().filter(|node| target(node) == deepest).collect();
            return Some(Pick {
                work: Work::Move,
                cause: Cause::Disjoint,
                inputs: moved.iter().map(|node| node.meta.number).collect(),
                bytes: moved.iter().map(|node| node.meta.bytes).sum(),
                run: deepest,
                level: moved.iter().map(|node| node.level).max()? as u32,
                score: f64::INFINITY,
            });
        }
        None
    }

    /// The group whose overlap exceeds what its level allows by most; of equals the
    /// least deep, then the smallest.
    fn overlap(&self) -> Option<Pick> {
        let mut best: Option<(f64, usize, Group)> = None;
        for run in 0..self.runs.len() {
            for index in 0..self.runs[run].nodes.len() {
                let Some((score, level, group)) = self.group_below(run, index) else { continue };
                let better = best.as_ref().is_none_or(|(best_score, best_level, best)| {
                    let order = best_score.total_cmp(&score).then(level.cmp(best_level));
                    order.then(group.bytes.cmp(&best.bytes)).is_lt()
                });
                if better {
                    best = Some((score, level, group));
                }
            }
        }
        best.map(|(score, _, group)| group.pick(self, Cause::Overlap, score))
    }

    /// What a table is to be merged with, if its level has had enough: the score,
    /// the level, and the group.
    fn group_below(&self, run: usize, index: usize) -> Option<(f64, usize, Group)> {
        let first = index..index + 1;
        let mut range = self.runs[run].keys(first.clone(), None);
        let mut group = Group::default();
        group.add(self, run, first);
        let own_level = self.runs[run].nodes[index].level;
        let (mut level, mut count) = (own_level, 1.0);
        // How many parts of the group are certain, and the score.
        let mut certain: Option<(usize, f64)> = None;
        let cascade_bytes = CASCADE_FILES_MAX * self.parameters.target_file_bytes;
        // A level that has had enough joins what is certain; so does one that the
        // outcome would set off, where that is no large matter.
        let settle = |certain: &mut Option<(usize, f64)>, group: &Group, level: usize, count: f64| {
            let trigger = self.trigger(level) as f64;
            let settled = count + ROUNDING >= trigger && (certain.is_none() || group.bytes <= cascade_bytes);
            if settled {
                let score = certain.map_or(count / trigger, |(_, score)| score);
                *certain = Some((group.parts.len(), score));
            }
            settled
        };
        for older in run + 1..self.runs.len() {
            let members = self.runs[older].overlapping(range);
            if members.is_empty() {
                continue;
            }
            let of_members = self.runs[older].nodes[members.clone()].iter().map(|node| node.level);
            let older_level = of_members.max().unwrap_or(0);
            if older_level > level {
                if !settle(&mut certain, &group, level, count) {
                    break;
                }
                (level, count) = (self.level_of(group.density), 1.0);
                if older_level > level {
                    break;
                }
            }
            let edge = !self.overlaps_much(&self.runs[run].nodes[index], older, members.clone());
            range = self.runs[older].keys(members.clone(), Some(range));
            group.add(self, older, members);
            let of_edge = (self.trigger(level) as f64 - 1.0) / (EDGED_TABLES - 1.0);
            count += if edge { of_edge } else { 1.0 };
        }
        settle(&mut certain, &group, level, count);
        let (parts, score) = certain?;
        group.truncate(self, parts);
        group.fit(self)?;
        Some((score, own_level, group))
    }

    /// Where a tiered level lies above a levelled deepest one, what is above that is merged
    /// into it once it is as dense as a run that belongs there, in however many runs; as
    /// far as that is no large matter.
    fn space(&self) -> Option<Pick> {
        let deepest = self.deepest();
        let is_tiered = |level| self.parameters.scaling.of(level, deepest).is_tiered();
        if deepest == 0 || is_tiered(deepest) || !is_tiered(deepest - 1) {
            return None;
        }
        let most = CASCADE_FILES_MAX * self.parameters.target_file_bytes;
        let tables = (0..self.runs.len())
            .flat_map(|run| (0..self.runs[run].nodes.len()).map(move |index| (run, index)));
        let stacks = tables.filter_map(|(run, index)| self.stack_below(run, index));
        let densest = stacks.filter(|(_, group)| group.bytes <= most).max_by(|a, b| a.0.total_cmp(&b.0));
        densest.map(|(score, group)| group.pick(self, Cause::Space, score))
    }

    /// A table with all that it overlaps, where that reaches the deepest level and what
    /// is above it is dense enough; and how dense that is.
    fn stack_below(&self, run: usize, index: usize) -> Option<(f64, Group)> {
        let deepest = self.deepest();
        if self.runs[run].nodes[index].level >= deepest {
            return None;
        }
        let first = index..index + 1;
        let mut range = self.runs[run].keys(first.clone(), None);
        let mut group = Group::default();
        group.add(self, run, first);
        for older in run + 1..self.runs.len() {
            let members = self.runs[older].overlapping(range);
            if members.is_empty() {
                continue;
            }
            let above = group.density;
            let is_deepest = self.runs[older].nodes[members.clone()].iter().any(|node| node.level >= deepest);
            range = self.runs[older].keys(members.clone(), Some(range));
            group.add(self, older, members);
            if is_deepest {
                let score = above / self.bounds[deepest - 1];
                return (score >= 1.0 && group.bytes <= self.parameters.space_left).then_some((score, group));
            }
        }
        None
    }

    /// True if one of `members` of a run and `node` share more than an edge.
    fn overlaps_much(&self, node: &Node<'_>, run: usize, members: Range<usize>) -> bool {
        let own = node.shares;
        self.runs[run].nodes[members].iter().any(|Node { shares: (min, max), .. }| {
            let shared = max.min(own.1) - min.max(own.0);
            shared >= EDGE_MAX * (max - min).min(own.1 - own.0)
        })
    }

    /// A table that is mostly tombstones, with what they may hide, where that is
    /// little; or alone, where it hides nothing any more.
    fn tombstones(&self) -> Option<Pick> {
        let mut best: Option<(f64, Group)> = None;
        for (run, of_run) in self.runs.iter().enumerate() {
            for (index, node) in of_run.nodes.iter().enumerate() {
                let Some(share) = self.tombstone_share(node.meta) else { continue };
                let mut range = of_run.keys(index..index + 1, None);
                let mut group = Group::default();
                group.add(self, run, index..index + 1);
                for older in run + 1..self.runs.len() {
                    let members = self.runs[older].overlapping(range);
                    if !members.is_empty() {
                        range = self.runs[older].keys(members.clone(), Some(range));
                        group.add(self, older, members);
                    }
                }
                let entries = node.meta.entries() + node.meta.range_deletes;
                let cheap = group.entries(self) <= entries.saturating_mul(1 + PURGE_RATIO);
                if cheap
                    && group.bytes <= self.parameters.space_left
                    && best.as_ref().is_none_or(|(s, _)| share > *s)
                {
                    best = Some((share, group));
                }
            }
        }
        best.map(|(share, group)| group.pick(self, Cause::Tombstones, share.min(1.0) / 2.0))
    }

    /// Share of entries that are tombstones or have expired, where that is most of
    /// them and nobody reads what they hide.
    fn tombstone_share(&self, meta: &TableMeta) -> Option<f64> {
        let read = self.parameters.oldest_snapshot.is_some_and(|oldest| oldest < meta.seq_max);
        let expired = meta.expires_max != 0 && meta.expires_max <= self.parameters.now_ms;
        let gone = if expired { meta.entries() } else { meta.deletes } + meta.range_deletes;
        (!read && gone > 0 && 2 * gone >= meta.entries())
            .then(|| gone as f64 / meta.entries().max(gone) as f64)
    }

    /// Small tables that follow each other in a run.
    fn small_files(&self) -> Option<Pick> {
        for (run, of_run) in self.runs.iter().enumerate() {
            for first in 0..of_run.nodes.len().saturating_sub(SMALL_FILES - 1) {
                let members = first..first + SMALL_FILES;
                let sizes = of_run.nodes[members.clone()].iter().map(|node| node.meta.bytes);
                let (sum, most) = (sizes.clone().sum::<u64>(), sizes.max().unwrap_or(0));
                if sum <= self.parameters.target_file_bytes.min(self.parameters.space_left) && most <= sum / 2
                {
                    let mut group = Group::default();
                    group.add(self, run, members);
                    return Some(group.pick(self, Cause::SmallFiles, 0.25));
                }
            }
        }
        None
    }
}

/// The densities at which levels end: each is a fan-out above the one before, from
/// that of a flush on, and all are shifted so that the last is `densest`.
fn bounds(parameters: &Parameters, densest: f64) -> Vec<f64> {
    let flush = parameters.flush_bytes.max(1) as f64;
    for deepest in 0.. {
        let mut bound = flush;
        let bounds: Vec<f64> = (0..=deepest)
            .map(|level| {
                bound *= f64::from(parameters.scaling.of(level, deepest).fan_out());
                bound
            })
            .collect();
        if bound >= densest {
            let shift = densest / bound;
            return bounds.into_iter().map(|bound| bound * shift).collect();
        }
    }
    vec![densest]
}

/// Tables that belong together, newest run first.
#[derive(Default)]
struct Group {
    /// A run, and which of its tables.
    parts: Vec<(usize, Range<usize>)>,
    bytes: u64,
    /// What the outcome's would be if nothing were superseded.
    density: f64,
}

impl Group {
    fn add(&mut self, tree: &Tree<'_>, run: usize, members: Range<usize>) {
        let nodes = &tree.runs[run].nodes[members.clone()];
        let bytes: u64 = nodes.iter().map(|node| node.meta.bytes).sum();
        let weighed: f64 = nodes.iter().map(|node| node.density * node.meta.bytes as f64).sum();
        self.density += weighed / (bytes as f64).max(1.0);
        self.bytes += bytes;
        self.parts.push((run, members));
    }

    fn entries(&self, tree: &Tree<'_>) -> u64 {
        let nodes = self.parts.iter().flat_map(|(run, members)| &tree.runs[*run].nodes[members.clone()]);
        nodes.map(|node| node.meta.entries()).sum()
    }

    fn truncate(&mut self, tree: &Tree<'_>, parts: usize) {
        if parts < self.parts.len() {
            let kept: Vec<_> = self.parts.drain(..parts).collect();
            *self = Group::default();
            kept.into_iter().for_each(|(run, members)| self.add(tree, run, members));
        }
    }

    /// Leaves older runs out until there is space for the outcome; `None` where there
    /// is none for two.
    fn fit(&mut self, tree: &Tree<'_>) -> Option<()> {
        while self.bytes > tree.parameters.space_left {
            if self.parts.len() <= 2 {
                return None;
            }
            self.truncate(tree, self.parts.len() - 1);
        }
        Some(())
    }

    fn pick(self, tree: &Tree<'_>, cause: Cause, score: f64) -> Pick {
        let nodes = self.parts.iter().flat_map(|(run, members)| &tree.runs[*run].nodes[members.clone()]);
        Pick {
            work: Work::Merge,
            cause,
            inputs: nodes.map(|node| node.meta.number).collect(),
            bytes: self.bytes,
            run: self.parts.last().map_or(0, |(run, _)| *run),
            level: tree.level_of(self.density) as u32,
            score,
        }
    }
}

#[cfg(test)]
mod tests;
