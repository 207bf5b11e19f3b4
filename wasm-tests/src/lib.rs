//! What the WebAssembly suites share: [`scenarios`] that every build of the
//! engine must pass, wherever its files are; the [`model`] that says what a
//! database must hold; and the [`random`] numbers both draw. README.md says
//! which suite runs what, and where.

pub mod model;
pub mod random;
pub mod scenarios;
