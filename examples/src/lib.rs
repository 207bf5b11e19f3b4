//! The examples are programs: see `src/bin` and README.md.
