//! Leaves and entries in order, from any place in either direction.

use std::cmp::Ordering;
use std::iter;

use super::Versioned;
use super::node::{Branch, Link};
use super::tree::{Leaf, Tree, needed};
use super::{Probe, Wanted, fetch};
use crate::key::{Entry, shared_prefix};

/// A way from the root down to a leaf.
struct Walk<'t> {
    tree: &'t Tree,
    /// Nodes, and the branch taken at each.
    path: Vec<(Link, Branch)>,
}

/// Where a key is, or would be.
enum Place<'t> {
    /// In this leaf.
    At(&'t Leaf),
    /// Before all leaves below this link, and after all before it.
    Before(Link),
    /// After all leaves below this link, and before all after it.
    After(Link),
    /// At the branch that the path ends with, which is not there.
    Between,
}

impl<'t> Walk<'t> {
    fn new(tree: &'t Tree) -> Self {
        Walk { tree, path: Vec::new() }
    }

    /// The first leaf below.
    fn first(&mut self, mut link: Link) -> &'t Leaf {
        while let Some((branch, below)) = self.tree.first(link) {
            self.path.push((link, branch));
            link = below;
        }
        self.tree.leaf(link)
    }

    /// The last leaf below.
    fn last(&mut self, mut link: Link) -> &'t Leaf {
        while let Some((branch, below)) = self.tree.last(link) {
            self.path.push((link, branch));
            link = below;
        }
        self.tree.leaf(link)
    }

    /// The leaf after those that the path leads to.
    fn next(&mut self) -> Option<&'t Leaf> {
        while let Some((link, branch)) = self.path.pop() {
            if let Some((branch, below)) = self.tree.after(link, branch) {
                self.path.push((link, branch));
                return Some(self.first(below));
            }
        }
        None
    }

    /// The leaf before those that the path leads to.
    fn prev(&mut self) -> Option<&'t Leaf> {
        while let Some((link, branch)) = self.path.pop() {
            if let Some((branch, below)) = self.tree.before(link, branch) {
                self.path.push((link, branch));
                return Some(self.last(below));
            }
        }
        None
    }

    /// Goes down to where `key` is or would be; `None` in an empty tree.
    fn locate(&mut self, key: &[u8]) -> Option<Place<'t>> {
        let nearest = self.tree.leaf(self.tree.nearest(key)?);
        let shared = shared_prefix(&nearest.key, key);
        let mut link = self.tree.root()?;
        while let Some(depth) = self.tree.depth(link).filter(|depth| *depth <= shared) {
            let branch = key.get(depth).copied();
            self.path.push((link, branch));
            match self.tree.branch(link, branch) {
                Some(below) => link = below,
                None => return Some(Place::Between),
            }
        }
        // What is below goes on as the nearest leaf does.
        let (other, own) = (nearest.key.get(shared), key.get(shared));
        Some(match own.cmp(&other) {
            Ordering::Equal => Place::At(nearest),
            Ordering::Less => Place::Before(link),
            Ordering::Greater => Place::After(link),
        })
    }

    /// The first leaf at or after `key`.
    fn seek(&mut self, key: &[u8]) -> Option<&'t Leaf> {
        match self.locate(key)? {
            Place::At(leaf) => Some(leaf),
            Place::Before(link) => Some(self.first(link)),
            Place::After(_) | Place::Between => self.next(),
        }
    }

    /// The last leaf at or before `key`.
    fn seek_back(&mut self, key: &[u8]) -> Option<&'t Leaf> {
        match self.locate(key)? {
            Place::At(leaf) => Some(leaf),
            Place::After(link) => Some(self.last(link)),
            Place::Before(_) | Place::Between => self.prev(),
        }
    }
}

/// Appends what is wanted from `start` on, ascending.
pub(super) fn after(tree: &Tree, start: Option<Probe<'_>>, wanted: Wanted, entries: &mut Vec<Entry>) {
    let mut walk = Walk::new(tree);
    let first = match start {
        None => tree.root().map(|root| walk.first(root)),
        Some((key, _)) => walk.seek(key),
    };
    let Some(first) = first else { return };
    let versions = match start {
        Some((key, seq)) if first.key == key => first.versions_at(seq),
        _ => first.versions(),
    };
    let more = iter::from_fn(|| walk.next()).map(|leaf| (leaf, leaf.versions()));
    let found = iter::once((first, versions)).chain(more);
    let found = found.flat_map(|(leaf, versions)| iter::repeat(leaf).zip(needed(versions, wanted.reader)));
    copy(found.take(wanted.count), entries);
}

/// Appends up to `count` entries before `end`, descending.
pub(super) fn before(tree: &Tree, end: Option<Probe<'_>>, count: usize, entries: &mut Vec<Entry>) {
    let mut walk = Walk::new(tree);
    let last = match end {
        None => tree.root().map(|root| walk.last(root)),
        Some((key, _)) => walk.seek_back(key),
    };
    let Some(last) = last else { return };
    let older = match end {
        Some((key, seq)) if last.key == key => last.versions_at(seq).len(),
        _ => 0,
    };
    let more = iter::from_fn(|| walk.prev()).map(|leaf| (leaf, leaf.versions()));
    let found = iter::once((last, &last.versions()[older..])).chain(more);
    copy(found.flat_map(|(leaf, versions)| iter::repeat(leaf).zip(versions)).take(count), entries);
}

/// Finds all, then copies: see [`fetch`].
fn copy<'t>(found: impl Iterator<Item = (&'t Leaf, &'t Versioned)>, entries: &mut Vec<Entry>) {
    let found: Vec<_> = found.collect();
    entries.extend(found.into_iter().map(|(leaf, version)| leaf.entry(version)));
    fetch(entries.iter().map(Entry::borrowed));
}
