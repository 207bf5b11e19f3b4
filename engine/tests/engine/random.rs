//! Seeded randomness, so that every run can be replayed.

/// A generator good enough to choose test cases. Source: Knuth's MMIX
/// constants, upper bits.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// Runs `case` for every seed, and prints the one that fails.
pub fn for_seeds(seeds: std::ops::Range<u64>, case: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| case(seed));
        if let Err(panic) = outcome {
            eprintln!("failed with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// So many seeds, or as many as `DURAMEN_SEEDS` says.
pub fn seed_count(usual: u64) -> u64 {
    std::env::var("DURAMEN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
