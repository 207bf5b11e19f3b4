//! stub
#[derive(Clone, Debug)]
pub struct Cache;
impl Cache {
    pub fn new(_: u64) -> Cache { Cache }
    pub fn bytes(&self) -> u64 { 0 }
    pub fn hits(&self) -> u64 { 0 }
    pub fn misses(&self) -> u64 { 0 }
}
