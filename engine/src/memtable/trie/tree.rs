//! The tree itself: finding a key, and adding one.

use std::mem;
use std::slice;

use bytes::Bytes;

use super::super::Versioned;
use super::super::arena::Arena;
use super::super::contents::Contents;
use super::node::{All, Branch, Branches, Few, Kind, Link, Node, Some48};
use crate::key::{Entry, EntryRef, SequenceNumber, ValueKind, shared_prefix};

/// Versions, the oldest first, so that the newest is added at the end.
#[derive(Debug)]
enum Versions {
    One(Versioned),
    Many(Vec<Versioned>),
}

/// A key and its versions.
#[derive(Debug)]
pub(super) struct Leaf {
    pub key: Bytes,
    versions: Versions,
}

impl Leaf {
    /// All versions, the oldest first.
    #[inline]
    pub fn versions(&self) -> &[Versioned] {
        match &self.versions {
            Versions::One(version) => slice::from_ref(version),
            Versions::Many(versions) => versions,
        }
    }

    /// Those at or before `seq`.
    #[inline]
    pub fn versions_at(&self, seq: SequenceNumber) -> &[Versioned] {
        let all = self.versions();
        &all[..all.partition_point(|version| version.seq <= seq)]
    }

    #[inline]
    pub fn entry(&self, version: &Versioned) -> Entry {
        let Versioned { seq, kind, expires_at, value } = version.clone();
        Entry { key: self.key.clone(), seq, kind, expires_at, value }
    }

    /// Adds a version and returns by how many bytes memory has grown.
    fn add(&mut self, version: Versioned) -> usize {
        let (mut versions, before) = match mem::replace(&mut self.versions, Versions::Many(Vec::new())) {
            Versions::One(version) => {
                let mut versions = Vec::with_capacity(2);
                versions.push(version);
                (versions, 0)
            }
            Versions::Many(versions) => {
                let capacity = versions.capacity();
                (versions, capacity)
            }
        };
        let at = versions.partition_point(|other| other.seq < version.seq);
        versions.insert(at, version);
        let grown = versions.capacity() - before;
        self.versions = Versions::Many(versions);
        grown * size_of::<Versioned>()
    }
}

/// Those of the versions of a key that a reader has need of, from the newest on; all
/// without one.
pub fn needed(versions: &[Versioned], reader: Option<SequenceNumber>) -> impl Iterator<Item = &Versioned> {
    let seen = reader.map_or(versions.len(), |seq| versions.partition_point(|version| version.seq <= seq));
    let mut versions = versions[..seen].iter().rev();
    let mut hidden = false;
    std::iter::from_fn(move || {
        let version = versions.next().filter(|_| !hidden)?;
        hidden = reader.is_some() && version.kind != ValueKind::Merge;
        Some(version)
    })
}

/// Leaves and nodes; empty without a root. Each node has two branches at least.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Option<Link>,
    leaves: Arena<Leaf>,
    nodes4: Arena<Node<Few<4>>>,
    nodes16: Arena<Node<Few<16>>>,
    nodes48: Arena<Node<Some48>>,
    nodes256: Arena<Node<All>>,
    entries: usize,
    contents: Contents,
    /// Bytes of vectors of versions.
    versions_bytes: usize,
}

/// What `$do` makes of the node that a link leads to; `None` for a leaf.
macro_rules! with_node {
    ($tree:expr, $link:expr, $node:ident => $do:expr) => {{
        let number = $link.number();
        match $link.kind() {
            Kind::Leaf => None,
            Kind::Node4 => {
                let $node = &$tree.nodes4[number];
                Some($do)
            }
            Kind::Node16 => {
                let $node = &$tree.nodes16[number];
                Some($do)
            }
            Kind::Node48 => {
                let $node = &$tree.nodes48[number];
                Some($do)
            }
            Kind::Node256 => {
                let $node = &$tree.nodes256[number];
                Some($do)
            }
        }
    }};
}

impl Tree {
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Bytes of memory in use or kept for use, keys and values included.
    pub fn bytes(&self) -> usize {
        self.contents.bytes()
            + self.versions_bytes
            + self.leaves.bytes()
            + self.nodes4.bytes()
            + self.nodes16.bytes()
            + self.nodes48.bytes()
            + self.nodes256.bytes()
    }

    #[inline]
    pub fn root(&self) -> Option<Link> {
        self.root
    }

    #[inline]
    pub fn leaf(&self, link: Link) -> &Leaf {
        &self.leaves[link.number()]
    }

    /// The depth of a node; `None` for a leaf.
    #[inline]
    pub fn depth(&self, link: Link) -> Option<usize> {
        with_node!(self, link, node => node.depth as usize)
    }

    /// Where a key goes on from a node, if it does. A leaf has no branches.
    #[inline]
    pub fn branch(&self, link: Link, branch: Branch) -> Option<Link> {
        with_node!(self, link, node => node.get(branch))?
    }

    #[inline]
    pub fn first(&self, link: Link) -> Option<(Branch, Link)> {
        with_node!(self, link, node => node.first())?
    }

    pub fn last(&self, link: Link) -> Option<(Branch, Link)> {
        with_node!(self, link, node => node.last())?
    }

    #[inline]
    pub fn after(&self, link: Link, branch: Branch) -> Option<(Branch, Link)> {
        with_node!(self, link, node => node.after(branch))?
    }

