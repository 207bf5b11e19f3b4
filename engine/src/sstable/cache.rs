//! The cache of decoded pages and filters, and of rows that are read again and again:
//! one budget of bytes for all tables of a database.
//!
//! What is decoded hangs in [`Slots`] of its table, by the number of its page: to find it
//! costs one cache line or two, where a table of hashes costs five, and writes to none that
//! other readers look at. All slots that hold something stand in a ring. When they hold
//! more than the budget allows, a hand goes round and empties those that nobody has looked
//! into for some rounds. Source: CLOCK, "A Paging Experiment with the Multics System"
//! (Corbató, 1968).
//!
//! Once it is full, a page is kept only if it was missed before so lately that, had it been
//! kept then, it would still be here, and only if nobody has looked for long into what goes
//! for it: what is read once in a long while neither drives out what is read more often nor
//! costs the memory, and to decode a page for the cache takes twice as long as to look for
//! one row of it. Sources of the ideas: the ghost entries of "2Q" (Johnson and Shasha,
//! 1994); "TinyLFU" (Einziger, Friedman and Manes, 2017), for a look at what would go.

use std::collections::VecDeque;
use std::hint::black_box;
// Not those of `crate::sync`: whoever comes first here, no answer is another.
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Relaxed},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::{ArcSwapOption, Guard};

use super::filter::Filter;
use super::keys::KeysPage;
use super::page::{BytesPage, IntsPage};
use super::row_cache::{Place as RowPlace, Row, RowCache};
use super::schema::VALUE;
use crate::count::Count;
use crate::cursor::{Found, Lookup};

/// Rows have one of so many parts of the budget.
const ROWS_SHARE: u64 = 8;

/// What takes more than one of so many parts of the budget is not kept.
const LARGEST_SHARE: u64 = 2;

/// Bytes of what is kept beside its contents.
const ENTRY_BYTES: usize = 64;

/// Slots that are passed by for having been looked into, before one is emptied all the
/// same: whoever adds a page need not go all the way round.
const SECOND_CHANCES: usize = 64;

/// Rounds of the hand in which a slot that nobody looks into any more stays.
const ROUNDS: u8 = 3;

/// What was missed twice with no more misses between is worth more than anything.
const MISSES_FEW: usize = 16;

/// The cache is full when less than one of so many parts of its budget is left.
const ROOM_SHARE: u64 = 64;

/// Shared by its clones.
#[derive(Clone, Debug)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of pages and filters, as `bytes`.
    bytes_max: u64,
    bytes: AtomicU64,
    ring: Mutex<VecDeque<Place>>,
    rows: RowCache,
    hits: Count,
    misses: AtomicU64,
    /// Misses of keys and of values.
    missed: [AtomicU32; 2],
}

/// A slot that holds something.
#[derive(Debug)]
struct Place {
    slots: Weak<Slots>,
    page: usize,
}

/// Something decoded.
pub(super) trait Block {
    /// Bytes of memory.
    fn weight(&self) -> usize;
}

/// What is kept of a page, one column each.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub keys: ArcSwapOption<KeysPage>,
    pub values: ArcSwapOption<BytesPage>,
    pub ints: [ArcSwapOption<IntsPage>; 3],
    /// Of the row group that begins with the page.
    pub filter: ArcSwapOption<Filter>,
}

/// What a page held when a walk came by.
#[derive(Default)]
pub(super) struct Passed {
    pub keys: Option<Arc<KeysPage>>,
    pub values: Option<Arc<BytesPage>>,
    pub ints: [Option<Arc<IntsPage>>; 3],
}

impl Held {
    /// Lets go of everything; answers its bytes.
    fn clear(&self) -> u64 {
        fn take<T: Block>(block: &ArcSwapOption<T>) -> u64 {
            block.swap(None).as_deref().map_or(0, weight)
        }
        let ints = self.ints.iter().map(take);
        ints.sum::<u64>() + take(&self.keys) + take(&self.values) + take(&self.filter)
    }
}

fn weight<T: Block>(block: &T) -> u64 {
    (block.weight() + ENTRY_BYTES) as u64
}

/// In a cache line, as who finds nothing looks at all of it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot {
    held: Held,
    /// It stands in the ring.
    placed: AtomicBool,
    /// How often the hand passes by: as long as it is not 0. Anew with each look into it.
    used: AtomicU8,
    /// Which miss of keys of any page the last one of its keys was, and the same for its
    /// values; 0 without one.
    missed: [AtomicU32; 2],
}

