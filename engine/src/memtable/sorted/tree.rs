//! A B+-tree of versions.
//!
//! Nodes are wide, and a search of one looks at a row of integers that lie side by
//! side: of each key the eight bytes after those that all keys of the node share. The
//! keys, which lie all over memory, are looked at only where these are equal. Versions
//! stay where they are when others come between; their order is a row of small numbers
//! beside them.
//!
//! What all keys of a node share is what the separators around it share; so no search
//! has to check it. Nodes at either edge of the tree have a separator on one side
//! alone, and share nothing.
//!
//! After "Prefix B-Trees" (Bayer and Unterauer, ACM TODS 1977), for what separators tell,
//! and the "poor man's normalized keys" of "B-Tree Indexes and CPU Caches" (Graefe and
//! Larson, ICDE 2001).

use std::ops::Range;
use std::{array, mem};

use super::super::arena::Arena;
use super::super::node::{Probe, Version};
use crate::key::{SequenceNumber, head, shared_prefix};

/// Most versions of a leaf, and separators of an inner node.
const WIDTH: usize = 32;

/// Before all internal keys.
const FIRST: Probe<'static> = (&[], SequenceNumber(u64::MAX));

/// No leaf.
const NONE: u32 = u32::MAX;

/// What keys are found by within a node.
#[derive(Debug)]
struct Heads {
    /// Bytes that all keys share, those yet to come included.
    shared: usize,
    len: usize,
    /// The bytes after those, as an integer; the greatest one where there is no key.
    heads: [u64; WIDTH],
}

impl Heads {
    fn new(shared: usize) -> Heads {
        Heads { shared, len: 0, heads: [u64::MAX; WIDTH] }
    }

    #[inline]
    fn head_of(&self, key: &[u8]) -> u64 {
        head(key.get(self.shared..).unwrap_or_default())
    }

    fn is_full(&self) -> bool {
        self.len == WIDTH
    }

    /// Number of versions below `probe`, which shares what all keys do.
    #[inline]
    fn below<'v>(&self, probe: Probe<'_>, version: impl Fn(usize) -> &'v Version) -> usize {
        let head = self.head_of(probe.0);
        let mut count = 0;
        for step in [16, 8, 4, 2, 1] {
            count += if self.heads[(count + step - 1) % WIDTH] < head { step } else { 0 };
        }
        count += usize::from(self.heads[count % WIDTH] < head);
        if self.heads.get(count) != Some(&head) {
            return count;
        }
        // The newest version of a key is the first one, and asked for most.
        let is_below = |at: usize| self.heads[at] == head && version(at).compare(probe).is_lt();
        let mut step = 1;
        while count + step <= self.len && is_below(count + step - 1) {
            count += step;
            step *= 2;
        }
        let mut end = (count + step - 1).min(self.len);
        while count < end {
            let middle = count + (end - count) / 2;
            if is_below(middle) {
                count = middle + 1;
            } else {
                end = middle;
            }
        }
        count
    }

    fn insert(&mut self, at: usize, key: &[u8]) {
        let head = self.head_of(key);
        self.heads.copy_within(at..self.len, at + 1);
        self.heads[at] = head;
        self.len += 1;
    }

    /// Those of a range of keys, which are those of `versions` and share so many bytes.
    fn part(&self, range: Range<usize>, shared: usize, versions: &[Version]) -> Heads {
        let mut part = Heads::new(shared);
        part.len = versions.len();
        if shared == self.shared {
            part.heads[..versions.len()].copy_from_slice(&self.heads[range]);
        } else {
            for (at, version) in versions.iter().enumerate() {
                part.heads[at] = part.head_of(version.key());
            }
        }
        part
    }
}

#[derive(Debug)]
struct Leaf {
    heads: Heads,
    /// The versions, in the order in which they came.
    versions: Vec<Version>,
    /// Where each is among them, by internal key.
    places: [u8; WIDTH],
    /// The leaves beside it.
    prev: u32,
    next: u32,
}

impl Leaf {
    /// A leaf of versions by internal key.
    fn new(heads: Heads, versions: Vec<Version>) -> Leaf {
        let places = array::from_fn(|place| place as u8);
        Leaf { heads, versions, places, prev: NONE, next: NONE }
    }

    /// The version at a position below their number.
    #[inline]
    fn version(&self, at: usize) -> &Version {
        &self.versions[usize::from(self.places[at])]
    }

