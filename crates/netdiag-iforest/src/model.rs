//! A forest's serialised form: small, readable, and safe to take from anyone.
//!
//! A tree is two lists in depth-first order: `nodes` has for each split its feature and for each leaf the number of its
//! training rows, negative; `thresholds` has the splits' thresholds. There are no child indices, so that none can be wrong:
//! left is what comes next, right what comes after that. That each tree accounts for exactly `max_samples` rows is a check
//! on the whole of it.
//!
//! Invariant: what is built here is linear in the size of the file, and nothing a file says can make it otherwise.

use serde::{Deserialize, Serialize};

use crate::error::InvalidModel;
use crate::forest::IsolationForest;
use crate::nodes::{MAX_FEATURES, MAX_ROWS_PER_TREE, Nodes, View, depth_limit};

/// [`IsolationForest`] as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    features: usize,
    max_samples: usize,
    offset: f64,
    trees: Vec<StoredTree>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredTree {
    /// A split's feature, or a leaf's rows, negative.
    nodes: Vec<i32>,
    thresholds: Vec<f32>,
}

impl Stored {
    pub(crate) fn of(forest: &IsolationForest) -> Self {
        Self {
            features: forest.features,
            max_samples: forest.max_samples as usize,
            offset: forest.offset,
            trees: forest.nodes.roots().map(|root| StoredTree::of(&forest.nodes, root)).collect(),
        }
    }

    pub(crate) fn into_forest(self) -> Result<IsolationForest, InvalidModel> {
        let Stored { features, max_samples, offset, trees } = self;
        if !(1..=MAX_FEATURES).contains(&features) {
            return Err(InvalidModel::Features(features));
        }
        if !(2..=MAX_ROWS_PER_TREE).contains(&max_samples) {
            return Err(InvalidModel::MaxSamples(max_samples));
        }
        if !(-1.0..=0.0).contains(&offset) {
            return Err(InvalidModel::Offset(offset));
        }
        if trees.is_empty() {
            return Err(InvalidModel::NoTrees);
        }
        let max_samples = max_samples as u32;
        let mut nodes = Nodes::default();
        for (index, tree) in trees.iter().enumerate() {
            tree.check(features, max_samples).map_err(|(node, problem)| InvalidModel::Tree {
                tree: index,
                node,
                problem,
            })?;
            tree.plant(&mut nodes);
        }
        Ok(IsolationForest { nodes, features, max_samples, offset })
    }
}

impl StoredTree {
    fn of(nodes: &Nodes, root: usize) -> Self {
        let mut tree = Self { nodes: Vec::new(), thresholds: Vec::new() };
        let mut waiting = vec![root];
        while let Some(node) = waiting.pop() {
            match nodes.view(node) {
                View::Split { feature, threshold, left } => {
                    tree.nodes.push(feature as i32);
                    tree.thresholds.push(threshold);
                    waiting.extend([left + 1, left]);
                }
                View::Leaf { rows } => tree.nodes.push(-(rows as i32)),
            }
        }
        tree
    }

    /// Whether this is one tree for rows of so many features, or the first node that says otherwise.
    fn check(&self, features: usize, max_samples: u32) -> Result<(), (usize, &'static str)> {
        let limit = depth_limit(max_samples);
        let mut thresholds = self.thresholds.iter();
        let mut rows = 0_u64;
        // The depths of the nodes still to come, the next one last. Never more than the tree is deep.
        let mut expected = vec![0];
        for (index, &node) in self.nodes.iter().enumerate() {
            let depth = expected.pop().ok_or((index, "nodes are left over after the last leaf"))?;
            let problem = match usize::try_from(node) {
                Err(_) => {
                    rows += u64::from(node.unsigned_abs());
                    continue;
                }
                Ok(feature) if feature >= features => "its feature is not among those of a row",
                Ok(_) if depth == limit => "it splits where max_samples allows leaves only",
                Ok(_) => match thresholds.next() {
                    Some(threshold) if threshold.is_finite() => {
                        expected.extend([depth + 1, depth + 1]);
                        continue;
                    }
                    Some(_) => "its threshold is not finite",
                    None => "it has no threshold",
                },
            };
            return Err((index, problem));
        }
        let end = self.nodes.len();
        match thresholds.len() {
            _ if !expected.is_empty() => Err((end, "the tree ends before its last leaf")),
            0 if rows == u64::from(max_samples) => Ok(()),
            0 => Err((end, "the rows of all leaves do not add up to max_samples")),
            _ => Err((end, "thresholds are left over")),
        }
    }

    /// Adds this tree, which has been checked, in breadth-first order.
    fn plant(&self, nodes: &mut Nodes) {
        let ends = self.ends();
        let root = nodes.plant();
        // (place here, thresholds before it, depth), in the order of places there.
        let mut places = vec![(0_usize, 0_usize, 0_u32)];
        let mut next = 0;
        while let Some(&(place, before, depth)) = places.get(next) {
            let node = root + next;
            match usize::try_from(self.nodes[place]) {
                Ok(feature) => {
                    nodes.split(node, depth, feature, self.thresholds[before]);
                    let left = place + 1;
                    let right = ends[left];
                    // A subtree has one split less than leaves.
                    let splits = (right - left) / 2;
                    places.push((left, before + 1, depth + 1));
                    places.push((right, before + 1 + splits, depth + 1));
                }
                Err(_) => nodes.settle(node, depth, self.nodes[place].unsigned_abs()),
            }
            next += 1;
        }
    }

    /// Where each node's subtree ends.
    fn ends(&self) -> Vec<usize> {
        let mut ends = vec![0; self.nodes.len()];
        for (index, &node) in self.nodes.iter().enumerate().rev() {
            ends[index] = if node < 0 { index + 1 } else { ends[ends[index + 1]] };
        }
        ends
    }
}

#[cfg(test)]
mod tests;