impl Slot {
    /// True if the hand passes by.
    fn is_passed_by(&self) -> bool {
        let rounds = self.used.load(Relaxed);
        if let Some(fewer) = rounds.checked_sub(1) {
            self.used.store(fewer, Relaxed);
        }
        rounds > 0
    }
}

/// What is kept of a table.
#[derive(Debug)]
pub(super) struct Slots {
    cache: Cache,
    slots: Box<[Slot]>,
}

impl Cache {
    /// A cache of at most `bytes` bytes.
    pub fn new(bytes: u64) -> Cache {
        let rows_bytes = bytes / ROWS_SHARE;
        Cache(Arc::new(Inner {
            bytes_max: bytes - rows_bytes,
            bytes: AtomicU64::new(0),
            ring: Mutex::default(),
            rows: RowCache::new(rows_bytes),
            hits: Count::default(),
            misses: AtomicU64::new(0),
            missed: Default::default(),
        }))
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Relaxed) + self.0.rows.weight()
    }

    /// Lookups that found something; those of rows count only then.
    pub fn hits(&self) -> u64 {
        self.0.hits.get()
    }

    /// Lookups that did not.
    pub fn misses(&self) -> u64 {
        self.0.misses.load(Relaxed)
    }

    /// What the tables of a version say of a key, if its row is kept; `place` is the
    /// keyspace and the key's [`hash_key`](super::hash_key).
    #[inline]
    pub(crate) fn row(&self, place: RowPlace, version: u64, lookup: &Lookup<'_>) -> Option<Found> {
        let found = self.0.rows.get(place, version, lookup)?;
        self.0.hits.add();
        Some(found)
    }

    fn has_room(&self) -> bool {
        let Inner { bytes, bytes_max, .. } = &*self.0;
        bytes.load(Relaxed) + bytes_max / ROOM_SHARE < *bytes_max
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Place>> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if what was missed twice with so many misses between may come in: had it been
    /// kept the first time it would still be here, and what goes for it was not looked into
    /// for some rounds. If it was, the hand moves on: so what nobody comes back to gives way
    /// in the end, and where more is read again and again than fits, most of it stays.
    fn may_come_in(&self, misses: usize) -> bool {
        let mut ring = self.ring();
        if misses > ring.len() {
            return false;
        }
        if misses <= MISSES_FEW {
            return true;
        }
        let next = ring.pop_front();
        // Not while a table may go, which takes its slots out of the ring.
        drop(ring);
        let Some(place) = next else { return true };
        let Some(slots) = place.slots.upgrade() else { return true };
        let was_used = slots.slots[place.page].is_passed_by();
        let mut ring = self.ring();
        if was_used {
            ring.push_back(place);
        } else {
            ring.push_front(place);
        }
        drop(ring);
        !was_used
    }

    /// Empties slots until the budget is kept to.
    fn evict(&self) {
        let mut chances = SECOND_CHANCES;
        while self.0.bytes.load(Relaxed) > self.0.bytes_max {
            let Some(place) = self.ring().pop_front() else { return };
            let Some(slots) = place.slots.upgrade() else { continue };
            let slot = &slots.slots[place.page];
            if chances > 0 && slot.is_passed_by() {
                chances -= 1;
                self.ring().push_back(place);
                continue;
            }
            slot.used.store(0, Relaxed);
            // First: who keeps something meanwhile either places the slot again, or has
            // kept it before and it goes with the rest.
            slot.placed.swap(false, AcqRel);
            self.0.bytes.fetch_sub(slot.held.clear(), Relaxed);
        }
    }
}

impl Slots {
    /// For a table of so many pages.
    pub fn new(cache: Cache, pages: usize) -> Arc<Slots> {
        Arc::new(Slots { cache, slots: (0..pages).map(|_| Slot::default()).collect() })
    }

    /// Bytes of pages and filters that may be held, of all tables.
    pub fn bytes_max(&self) -> u64 {
        self.cache.0.bytes_max
    }

    /// Bytes that are held, of all tables.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Reads some of each line of memory that a read of a row in a page looks at.
    #[inline]
    pub fn bring_near(&self, page: usize, place: RowPlace) {
        black_box(self.slots[page].used.load(Relaxed));
        self.cache.0.rows.bring_near(place);
    }

    /// What `answer` makes of what `field` of a page holds.
    #[inline]
    pub fn look<T, R>(
        &self,
        page: usize,
        field: impl Fn(&Held) -> &ArcSwapOption<T>,
        answer: impl FnOnce(&Arc<T>) -> R,
    ) -> Option<R> {
        let slot = &self.slots[page];
        let held = field(&slot.held).load();
        let Some(found) = &*held else {
            self.cache.0.misses.fetch_add(1, Relaxed);
            return None;
        };
        self.cache.0.hits.add();
        if slot.used.load(Relaxed) != ROUNDS {
            slot.used.store(ROUNDS, Relaxed);
        }
        Some(answer(found))
    }

