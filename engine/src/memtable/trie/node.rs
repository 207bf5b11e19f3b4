//! Inner nodes: a depth, and branches in one of four forms by their number.

use std::num::NonZeroU32;

/// How a key goes on where others part from it: with a byte, or not at all,
/// which comes first.
pub(super) type Branch = Option<u8>;

/// What a link leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Leaf,
    Node4,
    Node16,
    Node48,
    Node256,
}

/// A leaf or node: its number within its kind, and in the lowest bits the kind,
/// so that four bytes do for an optional link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(NonZeroU32);

impl Link {
    const KIND_BITS: u32 = 3;

    /// # Panics
    ///
    /// If there are 2^29 of a kind; as many leaves alone have 44 GiB.
    #[inline]
    pub fn new(kind: Kind, number: u32) -> Link {
        assert!(number >> (32 - Self::KIND_BITS) == 0, "a trie is full");
        Link(NonZeroU32::MIN.saturating_add(kind as u32) | number << Self::KIND_BITS)
    }

    #[inline]
    pub fn kind(self) -> Kind {
        match (self.0.get() & ((1 << Self::KIND_BITS) - 1)) - 1 {
            0 => Kind::Leaf,
            1 => Kind::Node4,
            2 => Kind::Node16,
            3 => Kind::Node48,
            _ => Kind::Node256,
        }
    }

    #[inline]
    pub fn number(self) -> u32 {
        self.0.get() >> Self::KIND_BITS
    }
}

/// A fork: where keys that begin alike part.
#[derive(Debug, Default)]
pub(super) struct Node<B> {
    /// How many bytes the keys below have in common.
    pub depth: u32,
    /// The key that has no more.
    pub end: Option<Link>,
    pub bytes: B,
}

impl<B: Branches> Node<B> {
    /// The same node with room for more branches.
    pub fn grown<C: Branches + Default>(&self) -> Node<C> {
        let mut bytes = C::default();
        let mut from = self.bytes.from(0);
        while let Some((byte, link)) = from {
            bytes.add(byte, link);
            from = byte.checked_add(1).and_then(|byte| self.bytes.from(byte));
        }
        Node { depth: self.depth, end: self.end, bytes }
    }

    #[inline]
    pub fn get(&self, branch: Branch) -> Option<Link> {
        match branch {
            Some(byte) => self.bytes.get(byte),
            None => self.end,
        }
    }

    /// Adds a branch; false if there is no room.
    pub fn add(&mut self, branch: Branch, link: Link) -> bool {
        match branch {
            Some(byte) => self.bytes.add(byte, link),
            None => {
                self.end = Some(link);
                true
            }
        }
    }

    #[inline]
    pub fn first(&self) -> Option<(Branch, Link)> {
        match self.end {
            Some(link) => Some((None, link)),
            None => self.after(None),
        }
    }

    pub fn last(&self) -> Option<(Branch, Link)> {
        self.up_to(Some(u8::MAX))
    }

    /// The first branch after this one.
    #[inline]
    pub fn after(&self, branch: Branch) -> Option<(Branch, Link)> {
        let from = branch.map_or(Some(0), |byte| byte.checked_add(1))?;
        self.bytes.from(from).map(|(byte, link)| (Some(byte), link))
    }

    /// The last branch before this one.
    pub fn before(&self, branch: Branch) -> Option<(Branch, Link)> {
        branch.and_then(|byte| self.up_to(byte.checked_sub(1)))
    }

    fn up_to(&self, branch: Branch) -> Option<(Branch, Link)> {
        let byte = branch.and_then(|byte| self.bytes.to(byte));
        byte.map(|(byte, link)| (Some(byte), link)).or_else(|| self.end.map(|link| (None, link)))
    }
}

/// Links by byte.
pub(super) trait Branches {
    fn get(&self, byte: u8) -> Option<Link>;

    /// The first at or after `byte`.
    fn from(&self, byte: u8) -> Option<(u8, Link)>;

    /// The last at or before `byte`.
    fn to(&self, byte: u8) -> Option<(u8, Link)>;

    /// Leads a branch that is there elsewhere.
    fn set(&mut self, byte: u8, link: Link);

    /// Adds a branch; false if there is no room.
    fn add(&mut self, byte: u8, link: Link) -> bool;
}

/// Bytes in order, and the links of each at the same place.
#[derive(Debug)]
pub(super) struct Few<const N: usize> {
    bytes: [u8; N],
    count: u8,
    links: [Option<Link>; N],
}

