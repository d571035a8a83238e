//! Growing trees: a sample of the rows, and random splits until each row is alone or the tree is deep enough.
//!
//! As scikit-learn's `node_split_random` does with one feature per split: draw a feature among those that are not constant
//! in the node, and a threshold uniformly between its least and greatest value there. The nodes of a tree are their own
//! queue, level by level, which gives the breadth-first order that scoring wants and needs no stack.
//!
//! Invariant: both sides of a split have rows. A tree allocates nothing beyond its nodes; buffers serve all trees.

use std::ops::Range;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng as _;

use crate::nodes::{Nodes, depth_limit};

/// Values no further apart than this are taken for equal (`FEATURE_THRESHOLD` in `_partitioner.pxd`).
const FEATURE_THRESHOLD: f32 = 1e-7;

/// What grows trees from one set of rows.
pub(crate) struct Grower<'a> {
    rows: &'a [f32],
    /// Features per row.
    features: usize,
    /// Rows per tree.
    samples: usize,
    /// Features per tree.
    max_features: usize,
    random: Xoshiro256PlusPlus,
    /// A permutation of the numbers of all rows, a tree's sample first.
    order: Vec<u32>,
    /// A permutation of all features, a tree's own first.
    choice: Vec<u32>,
    /// Which features differ between any two rows at all.
    varying: Vec<bool>,
    /// A permutation of the tree's columns that vary.
    candidates: Vec<u32>,
    /// The sample, feature by feature, `samples` values each.
    columns: Vec<f32>,
    /// A permutation of the sample in which each node's rows stand together.
    sample: Vec<u32>,
    /// The values of one feature in the node at hand.
    values: Vec<f32>,
    /// The rows that go right, while the others move together.
    right: Vec<u32>,
    /// For each node of the tree its place in `sample`.
    places: Vec<Place>,
}

/// The rows of a node, as a range of [`Grower::sample`].
#[derive(Clone, Copy)]
struct Place {
    start: u32,
    end: u32,
    depth: u32,
}

impl Place {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl<'a> Grower<'a> {
    /// For rows that have been checked, and `samples` and `max_features` not more than there are.
    pub(crate) fn new(
        rows: &'a [f32],
        features: usize,
        samples: usize,
        max_features: usize,
        random: Xoshiro256PlusPlus,
    ) -> Self {
        Self {
            rows,
            features,
            samples,
            max_features,
            random,
            order: (0..(rows.len() / features) as u32).collect(),
            choice: (0..features as u32).collect(),
            varying: varying(rows, features),
            candidates: Vec::with_capacity(max_features),
            columns: vec![0.0; samples * max_features],
            sample: vec![0; samples],
            values: vec![0.0; samples],
            right: vec![0; samples],
            places: Vec::with_capacity(2 * samples),
        }
    }

    /// Adds a tree.
    pub(crate) fn grow(&mut self, nodes: &mut Nodes) {
        self.draw();
        let root = nodes.plant();
        let limit = depth_limit(self.samples as u32);
        self.places.clear();
        self.places.push(Place { start: 0, end: self.samples as u32, depth: 0 });
        let mut next = 0;
        while let Some(&place) = self.places.get(next) {
            let node = root + next;
            let Place { start, end, depth } = place;
            match self.draw_split(place, limit) {
                Some((column, threshold)) => {
                    let middle = self.partition(place, threshold, depth + 1 == limit);
                    nodes.split(node, depth, self.choice[column] as usize, threshold);
                    self.places.push(Place { start, end: middle, depth: depth + 1 });
                    self.places.push(Place { start: middle, end, depth: depth + 1 });
                }
                None => nodes.settle(node, depth, end - start),
            }
            next += 1;
        }
    }

    /// Draws a tree's rows and features, and copies them together.
    fn draw(&mut self) {
        // The first steps of a Fisher–Yates shuffle; any permutation may stand before it, the last tree's as well.
        for index in 0..self.samples {
            let other = index + self.below(self.order.len() - index);
            self.order.swap(index, other);
        }
        if self.max_features < self.features {
            for index in 0..self.max_features {
                let other = index + self.below(self.features - index);
                self.choice.swap(index, other);
            }
        }
        for (index, &row) in self.order[..self.samples].iter().enumerate() {
            let row = &self.rows[row as usize * self.features..][..self.features];
            let places = self.columns[index..].iter_mut().step_by(self.samples);
            for (value, &feature) in places.zip(&self.choice[..self.max_features]) {
                *value = row[feature as usize];
            }
        }
        for (index, row) in self.sample.iter_mut().enumerate() {
            *row = index as u32;
        }
        let own = self.choice[..self.max_features].iter().zip(0..);
        self.candidates.clear();
        self.candidates
            .extend(own.filter(|&(&f, _)| self.varying[f as usize]).map(|(_, column)| column));
    }

