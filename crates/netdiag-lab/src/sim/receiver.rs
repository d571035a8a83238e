//! The client's end of a connection: puts segments in order.
//!
//! Invariant: what is before [`Receiver::next`] has arrived, and it never goes back.

#[derive(Debug, Default)]
pub(super) struct Receiver {
    next: u64,
    /// Spans beyond a gap.
    beyond: Vec<(u64, u64)>,
}

impl Receiver {
    /// The first byte that has not arrived.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The spans beyond the gaps, in order.
    pub(super) fn blocks(&self) -> Vec<(u64, u64)> {
        let mut spans = self.beyond.clone();
        spans.sort_unstable();
        spans.dedup_by(|next, before| {
            let joins = next.0 <= before.1;
            before.1 = if joins { before.1.max(next.1) } else { before.1 };
            joins
        });
        spans
    }

    /// The bytes from `start` to `end` arrive, maybe again.
    pub(super) fn receive(&mut self, start: u64, end: u64) {
        if start > self.next {
            self.beyond.push((start, end));
            return;
        }
        self.next = self.next.max(end);
        while let Some(place) = self.beyond.iter().position(|span| span.0 <= self.next) {
            let (_, end) = self.beyond.swap_remove(place);
            self.next = self.next.max(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_waited_for_and_repeats_do_not_matter() {
        let mut receiver = Receiver::default();
        let after = |receiver: &mut Receiver, start, end| {
            receiver.receive(start, end);
            receiver.next()
        };
        assert_eq!(after(&mut receiver, 0, 10), 10);
        assert_eq!(after(&mut receiver, 30, 40), 10);
        assert_eq!(after(&mut receiver, 20, 30), 10);
        assert_eq!(after(&mut receiver, 50, 60), 10);
        assert_eq!(receiver.blocks(), [(20, 40), (50, 60)]);
        assert_eq!(after(&mut receiver, 5, 20), 40);
        assert_eq!(after(&mut receiver, 0, 10), 40);
    }
}
