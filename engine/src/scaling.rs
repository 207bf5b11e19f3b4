//! How eagerly sorted runs are merged: one parameter for each level.
//!
//! A parameter `W` below zero makes a level *levelled*, with fan-out `2 - W`: two
//! runs that overlap are one too many, so reads find few runs and writes pay for
//! it. Above zero it is *tiered*, with fan-out `2 + W`: as many runs may overlap
//! before they are merged, so a byte is written once for each level. Zero is where
//! both meet. They are written `L10`, `N`, `T4`, with the fan-out. Source:
//! Cassandra's unified compaction strategy (CEP-26).
//!
//! The deepest level, which holds most of the data, may have a parameter of its
//! own: it decides how much space obsolete versions take, while the levels above
//! decide how often a byte is written on its way. Source: Dayan and Idreos,
//! *Dostoevsky* (SIGMOD 2018), lazy levelling.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Largest fan-out: beyond it a level is a pile.
const FAN_OUT_MAX: u32 = 64;

/// Levels that may have parameters of their own.
const LEVELS_MAX: usize = 16;

/// The scaling parameter of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScalingParameter(i32);

impl ScalingParameter {
    /// Levelled with a fan-out of 2 to 64; 2 is the middle.
    pub const fn levelled(fan_out: u32) -> Self {
        ScalingParameter(2 - clamped(fan_out))
    }

    /// Tiered with a fan-out of 2 to 64; 2 is the middle.
    pub const fn tiered(fan_out: u32) -> Self {
        ScalingParameter(clamped(fan_out) - 2)
    }

    /// `W` of the strategy's source.
    pub fn w(self) -> i32 {
        self.0
    }

    /// Density of the next level over that of this one.
    pub fn fan_out(self) -> u32 {
        2 + self.0.unsigned_abs()
    }

    /// Runs that must overlap before they are merged.
    pub fn trigger(self) -> usize {
        if self.0 > 0 { self.fan_out() as usize } else { 2 }
    }

    /// True above the middle.
    pub fn is_tiered(self) -> bool {
        self.0 > 0
    }
}

const fn clamped(fan_out: u32) -> i32 {
    if fan_out < 2 {
        2
    } else if fan_out > FAN_OUT_MAX {
        FAN_OUT_MAX as i32
    } else {
        fan_out as i32
    }
}

impl fmt::Display for ScalingParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("N"),
            1.. => write!(f, "T{}", self.fan_out()),
            _ => write!(f, "L{}", self.fan_out()),
        }
    }
}

impl FromStr for ScalingParameter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::invalid(format!(
                "{text:?} is no scaling parameter: L2 to L64, N or T2 to T64, as in T4/L4"
            ))
        };
        let (kind, fan_out) = text.split_at_checked(1).ok_or_else(wrong)?;
        let fan_out = || match fan_out.parse::<u32>() {
            Ok(fan_out @ 2..=FAN_OUT_MAX) if !text[1..].starts_with('+') => Ok(fan_out),
            _ => Err(wrong()),
        };
        match kind {
            "N" if text.len() == 1 => Ok(ScalingParameter(0)),
            "L" => Ok(ScalingParameter::levelled(fan_out()?)),
            "T" => Ok(ScalingParameter::tiered(fan_out()?)),
            _ => Err(wrong()),
        }
    }
}

/// The scaling parameters of a keyspace.
///
/// Written as a list from the top, whose last one repeats, and after a slash that
/// of the deepest level, where it differs: `T4`, `T8,T4/L4`, `N`. The presets are
/// words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scaling {
    /// From the top; never empty, the last one repeats.
    levels: Vec<ScalingParameter>,
    /// Of the deepest level.
    deepest: Option<ScalingParameter>,
}

impl Scaling {
    /// Names of the presets.
    pub const PRESETS: [&str; 4] = ["write_heavy", "balanced", "read_heavy", "time_series"];

    /// Bytes are written seldom; about twice the space, at times more, and more runs to
    /// read.
    pub fn write_heavy() -> Self {
        Scaling { levels: vec![ScalingParameter::tiered(8)], deepest: Some(ScalingParameter::tiered(4)) }
    }

    /// Tiered on top, levelled where most of the data is.
    pub fn balanced() -> Self {
        Scaling { levels: vec![ScalingParameter::tiered(4)], deepest: Some(ScalingParameter::levelled(4)) }
    }

    /// Few runs to read and little more space than the data needs.
    pub fn read_heavy() -> Self {
        Scaling { levels: vec![ScalingParameter(0)], deepest: Some(ScalingParameter::levelled(10)) }
    }