    #[inline]
    fn below(&self, probe: Probe<'_>) -> usize {
        self.heads.below(probe, |at| self.version(at))
    }

    /// Takes the versions out, in order: those before `middle`, and the others.
    fn parts(&mut self, middle: usize) -> (Vec<Version>, Vec<Version>) {
        let mut versions: Vec<Option<Version>> =
            mem::take(&mut self.versions).into_iter().map(Some).collect();
        let mut take = |places: &[u8]| {
            let mut part = Vec::with_capacity(WIDTH);
            part.extend(places.iter().filter_map(|place| versions[usize::from(*place)].take()));
            part
        };
        let (lower, upper) = self.places.split_at(middle);
        (take(lower), take(upper))
    }

    fn insert(&mut self, at: usize, version: Version) {
        let len = self.heads.len;
        self.heads.insert(at, version.key());
        self.places.copy_within(at..len, at + 1);
        self.places[at] = len as u8;
        self.versions.push(version);
    }
}

/// Child `n` has the versions from separator `n - 1` on, below separator `n`.
#[derive(Debug)]
struct Inner {
    heads: Heads,
    children: [u32; WIDTH + 1],
    /// Separators; each is the first version there ever was in the child after it.
    versions: Vec<Version>,
}

impl Inner {
    fn new(heads: Heads, first: u32, versions: Vec<Version>) -> Inner {
        let mut children = [NONE; WIDTH + 1];
        children[0] = first;
        Inner { heads, children, versions }
    }

    #[inline]
    fn below(&self, probe: Probe<'_>) -> usize {
        self.heads.below(probe, |at| &self.versions[at])
    }

    fn insert(&mut self, at: usize, separator: Version, child: u32) {
        let len = self.heads.len;
        self.heads.insert(at, separator.key());
        self.children.copy_within(at + 1..len + 1, at + 2);
        self.children[at + 1] = child;
        self.versions.insert(at, separator);
    }
}

/// A node that has no room, below a parent that has.
struct Full {
    parent: u32,
    /// Which child it is.
    at: usize,
    is_leaf: bool,
    /// The separators around it.
    lower: Option<Version>,
    upper: Option<Version>,
}

/// Versions by internal key.
#[derive(Debug, Default)]
pub(super) struct Tree {
    leaves: Arena<Leaf>,
    inners: Arena<Inner>,
    /// A leaf, if the height is 0.
    root: u32,
    /// Inner nodes on the way to a leaf.
    height: usize,
    last_leaf: u32,
    len: usize,
}

impl Tree {
    /// Number of versions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory, but for keys and values.
    pub fn bytes(&self) -> usize {
        let in_leaves = match self.height {
            0 if self.len > 0 => self.leaves[self.root].versions.capacity(),
            _ => self.leaves.len() * WIDTH,
        };
        let versions = in_leaves + self.inners.len() * WIDTH;
        self.leaves.bytes() + self.inners.bytes() + versions * size_of::<Version>()
    }

    /// Adds a version; there is none with its internal key.
    pub fn insert(&mut self, version: Version) {
        if self.len == 0 {
            self.root = self.leaves.add(Leaf::new(Heads::new(0), Vec::new()));
            self.last_leaf = self.root;
        }
        loop {
            let probe = (version.key(), version.seq());
            let number = self.leaf_of(probe);
            let leaf = &mut self.leaves[number];
            if !leaf.heads.is_full() {
                leaf.insert(leaf.below(probe), version);
                self.len += 1;
                return;
            }
            self.make_room(probe);
        }
    }

