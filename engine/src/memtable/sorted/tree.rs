//! A B+-tree of versions.
//!
//! Nodes are wide, and a search of one looks at a row of integers that lie side by
//! side: of each key the eight bytes after those that all keys of the node share. The
//! keys, which lie all over memory, are looked at only where these are equal. Beside the
//! integers is where the entries lie, which never move.
//!
//! What all keys of a node share is what the separators around it share; so no search
//! has to check it. Nodes at either edge of the tree have a separator on one side
//! alone, and share what all keys do.
//!
//! After "Prefix B-Trees" (Bayer and Unterauer, ACM TODS 1977), for what separators tell,
//! and the "poor man's normalized keys" of "B-Tree Indexes and CPU Caches" (Graefe and
//! Larson, ICDE 2001).

use std::iter;
use std::ops::Range;

use super::super::arena::Arena;
use super::super::node::Probe;
use super::records::{Place, Record, Records};
use crate::key::{EntryRef, SequenceNumber, compare_internal, head, shared_prefix};

/// Most versions of a leaf, and separators of an inner node.
const WIDTH: usize = 32;

/// Heads that are about a cache line.
const LINE: usize = 8;

/// Before all internal keys.
const FIRST: Probe<'static> = (&[], SequenceNumber(u64::MAX));

/// No leaf.
const NONE: u32 = u32::MAX;

/// Internal keys of a node, in order. What each search looks at lies together.
#[derive(Debug)]
#[repr(C)]
struct Keys {
    len: usize,
    /// Bytes that all share, those yet to come included.
    shared: usize,
    /// The bytes after those, as an integer; the greatest one where there is no key.
    heads: [u64; WIDTH],
    places: [Place; WIDTH],
}

impl Keys {
    /// No keys, that share so many bytes.
    fn new(shared: usize) -> Keys {
        Keys { len: 0, shared, heads: [u64::MAX; WIDTH], places: [Place::default(); WIDTH] }
    }

    fn is_full(&self) -> bool {
        self.len == WIDTH
    }

    fn head_of(&self, key: &[u8]) -> u64 {
        head(key.get(self.shared..).unwrap_or_default())
    }

    /// How many are below `probe`, which shares what they share.
    #[inline]
    fn below(&self, probe: Probe<'_>, records: &Records) -> usize {
        let head = self.head_of(probe.0);
        // Steps that do not wait for each other wait for memory at once, as those of a
        // binary search would not.
        let is_less = |other: &u64| usize::from(*other < head);
        let lines = self.heads.chunks_exact(LINE).map(|line| is_less(&line[LINE - 1]));
        let mut count = LINE * lines.sum::<usize>();
        if let Some(line) = self.heads.get(count..count + LINE) {
            count += line.iter().map(is_less).sum::<usize>();
        }
        if self.heads.get(count) != Some(&head) {
            return count;
        }
        let is_below = |at: usize| {
            self.heads[at] == head && compare_internal(records.probe(self.places[at]), probe).is_lt()
        };
        // The newest version of a key is the first one, and looked for most.
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

    fn insert(&mut self, at: usize, key: &[u8], place: Place) {
        self.heads.copy_within(at..self.len, at + 1);
        self.heads[at] = self.head_of(key);
        self.places.copy_within(at..self.len, at + 1);
        self.places[at] = place;
        self.len += 1;
    }

    /// A range of them, that share so many bytes.
    fn part(&self, range: Range<usize>, shared: usize, records: &Records) -> Keys {
        let mut part = Keys::new(shared);
        part.len = range.len();
        part.places[..range.len()].copy_from_slice(&self.places[range.clone()]);
        if shared == self.shared {
            part.heads[..range.len()].copy_from_slice(&self.heads[range]);
        } else {
            part.share(shared, records);
        }
        part
    }

    /// From now on they share so many bytes.
    fn share(&mut self, shared: usize, records: &Records) {
        self.shared = shared;
        for at in 0..self.len {
            self.heads[at] = self.head_of(records.probe(self.places[at]).0);
        }
    }
}

#[derive(Debug)]
struct Leaf {
    keys: Keys,
    /// The leaves beside it.
    prev: u32,
    next: u32,
}

/// Its keys are separators: child `n` has the versions from separator `n - 1` on, below
/// separator `n`.
#[derive(Debug)]
struct Inner {
    keys: Keys,
    children: [u32; WIDTH + 1],
}

impl Inner {
    fn new(keys: Keys, children: &[u32]) -> Inner {
        let mut inner = Inner { keys, children: [NONE; WIDTH + 1] };
        inner.children[..children.len()].copy_from_slice(children);
        inner
    }