    /// For keys that ascend with time: runs do not overlap, and few merges are
    /// wanted where they do.
    pub fn time_series() -> Self {
        Scaling { levels: vec![ScalingParameter::tiered(8)], deepest: None }
    }

    /// The same parameter for every level.
    pub fn uniform(parameter: ScalingParameter) -> Self {
        Scaling { levels: vec![parameter], deepest: None }
    }

    /// The parameter of a level, of which `deepest` is the last.
    pub fn of(&self, level: usize, deepest: usize) -> ScalingParameter {
        match self.deepest {
            Some(parameter) if level >= deepest => parameter,
            _ => self.levels[level.min(self.levels.len() - 1)],
        }
    }
}

impl Default for Scaling {
    fn default() -> Self {
        Scaling::balanced()
    }
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, parameter) in self.levels.iter().enumerate() {
            write!(f, "{}{parameter}", if index == 0 { "" } else { "," })?;
        }
        self.deepest.map_or(Ok(()), |deepest| write!(f, "/{deepest}"))
    }
}

impl FromStr for Scaling {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "write_heavy" => return Ok(Scaling::write_heavy()),
            "balanced" => return Ok(Scaling::balanced()),
            "read_heavy" => return Ok(Scaling::read_heavy()),
            "time_series" => return Ok(Scaling::time_series()),
            _ => {}
        }
        let (levels, deepest) = match text.split_once('/') {
            Some((levels, deepest)) => (levels, Some(deepest.parse()?)),
            None => (text, None),
        };
        let levels = levels.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?;
        if levels.len() > LEVELS_MAX {
            return Err(Error::invalid(format!("more than {LEVELS_MAX} scaling parameters: {text:?}")));
        }
        Ok(Scaling { levels, deepest })
    }
}

/// Who chooses the scaling parameters of a keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CompactionStrategy {
    /// The user does.
    Fixed(Scaling),
    /// They follow what the keyspace is used for: `adaptive`.
    Adaptive,
}

impl Default for CompactionStrategy {
    fn default() -> Self {
        CompactionStrategy::Fixed(Scaling::default())
    }
}

impl fmt::Display for CompactionStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompactionStrategy::Fixed(scaling) => scaling.fmt(f),
            CompactionStrategy::Adaptive => f.write_str("adaptive"),
        }
    }
}

impl FromStr for CompactionStrategy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "adaptive" => Ok(CompactionStrategy::Adaptive),
            _ => Ok(CompactionStrategy::Fixed(text.parse()?)),
        }
    }
}

/// How often a keyspace was used, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    /// Puts, deletes and merges.
    pub writes: u64,
    /// Reads of single keys.
    pub gets: u64,
    /// Scans begun.
    pub scans: u64,
}

impl Mix {
    fn since(self, before: Mix) -> Mix {
        Mix {
            writes: self.writes.saturating_sub(before.writes),
            gets: self.gets.saturating_sub(before.gets),
            scans: self.scans.saturating_sub(before.scans),
        }
    }

    fn operations(self) -> u64 {
        self.writes + self.gets + self.scans
    }
}

/// What an adaptive keyspace may choose.
struct Rung {
    scaling: fn() -> Scaling,
    /// How often a byte is written, roughly: as simulated for random overwrites.
    writes: u64,
    /// In how many runs a key may be, roughly, by the same simulation.
    runs: u64,
}

/// From the most eager to write to the most eager to read.
const LADDER: [Rung; 3] = [
    Rung { scaling: Scaling::write_heavy, writes: 5, runs: 11 },
    Rung { scaling: Scaling::balanced, writes: 7, runs: 7 },
    Rung { scaling: Scaling::read_heavy, writes: 11, runs: 5 },
];

/// Operations that are looked at together.
const WINDOW: u64 = 10_000;

/// Nanoseconds, roughly: to write a row once more, to look into a run for a key, and to
/// begin a scan of a run.
const COSTS_NS: [u64; 3] = [200, 100, 1_000];

/// A change must save this part of the cost, in hundredths, or it is not made: else
/// two choices that are as good as each other would take turns.
const SAVING: u64 = 20;

/// The choice of an adaptive keyspace.
#[derive(Clone, Debug)]
pub struct Adaptive {
    rung: usize,
    looked_at: Mix,
    why: String,
}

impl Default for Adaptive {
    fn default() -> Self {
        Adaptive { rung: 1, looked_at: Mix::default(), why: "too few operations yet".into() }
    }
}

