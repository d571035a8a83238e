//! Room that a burst of connections leaves behind.
//!
//! A hash table keeps the room of its fullest moment, and a host that once had ten thousand connections in an interval would pay for them
//! until it ends. Invariant: after [`give_back`] a table has room for [`SPARE`] times as many as it has, or [`LEAST`], and no more.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

/// Times as many as there are. Half of that is left to one that has more, so that a number that wavers does not make it anew each time.
const SPARE: usize = 4;

/// Entries whose room is nobody's concern.
const LEAST: usize = 64;

/// Gives back most of what `map` has room for and does not use.
pub fn give_back<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    let used = map.len().max(LEAST);
    if map.capacity() > SPARE * used {
        map.shrink_to(SPARE / 2 * used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_forgotten_and_little_change_is_not_followed() {
        let mut map: HashMap<u32, u32> = (0..10_000).map(|key| (key, key)).collect();
        map.retain(|key, _| *key < 5_000);
        give_back(&mut map);
        assert!(map.capacity() > 10_000, "{}", map.capacity());
        map.retain(|key, _| *key < 1_000);
        give_back(&mut map);
        assert!((2_000..=4_000).contains(&map.capacity()), "{}", map.capacity());
        map.clear();
        give_back(&mut map);
        assert!((128..=256).contains(&map.capacity()), "{}", map.capacity());
        let least = map.capacity();
        give_back(&mut map);
        assert_eq!(map.capacity(), least);
    }
}
