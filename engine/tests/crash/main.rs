//! Goal: whatever goes wrong beneath the engine, what is found is a prefix of
//! the commits that keeps every promise. Method: deterministic workloads run
//! once over a storage that remembers all its changes; then from every moment
//! what a crash may leave is opened, compared with a model, written to, and
//! crashed again.
//!
//! `DURAMEN_SEED` shifts all seeds; with `DURAMEN_SOAK_SECONDS` the suite goes
//! on with new ones for that long.

/// Opens what a crash left, and judges it.
mod check;
/// Checkpoints: crashes and faults on either side.
mod checkpoint;
/// Crashes at every moment of every workload.
mod crashes;
/// Each call of the storage fails, once and for good.
mod errors;
/// What commits must add up to.
mod model;
/// Seeded randomness.
mod random;
/// Defects that were found.
mod regressions;
/// Bits that flip on the disk.
mod rot;
/// Runs a workload and remembers what was promised.
mod run;
/// Shows that the suite fails where the storage skips or delays a sync.
mod strength;
/// What a program does with a database, step by step.
mod workload;