    fn insert(&mut self, at: usize, separator: &[u8], place: Place, child: u32) {
        self.children.copy_within(at + 1..self.keys.len + 1, at + 2);
        self.children[at + 1] = child;
        self.keys.insert(at, separator, place);
    }
}

/// A node that has no room, below a parent that has.
struct Full {
    parent: u32,
    /// Which child it is.
    at: usize,
    is_leaf: bool,
    /// The separators around it.
    lower: Option<Place>,
    upper: Option<Place>,
}

/// Versions by internal key.
#[derive(Debug, Default)]
pub(super) struct Tree {
    records: Records,
    leaves: Arena<Leaf>,
    inners: Arena<Inner>,
    /// A leaf, if the height is 0.
    root: u32,
    /// Inner nodes on the way to a leaf.
    height: usize,
    first_leaf: u32,
    last_leaf: u32,
    len: usize,
    /// What all keys begin with.
    prefix: Vec<u8>,
}

impl Tree {
    /// Number of versions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.records.bytes() + self.leaves.bytes() + self.inners.bytes() + self.prefix.capacity()
    }

    /// Adds a copy of a version; there is none with its internal key.
    pub fn insert(&mut self, entry: &EntryRef<'_>) {
        let probe = (entry.key, entry.seq);
        if self.len == 0 {
            self.prefix = entry.key.to_vec();
            let keys = Keys::new(self.prefix.len());
            self.root = self.leaves.add(Leaf { keys, prev: NONE, next: NONE });
            (self.first_leaf, self.last_leaf) = (self.root, self.root);
        }
        if !entry.key.starts_with(&self.prefix) {
            self.share_less(shared_prefix(entry.key, &self.prefix));
        }
        let place = self.records.add(entry);
        loop {
            let number = self.leaf_of(probe);
            let keys = &mut self.leaves[number].keys;
            if !keys.is_full() {
                keys.insert(keys.below(probe, &self.records), entry.key, place);
                self.len += 1;
                return;
            }
            self.make_room(probe);
        }
    }

