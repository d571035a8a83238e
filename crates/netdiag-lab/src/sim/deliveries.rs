//! When each token reached its client, of all streams in one place.
//!
//! A list for each stream would be simpler, and slow: a thousand lists that grow by a token in turn are a thousand pages of memory, more
//! than a processor keeps the addresses of. Here tokens of the same second lie side by side whosoever they are, in blocks of a cache
//! line that know the block before them.
//!
//! Invariant: times of a stream never go back, because its link keeps packets in order.

use super::Micros;

/// Times in a block: with the number of the block before, a cache line.
const TIMES: usize = 7;

/// The times of all streams.
#[derive(Debug, Default)]
pub(super) struct Log {
    blocks: Vec<Block>,
}

#[derive(Debug)]
#[repr(align(64))]
struct Block {
    times: [Micros; TIMES],
    before: u32,
}

/// Those of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deliveries {
    len: u32,
    /// The block with the last of them.
    block: u32,
    last: Micros,
}

impl Deliveries {
    /// Tokens that have arrived, or will unless the client goes away.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// When the last of them does.
    pub(super) fn last(&self) -> Option<Micros> {
        (self.len > 0).then_some(self.last)
    }
}

impl Log {
    /// One more, at `at`.
    pub(super) fn push(&mut self, of: &mut Deliveries, at: Micros) {
        debug_assert!(of.len == 0 || of.last <= at);
        let place = of.len as usize % TIMES;
        if place == 0 {
            self.blocks.push(Block { times: [0; TIMES], before: of.block });
            of.block = (self.blocks.len() - 1) as u32;
        }
        self.blocks[of.block as usize].times[place] = at;
        (of.len, of.last) = (of.len + 1, at);
    }

    /// Forgets those after `end`.
    pub(super) fn cut(&mut self, of: &mut Deliveries, end: Micros) {
        while of.len > 0 && of.last > end {
            of.len -= 1;
            if (of.len as usize).is_multiple_of(TIMES) {
                of.block = self.blocks[of.block as usize].before;
            }
            of.last = match of.len {
                0 => 0,
                len => self.blocks[of.block as usize].times[(len as usize - 1) % TIMES],
            };
        }
    }

    /// How many there are by `now`.
    pub(super) fn count(&self, of: &Deliveries, now: Micros) -> u32 {
        of.len - self.latest_first(of).take_while(|at| *at > now).count() as u32
    }

    /// All of them, in order.
    pub(super) fn all(&self, of: &Deliveries) -> Vec<Micros> {
        let mut times: Vec<Micros> = self.latest_first(of).collect();
        times.reverse();
        times
    }

    fn latest_first(&self, of: &Deliveries) -> impl Iterator<Item = Micros> + '_ {
        let (mut len, mut block) = (of.len as usize, of.block);
        std::iter::from_fn(move || {
            len = len.checked_sub(1)?;
            let Block { times, before } = &self.blocks[block as usize];
            if len.is_multiple_of(TIMES) {
                block = *before;
            }
            Some(times[len % TIMES])
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_stream_has_what_a_list_of_its_own_would_have(
            steps in prop::collection::vec((0usize..3, 0u64..5, prop::bool::weighted(0.1)), 0..300),
        ) {
            let mut log = Log::default();
            let (mut ours, mut lists) = ([Deliveries::default(); 3], vec![Vec::new(); 3]);
            for (now, (stream, ahead, is_cut)) in (0u64..).zip(steps) {
                let (of, list) = (&mut ours[stream], &mut lists[stream]);
                if is_cut {
                    log.cut(of, now);
                    list.retain(|at| *at <= now);
                } else {
                    let at = (now + ahead).max(of.last().unwrap_or(0));
                    log.push(of, at);
                    list.push(at);
                }
                prop_assert_eq!(log.all(of), list.clone());
                prop_assert_eq!((of.len() as usize, of.last()), (list.len(), list.last().copied()));
                let count = list.iter().filter(|at| **at <= now).count();
                prop_assert_eq!(log.count(of, now) as usize, count);
            }
        }
    }
}