impl Adaptive {
    /// Takes in how the keyspace was used until now, and chooses anew when that is
    /// enough to judge by; by one step at most.
    pub fn look(&mut self, used: Mix) -> Scaling {
        let window = used.since(self.looked_at);
        if window.operations() >= WINDOW {
            self.looked_at = used;
            self.choose(window);
        }
        self.scaling()
    }

    fn choose(&mut self, window: Mix) {
        let cost = |rung: usize| {
            let Rung { writes, runs, .. } = LADDER[rung];
            let [write, get, scan] = COSTS_NS;
            window.writes * write * writes + (window.gets * get + window.scans * scan) * runs
        };
        let best = (0..LADDER.len()).min_by_key(|rung| cost(*rung)).unwrap_or(self.rung);
        let before = self.rung;
        if cost(best) * 100 <= cost(before) * (100 - SAVING) {
            self.rung = if best < before { before - 1 } else { before + 1 };
        }
        let parts = |part: u64| part * 1000 / window.operations();
        self.why = format!(
            "of 1000 operations {} were writes, {} gets, {} scans: {} ({} ns each, where {} has {} ns)",
            parts(window.writes),
            parts(window.gets),
            parts(window.scans),
            if self.rung == before { "kept" } else { "changed by a step" },
            cost(before) / window.operations(),
            (LADDER[best].scaling)(),
            cost(best) / window.operations(),
        );
    }

    /// What is chosen.
    pub fn scaling(&self) -> Scaling {
        (LADDER[self.rung].scaling)()
    }

    /// Why, for people.
    pub fn why(&self) -> &str {
        &self.why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_follows_the_use_by_steps_and_does_not_waver() {
        let mut adaptive = Adaptive::default();
        let mut used = Mix::default();
        let mut chosen = |writes: u64, gets: u64, scans: u64| {
            used = Mix { writes: used.writes + writes, gets: used.gets + gets, scans: used.scans + scans };
            adaptive.look(used)
        };
        assert_eq!(chosen(100, 0, 0), Scaling::balanced(), "too few to judge by");
        assert_eq!(chosen(20_000, 0, 0), Scaling::write_heavy());
        assert_eq!(chosen(0, 20_000, 0), Scaling::balanced(), "one step");
        assert_eq!(chosen(0, 20_000, 0), Scaling::read_heavy());
        // Somewhat better is not enough, in either direction.
        assert_eq!(chosen(5_000, 20_000, 0), Scaling::read_heavy());
        assert_eq!(chosen(10_000, 10_000, 0), Scaling::balanced());
        assert_eq!(chosen(10_000, 11_000, 0), Scaling::balanced());
        assert_eq!(chosen(4_000, 0, 8_000), Scaling::read_heavy());
        assert!(adaptive.why().contains("333 were writes"), "{}", adaptive.why());
    }

    #[test]
    fn texts_and_parameters_agree() {
        for text in ["N", "T4", "L10", "T8,T4/L4", "L4/L10", "T3,N,L64"] {
            assert_eq!(text.parse::<Scaling>().unwrap().to_string(), text);
        }
        assert_eq!("L2".parse::<Scaling>().unwrap(), Scaling::uniform(ScalingParameter::tiered(2)));
        for preset in Scaling::PRESETS {
            let parsed: Scaling = preset.parse().unwrap();
            assert_eq!(parsed.to_string().parse::<Scaling>().unwrap(), parsed);
        }
        for wrong in ["", "T", "T1", "T65", "N2", "X4", "T4,", "T4//L4", "T+4", "t4", "L4/", "ä4"] {
            assert!(matches!(wrong.parse::<Scaling>(), Err(Error::InvalidArgument(_))), "{wrong}");
        }
        assert!(vec!["N"; LEVELS_MAX + 1].join(",").parse::<Scaling>().is_err());
    }

    #[test]
    fn fan_outs_and_triggers() {
        let of = |text: &str| {
            let parameter: ScalingParameter = text.parse().unwrap();
            (parameter.w(), parameter.fan_out(), parameter.trigger())
        };
        assert_eq!(of("L10"), (-8, 10, 2));
        assert_eq!(of("N"), (0, 2, 2));
        assert_eq!(of("T4"), (2, 4, 4));
    }

    #[test]
    fn the_last_parameter_repeats_and_the_deepest_level_is_apart() {
        let scaling: Scaling = "T8,T4/L4".parse().unwrap();
        let levels: Vec<String> = (0..4).map(|level| scaling.of(level, 3).to_string()).collect();
        assert_eq!(levels, ["T8", "T4", "T4", "L4"]);
    }
}