    /// From the first version at or after `probe` on, or from the first.
    pub fn from<'t>(&'t self, probe: Option<Probe<'_>>) -> impl Iterator<Item = Record<'t>> + use<'t> {
        let mut position = self.position(probe.unwrap_or(FIRST));
        iter::from_fn(move || {
            let (leaf, at) = position.as_mut()?;
            if *at == leaf.keys.len {
                (*leaf, *at) = (self.leaf(leaf.next)?, 0);
            }
            *at += 1;
            Some(self.record(leaf, *at - 1))
        })
    }

    /// From the last version before `probe` back, or from the last.
    pub fn back_from<'t>(&'t self, probe: Option<Probe<'_>>) -> impl Iterator<Item = Record<'t>> + use<'t> {
        let mut position = probe.map_or_else(|| self.end(), |probe| self.position(probe));
        iter::from_fn(move || {
            let (leaf, at) = position.as_mut()?;
            if *at == 0 {
                *leaf = self.leaf(leaf.prev)?;
                *at = leaf.keys.len;
            }
            *at -= 1;
            Some(self.record(leaf, *at))
        })
    }

    fn record(&self, leaf: &Leaf, at: usize) -> Record<'_> {
        Record { records: &self.records, place: leaf.keys.places[at] }
    }

    fn leaf(&self, number: u32) -> Option<&Leaf> {
        (number != NONE).then(|| &self.leaves[number])
    }

    /// A leaf, and how many of its versions are below `probe`, as are all before it.
    #[inline]
    fn position(&self, probe: Probe<'_>) -> Option<(&Leaf, usize)> {
        if self.len == 0 {
            return None;
        }
        if !probe.0.starts_with(&self.prefix) {
            return if *probe.0 < *self.prefix {
                Some((&self.leaves[self.first_leaf], 0))
            } else {
                self.end()
            };
        }
        let leaf = &self.leaves[self.leaf_of(probe)];
        Some((leaf, leaf.keys.below(probe, &self.records)))
    }

    /// After all versions.
    fn end(&self) -> Option<(&Leaf, usize)> {
        let leaf = (self.len > 0).then(|| &self.leaves[self.last_leaf])?;
        Some((leaf, leaf.keys.len))
    }

    /// The leaf that `probe`, which shares what all keys do, belongs into.
    #[inline]
    fn leaf_of(&self, probe: Probe<'_>) -> u32 {
        let mut number = self.root;
        for _ in 0..self.height {
            let inner = &self.inners[number];
            number = inner.children[inner.keys.below(probe, &self.records)];
        }
        number
    }

    /// From now on all keys share no more than so many bytes, and those of the nodes at
    /// the edges neither.
    fn share_less(&mut self, shared: usize) {
        self.prefix.truncate(shared);
        for side in [|_| 0, |len: usize| len] {
            let mut number = self.root;
            for _ in 0..self.height {
                let Inner { keys, children } = &mut self.inners[number];
                keys.share(shared, &self.records);
                number = children[side(keys.len)];
            }
            self.leaves[number].keys.share(shared, &self.records);
        }
    }

    /// Takes one step to make room for `probe`, whose leaf has none.
    fn make_room(&mut self, probe: Probe<'_>) {
        match self.full_node(probe) {
            None => {
                self.root = self.inners.add(Inner::new(Keys::new(self.prefix.len()), &[self.root]));
                self.height += 1;
            }
            Some(full) => self.split(&full, probe),
        }
    }

    /// The lowest node without room whose parent has some; `None` if the root has none.
    fn full_node(&self, probe: Probe<'_>) -> Option<Full> {
        let (mut full, mut lower, mut upper) = (None, None, None);
        let mut parent = self.root;
        for level in (0..self.height).rev() {
            let Inner { keys, children } = &self.inners[parent];
            let at = keys.below(probe, &self.records);
            lower = at.checked_sub(1).map(|before| keys.places[before]).or(lower);
            upper = keys.places[..keys.len].get(at).copied().or(upper);
            let is_leaf = level == 0;
            let child = children[at];
            let below = if is_leaf { &self.leaves[child].keys } else { &self.inners[child].keys };
            if below.is_full() && !keys.is_full() {
                full = Some(Full { parent, at, is_leaf, lower, upper });
            }
            parent = child;
        }
        full
    }

    fn split(&mut self, full: &Full, probe: Probe<'_>) {
        let Full { parent, at, is_leaf, .. } = *full;
        let number = self.inners[parent].children[at];
        let (separator, added) =
            if is_leaf { self.split_leaf(number, full, probe) } else { self.split_inner(number, full) };
        let key = self.records.probe(separator).0;
        self.inners[parent].insert(at, key, separator, added);
    }

    /// The separator, and the leaf of what is not below it.
    fn split_leaf(&mut self, number: u32, full: &Full, probe: Probe<'_>) -> (Place, u32) {
        let Leaf { keys, prev, next } = &self.leaves[number];
        let (prev, next) = (*prev, *next);
        // Where keys ascend, leaves stay full.
        let is_last = next == NONE && keys.below(probe, &self.records) == WIDTH;
        let middle = if is_last { WIDTH - 1 } else { WIDTH / 2 };
        let separator = keys.places[middle];
        let (lower, upper) = self.shared_around(full, separator);
        let lower = keys.part(0..middle, lower, &self.records);
        let upper = keys.part(middle..WIDTH, upper, &self.records);
        let added = self.leaves.add(Leaf { keys: upper, prev: number, next });
        self.leaves[number] = Leaf { keys: lower, prev, next: added };
        match next {
            NONE => self.last_leaf = added,
            next => self.leaves[next].prev = added,
        }
        (separator, added)
    }

    /// The separator, which goes up, and the node of what is above it.
    fn split_inner(&mut self, number: u32, full: &Full) -> (Place, u32) {
        let Inner { keys, children } = &self.inners[number];
        let middle = WIDTH / 2;
        let separator = keys.places[middle];
        let (lower, upper) = self.shared_around(full, separator);
        let lower = keys.part(0..middle, lower, &self.records);
        let upper = Inner::new(keys.part(middle + 1..WIDTH, upper, &self.records), &children[middle + 1..]);
        self.inners[number].keys = lower;
        (separator, self.inners.add(upper))
    }

    /// What the keys of a node share below a new separator, and above.
    fn shared_around(&self, full: &Full, separator: Place) -> (usize, usize) {
        let key = |place: Place| self.records.probe(place).0;
        let with = |other: Option<Place>| {
            other.map_or(self.prefix.len(), |other| shared_prefix(key(other), key(separator)))
        };
        (with(full.lower), with(full.upper))
    }
}
