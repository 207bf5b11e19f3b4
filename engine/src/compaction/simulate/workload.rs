//! What a simulation writes, entry by entry.

use std::fmt;
use std::str::FromStr;

use super::tree::Entry;
use crate::error::Error;

/// A way of writing. What follows calls the number of keys `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Workload {
    /// 4 `n` puts, each to a random key.
    Uniform,
    /// The same with few keys that get most of them: the exponent is 0.99.
    Zipfian,
    /// `n` puts in the order of the keys.
    Sequential,
    /// 4 `n` puts in order, every tenth a little late, of which the last `n` have
    /// not expired.
    TimeSeries,
    /// `n` puts in order, each deleted once an eighth of `n` have followed it.
    Queue,
    /// `n` keys in random order, then 3 `n` puts, each to a random one.
    Overwrite,
}

impl Workload {
    /// Every one.
    pub const ALL: [Workload; 6] = [
        Workload::Uniform,
        Workload::Zipfian,
        Workload::Sequential,
        Workload::TimeSeries,
        Workload::Queue,
        Workload::Overwrite,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Uniform => "uniform",
            Workload::Zipfian => "zipfian",
            Workload::Sequential => "sequential",
            Workload::TimeSeries => "time-series",
            Workload::Queue => "queue",
            Workload::Overwrite => "overwrite",
        }
    }

    /// Entries that it writes for `keys`.
    pub fn writes(self, keys: u64) -> u64 {
        match self {
            Workload::Uniform | Workload::Zipfian | Workload::TimeSeries | Workload::Overwrite => 4 * keys,
            Workload::Sequential => keys,
            Workload::Queue => 2 * keys - keys.div_ceil(QUEUE_SHARE),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Workload {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Workload::ALL.into_iter().find(|workload| workload.name() == text);
        found.ok_or_else(|| {
            let names = Workload::ALL.map(Workload::name).join(", ");
            Error::invalid(format!("there is no workload {text:?}; there are {names}"))
        })
    }
}

/// Part of its keys that a queue holds.
const QUEUE_SHARE: u64 = 8;

/// How late a late entry of a time series is, at most.
const LATE_MAX: u64 = 100;

/// Exponent of the Zipfian workload, as in YCSB.
const ZIPF_EXPONENT: f64 = 0.99;

/// A prime that is no divisor of any number of keys: its multiples go through them
/// all before they repeat.
const STRIDE: u64 = 2_654_435_761;

/// The writes of a workload, one after the other.
#[derive(Debug)]
pub(super) struct Writes {
    workload: Workload,
    keys: u64,
    /// Entries written so far.
    pub done: u64,
    random: Random,
    zipf: Zipf,
}

impl Writes {
    pub fn new(workload: Workload, keys: u64, seed: u64) -> Writes {
        let zipf_keys = if workload == Workload::Zipfian { keys } else { 1 };
        Writes { workload, keys, done: 0, random: Random(seed), zipf: Zipf::new(zipf_keys) }
    }

    /// Entries in all.
    pub fn total(&self) -> u64 {
        self.workload.writes(self.keys)
    }

    /// One above the highest key.
    pub fn keys_end(&self) -> u64 {
        match self.workload {
            Workload::TimeSeries => 2 * self.total(),
            _ => self.keys,
        }
    }

    /// The next entry; `None` at the end.
    pub fn next(&mut self) -> Option<Entry> {
        if self.done == self.total() {
            return None;
        }
        self.done += 1;
        let at = self.done - 1;
        let mut entry = Entry { key: 0, expires: 0, tombstone: false };
        entry.key = match self.workload {
            Workload::Uniform => self.random.below(self.keys),
            Workload::Zipfian => self.zipf.draw(&mut self.random),
            Workload::Sequential => at,
            Workload::TimeSeries => {
                entry.expires = (at + 1 + self.keys) as u32;
                let late = if at % 10 == 9 { self.random.below(LATE_MAX.min(at)) } else { 0 };
                // Odd where it is late, so that it takes the place of none in order.
                2 * (at - late) + u64::from(late > 0)
            }
            Workload::Queue => {
                let held = self.keys.div_ceil(QUEUE_SHARE);
                let after = at.saturating_sub(held);
                entry.tombstone = after % 2 == 1;
                if entry.tombstone { after / 2 } else { at - after / 2 }
            }
            Workload::Overwrite if at < self.keys => at * STRIDE % self.keys,
            Workload::Overwrite => self.random.below(self.keys),
        } as u32;
        Some(entry)
    }

    /// Keys that somebody may look for: from the first one to one above the last.
    pub fn window(&self) -> (u64, u64) {
        match self.workload {
            Workload::Uniform | Workload::Zipfian | Workload::Overwrite => (0, self.keys),
            Workload::Sequential => (0, self.done),
            Workload::TimeSeries => (2 * self.done.saturating_sub(self.keys), 2 * self.done),
            Workload::Queue => {
                let after = self.done.saturating_sub(self.keys.div_ceil(QUEUE_SHARE));
                (after / 2, self.done - after / 2)
            }
        }
    }
}

/// SplitMix64. Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
/// Generators" (OOPSLA 2014).
#[derive(Debug)]
pub(super) struct Random(pub u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end.max(1)
    }
}

fn mixed(bits: u64) -> u64 {
    let z = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Keys in proportion to a power of their rank, the ranks scattered over the keys.
/// Source: Gray et al., "Quickly Generating Billion-Record Synthetic Databases"
/// (SIGMOD 1994).
#[derive(Debug)]
struct Zipf {
    keys: u64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(keys: u64) -> Zipf {
        let power = |rank: u64| (rank as f64).powf(-ZIPF_EXPONENT);
        let zeta: f64 = (1..=keys).map(power).sum();
        let two = 1.0 + power(2);
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - ZIPF_EXPONENT)) / (1.0 - two / zeta);
        Zipf { keys, zeta, eta }
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let u = (random.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        let scaled = u * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(ZIPF_EXPONENT) {
            1
        } else {
            let power = (self.eta * u - self.eta + 1.0).powf(1.0 / (1.0 - ZIPF_EXPONENT));
            (self.keys as f64 * power) as u64
        };
        mixed(rank) % self.keys
    }
}
