//! The engine from outside, over memory storage.

mod concurrency;
mod model;
mod random;
mod recovery;