    /// A feature (as a column of `columns`) and a threshold that divide the rows of a place, whose values of that
    /// feature then stand in `values`; `None` where nothing does or nothing should.
    fn draw_split(&mut self, place: Place, limit: u32) -> Option<(usize, f32)> {
        if place.end - place.start < 2 || place.depth == limit {
            return None;
        }
        let mut left_over = self.candidates.len();
        while left_over > 0 {
            let index = self.below(left_over);
            let column = self.candidates[index] as usize;
            let (least, greatest) = self.gather(place, column);
            if greatest > least + FEATURE_THRESHOLD {
                return Some((column, self.draw_threshold(least, greatest)));
            }
            // Set aside until one is found that is not constant: the choice among those is uniform.
            left_over -= 1;
            self.candidates.swap(index, left_over);
        }
        None
    }

    /// A threshold that leaves rows on both sides: `least <= threshold < greatest`.
    fn draw_threshold(&mut self, least: f32, greatest: f32) -> f32 {
        let (low, high) = (f64::from(least), f64::from(greatest));
        let threshold = (high - low) * self.unit() + low;
        // The product may round up to the greatest value, which would leave nothing on the right.
        if threshold >= high { least } else { round_down(threshold) }
    }

    /// Copies a column's values of a place's rows to `values`, and returns the least and the greatest.
    fn gather(&mut self, place: Place, column: usize) -> (f32, f32) {
        let column = &self.columns[column * self.samples..][..self.samples];
        let rows = &self.sample[place.range()];
        let values = &mut self.values[..rows.len()];
        for (value, &row) in values.iter_mut().zip(rows) {
            *value = column[row as usize];
        }
        extremes(values)
    }

    /// Moves the rows of a place whose value in `values` is at most the threshold before the others; returns where those
    /// begin. With `count_only` nothing will look at them again and they stay where they are.
    fn partition(&mut self, place: Place, threshold: f32, count_only: bool) -> u32 {
        let rows = &mut self.sample[place.range()];
        let values = &self.values[..rows.len()];
        if count_only {
            return place.start
                + values.iter().map(|&value| u32::from(value <= threshold)).sum::<u32>();
        }
        let right = &mut self.right[..rows.len()];
        let mut lefts = 0;
        // Each row is written to both sides and stays on one: which one is a coin toss, and a branch would be as well.
        for (index, &value) in values.iter().enumerate() {
            let row = rows[index];
            rows[lefts] = row;
            right[index - lefts] = row;
            lefts += usize::from(value <= threshold);
        }
        let rights = rows.len() - lefts;
        rows[lefts..].copy_from_slice(&right[..rights]);
        place.start + lefts as u32
    }

    /// A random number below `bound`, by Lemire's multiplication. Its bias, `bound`/2⁶⁴, is far below what a forest of
    /// any size could show.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.random.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A random number in [0, 1) with all bits that an `f64` has there.
    fn unit(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Which columns have more than one value. A constant one is then asked about once per forest, not once per node.
fn varying(rows: &[f32], features: usize) -> Vec<bool> {
    let mut varying = vec![false; features];
    if let Some((first, rest)) = rows.split_at_checked(features) {
        for row in rest.chunks_exact(features) {
            for ((varying, value), first) in varying.iter_mut().zip(row).zip(first) {
                *varying |= value != first;
            }
        }
    }
    varying
}

/// The least and the greatest of some numbers.
fn extremes(values: &[f32]) -> (f32, f32) {
    // As many at a time as the compiler can keep in vector registers, since each comparison waits for the one before.
    const WIDTH: usize = 8;
    let least = |a: f32, b: f32| if b < a { b } else { a };
    let greatest = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = values.as_chunks::<WIDTH>();
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    if !chunks.is_empty() {
        let (mut lows, mut highs) = ([low; WIDTH], [high; WIDTH]);
        for chunk in chunks {
            for (lane, &value) in chunk.iter().enumerate() {
                lows[lane] = least(lows[lane], value);
                highs[lane] = greatest(highs[lane], value);
            }
        }
        low = lows.into_iter().fold(low, least);
        high = highs.into_iter().fold(high, greatest);
    }
    (rest.iter().copied().fold(low, least), rest.iter().copied().fold(high, greatest))
}

/// The greatest `f32` that is not above a number: for every `f32` x, `x <= number` and `x <= round_down(number)` are the
/// same.
fn round_down(number: f64) -> f32 {
    let nearest = number as f32;
    if f64::from(nearest) > number { nearest.next_down() } else { nearest }
}