    pub fn before(&self, link: Link, branch: Branch) -> Option<(Branch, Link)> {
        with_node!(self, link, node => node.before(branch))?
    }

    /// Where `key` leads, by the bytes at which nodes fork.
    #[inline]
    fn toward(&self, link: Link, key: &[u8]) -> Option<Link> {
        with_node!(self, link, node => node.get(key.get(node.depth as usize).copied()))?
    }

    /// The leaf of `key`.
    pub fn find(&self, key: &[u8]) -> Option<&Leaf> {
        let mut link = self.root?;
        while link.kind() != Kind::Leaf {
            link = self.toward(link, key)?;
        }
        let leaf = self.leaf(link);
        (leaf.key == key).then_some(leaf)
    }

    /// A leaf than which none shares a longer prefix with `key`.
    pub fn nearest(&self, key: &[u8]) -> Option<Link> {
        let mut link = self.root?;
        let first = |link| self.first(link).map(|(_, below)| below);
        // Once off the way of the key, all leaves below are as near.
        while let Some(below) = self.toward(link, key).or_else(|| first(link)) {
            link = below;
        }
        Some(link)
    }

    /// Adds a version, and its key unless it is there.
    pub fn insert(&mut self, entry: EntryRef<'_>) {
        self.entries += 1;
        let key = entry.key;
        let Some(nearest) = self.nearest(key) else {
            self.root = Some(self.add_leaf(&entry));
            return;
        };
        let leaf = &mut self.leaves[nearest.number()];
        let depth = shared_prefix(&leaf.key, key);
        let (old, new) = (leaf.key.get(depth).copied(), key.get(depth).copied());
        if old == new {
            let value = self.contents.copy(&[], entry.value, &[]);
            self.versions_bytes += leaf.add(Versioned::of(&entry, value));
            return;
        }
        let (parent, below) = self.edge(key, depth);
        let leaf = self.add_leaf(&entry);
        let link = if self.depth(below) == Some(depth) {
            self.add_branch(below, new, leaf)
        } else {
            let mut node = Node { depth: depth as u32, ..Node::default() };
            node.add(old, below);
            node.add(new, leaf);
            Link::new(Kind::Node4, self.nodes4.add(node))
        };
        self.lead(parent, link);
    }

    fn add_leaf(&mut self, entry: &EntryRef<'_>) -> Link {
        let mut key = self.contents.copy(entry.key, entry.value, &[]);
        let value = key.split_off(entry.key.len());
        let leaf = Leaf { key, versions: Versions::One(Versioned::of(entry, value)) };
        Link::new(Kind::Leaf, self.leaves.add(leaf))
    }

    /// The first node or leaf on the way of `key` that is at `depth` or below it,
    /// and the node and byte that lead there; none to the root.
    fn edge(&self, key: &[u8], depth: usize) -> (Option<(Link, u8)>, Link) {
        let (mut parent, mut below) = (None, self.root.expect("the tree is not empty"));
        while let Some(fork) = self.depth(below).filter(|fork| *fork < depth) {
            parent = Some((below, key[fork]));
            below = self.branch(below, Some(key[fork])).expect("a leaf shares the key up to depth");
        }
        (parent, below)
    }

    /// Adds a branch to a node and returns the node, which may be another now.
    fn add_branch(&mut self, link: Link, branch: Branch, to: Link) -> Link {
        let number = link.number();
        let Tree { nodes4, nodes16, nodes48, nodes256, .. } = self;
        match link.kind() {
            Kind::Leaf => unreachable!("a leaf has no branches"),
            Kind::Node4 => add_or_grow(nodes4, nodes16, number, branch, to)
                .map_or(link, |number| Link::new(Kind::Node16, number)),
            Kind::Node16 => add_or_grow(nodes16, nodes48, number, branch, to)
                .map_or(link, |number| Link::new(Kind::Node48, number)),
            Kind::Node48 => add_or_grow(nodes48, nodes256, number, branch, to)
                .map_or(link, |number| Link::new(Kind::Node256, number)),
            Kind::Node256 => {
                nodes256[number].add(branch, to);
                link
            }
        }
    }

    /// Makes a branch, or the root, lead elsewhere.
    fn lead(&mut self, parent: Option<(Link, u8)>, to: Link) {
        let Some((link, byte)) = parent else {
            self.root = Some(to);
            return;
        };
        let number = link.number();
        match link.kind() {
            Kind::Leaf => unreachable!("a leaf has no branches"),
            Kind::Node4 => self.nodes4[number].bytes.set(byte, to),
            Kind::Node16 => self.nodes16[number].bytes.set(byte, to),
            Kind::Node48 => self.nodes48[number].bytes.set(byte, to),
            Kind::Node256 => self.nodes256[number].bytes.set(byte, to),
        }
    }
}

/// Adds a branch to a node. If there is no room, a larger node takes its place,
/// whose number is returned.
fn add_or_grow<B: Branches, C: Branches + Default>(
    nodes: &mut Arena<Node<B>>,
    larger: &mut Arena<Node<C>>,
    number: u32,
    branch: Branch,
    to: Link,
) -> Option<u32> {
    let node = &mut nodes[number];
    if node.add(branch, to) {
        return None;
    }
    let mut grown = node.grown();
    grown.add(branch, to);
    nodes.free(number);
    Some(larger.add(grown))
}