    /// What a page holds, for a walk that comes by: that it finds nothing is no miss, and
    /// what it finds is not the hotter for it.
    pub fn pass(&self, page: usize) -> Passed {
        let Held { keys, values, ints, .. } = &self.slots[page].held;
        let (keys, values, ints) = (keys.load(), values.load(), ints.each_ref().map(ArcSwapOption::load));
        // To count one reader more is to wait for the memory, and for nothing else
        // meanwhile. A look at all of it first waits once.
        let weights = [keys.as_deref().map(Block::weight), values.as_deref().map(Block::weight)];
        black_box((weights, ints.each_ref().map(|ints| ints.as_deref().map(Block::weight))));
        Passed {
            keys: Guard::into_inner(keys),
            values: Guard::into_inner(values),
            ints: ints.map(Guard::into_inner),
        }
    }

    /// What `field` of a page holds, to hold on to.
    #[inline]
    pub fn get<T>(&self, page: usize, field: impl Fn(&Held) -> &ArcSwapOption<T>) -> Option<Arc<T>> {
        self.look(page, field, Arc::clone)
    }

    /// True if the keys or values of a page that have just been missed are worth keeping.
    pub fn admits(&self, page: usize, column: usize) -> bool {
        let (before, since) = self.miss(page, column);
        self.cache.has_room() || (before && self.cache.may_come_in(since))
    }

    /// True if a page that a walk has just read, or some of it, is worth keeping: another
    /// one has read it before, and nothing has to go for it.
    pub fn admits_passing(&self, page: usize) -> bool {
        let held = &self.slots[page].held;
        let all = held.keys.load().is_some() && held.values.load().is_some();
        !all && self.miss(page, VALUE).0 && self.cache.has_room()
    }

    /// Notes a miss of the keys or values of a page; answers if there was one before, and
    /// how many of that column of any page since.
    fn miss(&self, page: usize, column: usize) -> (bool, usize) {
        let now = self.cache.0.missed[column].fetch_add(1, Relaxed).wrapping_add(1).max(1);
        let before = self.slots[page].missed[column].swap(now, Relaxed);
        (before != 0, now.wrapping_sub(before) as usize)
    }

    /// True if `field` of a page holds nothing and `block` is not too large for it.
    pub fn lacks<T: Block>(
        &self,
        page: usize,
        field: impl Fn(&Held) -> &ArcSwapOption<T>,
        block: &T,
    ) -> bool {
        weight(block) <= self.bytes_max() / LARGEST_SHARE && field(&self.slots[page].held).load().is_none()
    }

    /// Keeps `block` in `field` of a page, if the page [lacks](Slots::lacks) it.
    pub fn keep<T: Block>(
        self: &Arc<Self>,
        page: usize,
        field: impl Fn(&Held) -> &ArcSwapOption<T>,
        block: &Arc<T>,
    ) {
        if !self.lacks(page, &field, &**block) {
            return;
        }
        let slot = &self.slots[page];
        let held = &self.cache.0.bytes;
        held.fetch_add(weight(&**block), Relaxed);
        if let Some(before) = field(&slot.held).swap(Some(Arc::clone(block))) {
            held.fetch_sub(weight(&*before), Relaxed);
        }
        if !slot.placed.swap(true, AcqRel) {
            self.cache.ring().push_back(Place { slots: Arc::downgrade(self), page });
        }
        self.cache.evict();
    }

