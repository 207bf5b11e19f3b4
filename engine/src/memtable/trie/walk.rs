//! Leaves and entries in order, from any place in either direction.

use std::ops::Bound;

use super::Probe;
use super::node::{Branch, Link};
use super::tree::{Leaf, Tree, shared_prefix};
use crate::key::Entry;

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
            std::cmp::Ordering::Equal => Place::At(nearest),
            std::cmp::Ordering::Less => Place::Before(link),
            std::cmp::Ordering::Greater => Place::After(link),
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

/// Appends up to `count` entries from `start` on, ascending.
pub(super) fn after(tree: &Tree, start: Bound<Probe<'_>>, mut count: usize, entries: &mut Vec<Entry>) {
    let mut walk = Walk::new(tree);
    let mut at = match start {
        Bound::Unbounded => tree.root().map(|root| walk.first(root)),
        Bound::Included((key, _)) | Bound::Excluded((key, _)) => walk.seek(key),
    };
    let mut versions = match (at, start) {
        (Some(leaf), Bound::Included((key, seq))) if leaf.key == key => leaf.versions_at(seq),
        (Some(leaf), Bound::Excluded((key, seq))) if leaf.key == key => leaf.versions_before(seq),
        (leaf, _) => leaf.map_or(&[][..], Leaf::versions),
    };
    while let Some(leaf) = at {
        let before = entries.len();
        entries.extend(versions.iter().rev().take(count).map(|version| leaf.entry(version)));
        count -= entries.len() - before;
        if count == 0 {
            return;
        }
        at = walk.next();
        versions = at.map_or(&[][..], Leaf::versions);
    }
}

/// Appends up to `count` entries up to `end`, descending.
pub(super) fn before(tree: &Tree, end: Bound<Probe<'_>>, mut count: usize, entries: &mut Vec<Entry>) {
    let mut walk = Walk::new(tree);
    let mut at = match end {
        Bound::Unbounded => tree.root().map(|root| walk.last(root)),
        Bound::Included((key, _)) | Bound::Excluded((key, _)) => walk.seek_back(key),
    };
    let mut versions = at.map_or(&[][..], Leaf::versions);
    if let Some(leaf) = at {
        let older = match end {
            Bound::Included((key, seq)) if leaf.key == key => leaf.versions_before(seq).len(),
            Bound::Excluded((key, seq)) if leaf.key == key => leaf.versions_at(seq).len(),
            _ => 0,
        };
        versions = &versions[older..];
    }
    while let Some(leaf) = at {
        let before = entries.len();
        entries.extend(versions.iter().take(count).map(|version| leaf.entry(version)));
        count -= entries.len() - before;
        if count == 0 {
            return;
        }
        at = walk.prev();
        versions = at.map_or(&[][..], Leaf::versions);
    }
}