impl<const N: usize> Default for Few<N> {
    fn default() -> Self {
        Few { bytes: [0; N], count: 0, links: [None; N] }
    }
}

impl<const N: usize> Few<N> {
    /// How many bytes are below this one.
    #[inline]
    fn below(&self, byte: u8) -> usize {
        self.bytes[..self.count.into()].iter().filter(|&&other| other < byte).count()
    }

    #[inline]
    fn place(&self, at: usize) -> Option<(u8, Link)> {
        Some((*self.bytes.get(at)?, (*self.links.get(at)?)?))
    }

    #[inline]
    fn find(&self, byte: u8) -> Option<usize> {
        // All at once, without a jump for each: the compiler makes vectors of it.
        let equal = (0..N).fold(0, |equal: u32, at| equal | u32::from(self.bytes[at] == byte) << at);
        let equal = equal & ((1 << self.count) - 1);
        (equal != 0).then(|| equal.trailing_zeros() as usize)
    }
}

impl<const N: usize> Branches for Few<N> {
    #[inline]
    fn get(&self, byte: u8) -> Option<Link> {
        self.find(byte).and_then(|at| self.links[at])
    }

    #[inline]
    fn from(&self, byte: u8) -> Option<(u8, Link)> {
        self.place(self.below(byte))
    }

    fn to(&self, byte: u8) -> Option<(u8, Link)> {
        let below = byte.checked_add(1).map_or(self.count.into(), |byte| self.below(byte));
        self.place(below.checked_sub(1)?)
    }

    fn set(&mut self, byte: u8, link: Link) {
        if let Some(at) = self.find(byte) {
            self.links[at] = Some(link);
        }
    }

    fn add(&mut self, byte: u8, link: Link) -> bool {
        let (at, count) = (self.below(byte), usize::from(self.count));
        if count == N {
            return false;
        }
        self.bytes.copy_within(at..count, at + 1);
        self.links.copy_within(at..count, at + 1);
        self.bytes[at] = byte;
        self.links[at] = Some(link);
        self.count += 1;
        true
    }
}

/// Links in the order in which they came, and for each byte its place among them.
#[derive(Debug)]
pub(super) struct Some48 {
    /// From 1; 0 is nowhere.
    places: [u8; 256],
    count: u8,
    links: [Option<Link>; 48],
}

impl Default for Some48 {
    fn default() -> Self {
        Some48 { places: [0; 256], count: 0, links: [None; 48] }
    }
}

impl Branches for Some48 {
    #[inline]
    fn get(&self, byte: u8) -> Option<Link> {
        let place = self.places[usize::from(byte)].checked_sub(1)?;
        self.links[usize::from(place)]
    }

    fn from(&self, byte: u8) -> Option<(u8, Link)> {
        let byte = (byte..=u8::MAX).find(|&byte| self.places[usize::from(byte)] != 0)?;
        self.get(byte).map(|link| (byte, link))
    }

    fn to(&self, byte: u8) -> Option<(u8, Link)> {
        let byte = (0..=byte).rev().find(|&byte| self.places[usize::from(byte)] != 0)?;
        self.get(byte).map(|link| (byte, link))
    }

    fn set(&mut self, byte: u8, link: Link) {
        if let Some(place) = self.places[usize::from(byte)].checked_sub(1) {
            self.links[usize::from(place)] = Some(link);
        }
    }

    fn add(&mut self, byte: u8, link: Link) -> bool {
        let Some(free) = self.links.get_mut(usize::from(self.count)) else { return false };
        *free = Some(link);
        self.count += 1;
        self.places[usize::from(byte)] = self.count;
        true
    }
}

/// A link for each byte.
#[derive(Debug)]
pub(super) struct All {
    links: [Option<Link>; 256],
}

impl Default for All {
    fn default() -> Self {
        All { links: [None; 256] }
    }
}

impl Branches for All {
    #[inline]
    fn get(&self, byte: u8) -> Option<Link> {
        self.links[usize::from(byte)]
    }

    fn from(&self, byte: u8) -> Option<(u8, Link)> {
        (byte..=u8::MAX).find_map(|byte| self.get(byte).map(|link| (byte, link)))
    }

    fn to(&self, byte: u8) -> Option<(u8, Link)> {
        (0..=byte).rev().find_map(|byte| self.get(byte).map(|link| (byte, link)))
    }

    fn set(&mut self, byte: u8, link: Link) {
        self.links[usize::from(byte)] = Some(link);
    }

    fn add(&mut self, byte: u8, link: Link) -> bool {
        self.set(byte, link);
        true
    }
}