    /// Keeps a row of so many bytes that was found in pages, if it was lately found before.
    pub fn note_row(&self, place: RowPlace, bytes: usize, row: impl FnOnce() -> Row) {
        self.cache.0.rows.note(place, bytes, row);
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let held = self.slots.iter().map(|slot| slot.held.clear()).sum();
        if held > 0 {
            self.cache.0.bytes.fetch_sub(held, Relaxed);
            self.cache.ring().retain(|place| !std::ptr::eq(place.slots.as_ptr(), self));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn page(bytes: usize) -> Arc<BytesPage> {
        let mut body = Vec::new();
        crate::sstable::delta::encode(&mut body, &[bytes as i64]);
        body.resize(body.len() + bytes, 7);
        Arc::new(BytesPage::decode(Bytes::from(body), 1).unwrap())
    }

    fn keep(slots: &Arc<Slots>, number: usize, bytes: usize) {
        slots.keep(number, |held| &held.values, &page(bytes));
    }

    fn holds(slots: &Slots, number: usize) -> bool {
        slots.get(number, |held| &held.values).is_some()
    }

    #[test]
    fn stays_within_its_budget_and_counts() {
        let cache = Cache::new(1 << 20);
        let slots = Slots::new(cache.clone(), 2000);
        for number in 0..2000 {
            keep(&slots, number, 4000);
            assert!(cache.bytes() <= 1 << 20);
        }
        assert!(cache.bytes() > 3 << 18);
        let found = (0..2000).filter(|number| holds(&slots, *number)).count() as u64;
        assert!(found > 0 && cache.hits() == found && cache.misses() == 2000 - found);
        // What is too large drives nothing out.
        keep(&slots, 0, 3 << 18);
        assert!(!holds(&slots, 0));
        assert_eq!((0..2000).filter(|number| holds(&slots, *number)).count() as u64, found);
    }

    #[test]
    fn what_is_looked_into_stays() {
        let cache = Cache::new(1 << 20);
        let slots = Slots::new(cache.clone(), 5000);
        for number in 0..5000 {
            keep(&slots, number, 4000);
            assert!(number < 20 || (0..20).all(|hot| holds(&slots, hot)));
        }
        // Columns of a page come and go together, and are counted once.
        let before = cache.bytes();
        keep(&slots, 4999, 4000);
        assert_eq!(cache.bytes(), before);
    }

    #[test]
    fn a_full_cache_keeps_what_was_missed_lately() {
        let cache = Cache::new(1 << 20);
        let slots = Slots::new(cache.clone(), 5000);
        let read = |number: usize| {
            let found = holds(&slots, number);
            if !found && slots.admits(number, 1) {
                keep(&slots, number, 4000);
            }
            found
        };
        // Of a round over many times what fits, the beginning stays.
        (0..5000).for_each(|number| assert!(!read(number)));
        let kept = (0..5000).filter(|number| read(*number)).count();
        assert!(kept > 100 && (0..kept).all(&read), "{kept}");
        // What is wanted all the time is there from the third time on.
        assert!(!read(4000) && !read(4000) && read(4000));
        // What is wanted often drives out, after some rounds, what nobody wants any more.
        let rounds = (0..20).take_while(|_| (4000..4100).filter(|number| read(*number)).count() < 100);
        assert!((4..12).contains(&rounds.count()));
        assert!((4000..4100).all(&read));
    }

    #[test]
    fn where_more_is_read_at_random_than_fits_most_stays() {
        let cache = Cache::new(1 << 20);
        let slots = Slots::new(cache.clone(), 500);
        let (mut random, mut kept, mut missed) = (1_u64, 0, 0);
        for step in 0..40_000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let number = (random >> 33) as usize % 500;
            if holds(&slots, number) {
                continue;
            }
            let admitted = slots.admits(number, 1);
            if admitted {
                keep(&slots, number, 4000);
            }
            if step >= 10_000 {
                missed += 1;
                kept += usize::from(admitted);
            }
        }
        // About 220 of 500 fit.
        assert!((15_000..20_000).contains(&missed), "{missed}");
        assert!((1..missed / 8).contains(&kept), "{kept} of {missed}");
    }

    #[test]
    fn tables_may_go_while_pages_of_others_come_in() {
        let cache = Cache::new(1 << 20);
        let slots = Slots::new(cache.clone(), 1000);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..60_000 {
                    let table = Slots::new(cache.clone(), 4);
                    (0..4).for_each(|number| keep(&table, number, 4000));
                }
                over.store(true, Relaxed);
            });
            let mut random = 1_u64;
            while !over.load(Relaxed) {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let number = (random >> 33) as usize % 300;
                if !holds(&slots, number) && slots.admits(number, 1) {
                    keep(&slots, number, 4000);
                }
            }
        });
        drop(slots);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn a_table_takes_what_is_kept_of_it_along() {
        let cache = Cache::new(1 << 20);
        let kept = Slots::new(cache.clone(), 10);
        keep(&kept, 3, 1000);
        let before = cache.bytes();
        let gone = Slots::new(cache.clone(), 100);
        (0..100).for_each(|number| keep(&gone, number, 1000));
        assert!(cache.bytes() > before && cache.ring().len() == 101);
        drop(gone);
        assert_eq!((cache.bytes(), cache.ring().len()), (before, 1));
        assert!(holds(&kept, 3));
        drop(kept);
        assert_eq!((cache.bytes(), cache.ring().len()), (0, 0));
    }
}