    /// From the first version at or after `probe` on, or from the first.
    pub fn from<'t>(&'t self, probe: Option<Probe<'_>>) -> impl Iterator<Item = &'t Version> + use<'t> {
        let mut place = self.place(probe.unwrap_or(FIRST));
        std::iter::from_fn(move || {
            let (leaf, at) = place.as_mut()?;
            if *at == leaf.heads.len {
                (*leaf, *at) = (self.leaf(leaf.next)?, 0);
            }
            *at += 1;
            Some(leaf.version(*at - 1))
        })
    }

    /// From the last version before `probe` back, or from the last.
    pub fn back_from<'t>(&'t self, probe: Option<Probe<'_>>) -> impl Iterator<Item = &'t Version> + use<'t> {
        let last = || {
            let leaf = (self.len > 0).then(|| &self.leaves[self.last_leaf])?;
            Some((leaf, leaf.heads.len))
        };
        let mut place = probe.map_or_else(last, |probe| self.place(probe));
        std::iter::from_fn(move || {
            let (leaf, at) = place.as_mut()?;
            if *at == 0 {
                *leaf = self.leaf(leaf.prev)?;
                *at = leaf.heads.len;
            }
            *at -= 1;
            Some(leaf.version(*at))
        })
    }

    fn leaf(&self, number: u32) -> Option<&Leaf> {
        (number != NONE).then(|| &self.leaves[number])
    }

    /// A leaf, and how many of its versions are below `probe`, as are all before it.
    #[inline]
    fn place(&self, probe: Probe<'_>) -> Option<(&Leaf, usize)> {
        let leaf = (self.len > 0).then(|| &self.leaves[self.leaf_of(probe)])?;
        Some((leaf, leaf.below(probe)))
    }

    #[inline]
    fn leaf_of(&self, probe: Probe<'_>) -> u32 {
        let mut number = self.root;
        for _ in 0..self.height {
            let inner = &self.inners[number];
            number = inner.children[inner.below(probe)];
        }
        number
    }

    /// Takes one step to make room for `probe`, whose leaf has none.
    fn make_room(&mut self, probe: Probe<'_>) {
        match self.full_node(probe) {
            None => {
                self.root = self.inners.add(Inner::new(Heads::new(0), self.root, Vec::with_capacity(WIDTH)));
                self.height += 1;
            }
            Some(full) => self.split(full, probe),
        }
    }

    /// The lowest node without room whose parent has some; `None` if the root has none.
    fn full_node(&self, probe: Probe<'_>) -> Option<Full> {
        let (mut full, mut lower, mut upper) = (None, None, None);
        let mut parent = self.root;
        for level in (0..self.height).rev() {
            let inner = &self.inners[parent];
            let at = inner.below(probe);
            lower = at.checked_sub(1).map(|before| &inner.versions[before]).or(lower);
            upper = inner.versions.get(at).or(upper);
            let child = inner.children[at];
            let heads = if level == 0 { &self.leaves[child].heads } else { &self.inners[child].heads };
            if heads.is_full() && !inner.heads.is_full() {
                full = Some(Full {
                    parent,
                    at,
                    is_leaf: level == 0,
                    lower: lower.cloned(),
                    upper: upper.cloned(),
                });
            }
            parent = child;
        }
        full
    }

    fn split(&mut self, full: Full, probe: Probe<'_>) {
        let Full { parent, at, is_leaf, lower, upper } = full;
        let number = self.inners[parent].children[at];
        // What is below a separator, and above.
        let shared = |separator: &Version| {
            let with = |other: &Option<Version>| {
                other.as_ref().map_or(0, |other| shared_prefix(other.key(), separator.key()))
            };
            (with(&lower), with(&upper))
        };
        let (separator, split_off) = if is_leaf {
            let leaf = &mut self.leaves[number];
            // Where keys ascend, leaves stay full.
            let is_last = leaf.next == NONE && leaf.below(probe) == WIDTH;
            let middle = if is_last { WIDTH - 1 } else { WIDTH / 2 };
            let (lower, upper) = leaf.parts(middle);
            let separator = upper[0].clone();
            let (below, above) = shared(&separator);
            let upper_heads = leaf.heads.part(middle..WIDTH, above, &upper);
            let lower_heads = leaf.heads.part(0..middle, below, &lower);
            let (prev, next) = (leaf.prev, leaf.next);
            let added = self.leaves.add(Leaf { prev: number, next, ..Leaf::new(upper_heads, upper) });
            self.leaves[number] = Leaf { prev, next: added, ..Leaf::new(lower_heads, lower) };
            match next {
                NONE => self.last_leaf = added,
                next => self.leaves[next].prev = added,
            }
            (separator, added)
        } else {
            let inner = &mut self.inners[number];
            let middle = WIDTH / 2;
            let mut upper = Vec::with_capacity(WIDTH);
            upper.extend(inner.versions.drain(middle + 1..));
            let separator = inner.versions.remove(middle);
            let (below, above) = shared(&separator);
            let mut added = Inner::new(inner.heads.part(middle + 1..WIDTH, above, &upper), NONE, upper);
            added.children[..WIDTH - middle].copy_from_slice(&inner.children[middle + 1..]);
            inner.heads = inner.heads.part(0..middle, below, &inner.versions);
            (separator, self.inners.add(added))
        };
        self.inners[parent].insert(at, separator, split_off);
    }
}
