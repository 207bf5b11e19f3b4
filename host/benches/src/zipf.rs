//! Numbers as YCSB draws them: a few often, most seldom.

use crate::data::{Random, mix};

/// YCSB's constant: how uneven the numbers are.
const THETA: f64 = 0.99;

/// Ranks below an end, 0 the most frequent: rank r about as often as 1/(r+1)^θ.
///
/// Gray, Sundaresan, Englert, Baclawski and Weinberger, "Quickly generating
/// billion-record synthetic databases", 1994, section 3.2, as in YCSB's
/// `ZipfianGenerator`.
#[derive(Clone, Debug)]
pub struct Zipf {
    end: u64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    /// Ranks below `end`, which is not 0.
    pub fn new(end: u64) -> Self {
        let zeta: f64 = (1..=end).map(|rank| (rank as f64).powf(-THETA)).sum();
        let zeta_2 = 1.0 + 0.5_f64.powf(THETA);
        let eta = (1.0 - (2.0 / end as f64).powf(1.0 - THETA)) / (1.0 - zeta_2 / zeta);
        Zipf { end, zeta, eta }
    }

    /// What all ranks are below.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// A rank.
    pub fn rank(&self, random: &mut Random) -> u64 {
        let u = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let scaled = u * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(THETA) {
            return 1.min(self.end - 1);
        }
        let rank = self.end as f64 * (self.eta * u - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        (rank as u64).min(self.end - 1)
    }

    /// A number below the end, the frequent ones scattered: YCSB's
    /// `ScrambledZipfianGenerator`, with another hash.
    pub fn scattered(&self, random: &mut Random) -> u64 {
        mix(self.rank(random)) % self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_as_frequent_as_the_formula_says() {
        let (end, draws) = (1000, 200_000);
        let (zipf, mut random, mut seen) = (Zipf::new(end), Random::new(1), vec![0_u32; end as usize]);
        (0..draws).for_each(|_| seen[zipf.rank(&mut random) as usize] += 1);
        // Only the first two ranks are exact; the others follow a smooth curve.
        for (rank, tolerance) in [(0, 0.02), (1, 0.03), (9, 0.35), (99, 0.35)] {
            let expected = draws as f64 / (f64::from(rank + 1).powf(THETA) * zipf.zeta);
            let found = f64::from(seen[rank as usize]);
            assert!((found / expected - 1.0).abs() < tolerance, "rank {rank}: {found}, not {expected}");
        }
        assert!(seen[..10].iter().sum::<u32>() > draws / 3);
    }

    #[test]
    fn small_ends_are_kept() {
        for end in 1..5 {
            let (zipf, mut random) = (Zipf::new(end), Random::new(2));
            assert!((0..1000).all(|_| zipf.rank(&mut random) < end && zipf.scattered(&mut random) < end));
        }
    }
}
