//! `cargo xtask soak`: the crash suites with ever new seeds, and a database that
//! is much larger than its sandbox.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::setup::rust_targets;
use crate::shell::{built, cargo, command, heading, run, say, target};

/// Seconds of one round, after which all suites have had their turn.
const ROUND: Duration = Duration::from_secs(600);

/// GiB of the large database: more than 32 bits can count.
const LARGE_GIB: u32 = 5;

/// Runs rounds until `rounds` are done, or for ever with `None`.
///
/// # Errors
/// At the first failure, with the seed that replays it in the output.
pub fn soak(rounds: Option<u64>) -> Result<(), String> {
    rust_targets(&["wasm32-wasip1"])?;
    let first = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let mut round = 0;
    while rounds.is_none_or(|rounds| round < rounds) {
        let seed = first + round * 1_000_000;
        heading(&format!("Round {}, seeds from {seed}; any failure names its own", round + 1));
        suites(seed)?;
        if round == 0 {
            large(&target().join("soak/large"))?;
        }
        round += 1;
    }
    Ok(())
}

fn suites(seed: u64) -> Result<(), String> {
    let seconds = (ROUND.as_secs() / 2).to_string();
    run(cargo()
        .args(["test", "--package", "duramen", "--test", "crash", "--", "--nocapture"])
        .env("DURAMEN_SEED", seed.to_string())
        .env("DURAMEN_SOAK_SECONDS", seconds))?;
    run(cargo()
        .args(["test", "--package", "wasm-tests", "--test", "faults", "--", "--nocapture"])
        .env("DURAMEN_SEED", seed.to_string()))
}

/// Writes, compacts and verifies a database of [`LARGE_GIB`] in a sandbox with
/// the default memory.
fn large(directory: &Path) -> Result<(), String> {
    heading(&format!("A database of {LARGE_GIB} GiB in a sandbox of 256 MiB"));
    run(cargo().args(["build", "--release", "--package", "duramen-examples", "--bin", "large"]))?;
    run(command(built("release", "large")).arg(directory).arg(LARGE_GIB.to_string()))?;
    say("It held.");
    Ok(())
}
