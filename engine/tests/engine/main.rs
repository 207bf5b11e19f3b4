//! The engine from outside: its public face over storage in memory, each module
//! one kind of behaviour.

mod backup;
mod checkpoint;
mod concurrency;
mod corruption;
mod golden;
mod kept_rows;
mod limits;
mod model;
mod page_copies;
mod pictures;
mod random;
mod range_deletes;
mod read_only;
mod recovery;
mod repair;
mod scans;
mod serializability;
mod stalls;
mod support;
