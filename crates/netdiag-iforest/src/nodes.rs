//! All trees of a forest in one flat array, eight bytes a node, and the walks of rows down to their leaves.
//!
//! A walk is a chain of dependent loads, so eight are taken in step: eight rows through one tree in a batch, eight trees for
//! a single row. None of them asks whether it has arrived, a branch that no processor can predict; a leaf leads to itself
//! instead, and every walk takes as many steps as its tree is deep. Nodes are in breadth-first order, so that the splits
//! that every row meets share cache lines.
//!
//! Invariant: a node leads to itself or to two neighbours further on in its tree, so that every walk ends at a leaf of the
//! tree it began in.

/// Bits of a node for its feature, beside those for the way to its children.
const FEATURE_BITS: u32 = 12;
/// Most features of a row: what [`FEATURE_BITS`] can name.
pub(crate) const MAX_FEATURES: usize = 1 << FEATURE_BITS;
/// Most rows a tree is grown from: it has twice as many nodes less one, and the way to a child must fit into the rest.
pub(crate) const MAX_ROWS_PER_TREE: usize = 1 << (31 - FEATURE_BITS);

/// Walks in step. Fewer wait for loads, more do not fit into registers.
const LANES: usize = 8;
/// Rows of a batch that go through all trees before the next ones: with one tree they stay in the first-level cache.
const BLOCK: usize = 64 * LANES;

/// A split, or a leaf.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    /// Values up to here go left. At a leaf infinite, so that everything does.
    threshold: f32,
    /// The feature, and above it how many nodes further on the left child is; the right one comes next. 0 at a leaf.
    way: u32,
}

impl Node {
    const LEAF: Node = Node { threshold: f32::INFINITY, way: 0 };

    fn feature(self) -> usize {
        self.way as usize % MAX_FEATURES
    }

    fn left(self) -> usize {
        (self.way >> FEATURE_BITS) as usize
    }
}

/// A tree's place in the array.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tree {
    root: usize,
    /// Splits on the longest way.
    depth: u32,
}

/// The trees.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    /// For each node that is a leaf the path length that a row gets there; apart, because only the last step asks.
    paths: Vec<f64>,
    /// For each node that is a leaf the training rows in it.
    leaf_rows: Vec<u32>,
    trees: Vec<Tree>,
}

/// A node as its builders and readers see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum View {
    Split { feature: usize, threshold: f32, left: usize },
    Leaf { rows: u32 },
}

impl Nodes {
    /// Starts a tree, and returns its root.
    pub(crate) fn plant(&mut self) -> usize {
        let root = self.push_leaf();
        self.trees.push(Tree { root, depth: 0 });
        root
    }

    /// Turns a leaf of the newest tree, `depth` splits from its root, into a split and returns its left child. The right
    /// one comes next.
    pub(crate) fn split(
        &mut self,
        node: usize,
        depth: u32,
        feature: usize,
        threshold: f32,
    ) -> usize {
        let left = self.push_leaf();
        self.push_leaf();
        let way = ((left - node) as u32) << FEATURE_BITS | feature as u32;
        self.nodes[node] = Node { threshold, way };
        if let Some(tree) = self.trees.last_mut() {
            tree.depth = tree.depth.max(depth + 1);
        }
        left
    }

    /// Settles that a node `depth` splits from its root is a leaf with so many training rows.
    pub(crate) fn settle(&mut self, node: usize, depth: u32, rows: u32) {
        self.paths[node] = f64::from(depth) + average_path_length(rows);
        self.leaf_rows[node] = rows;
    }

    fn push_leaf(&mut self) -> usize {
        self.nodes.push(Node::LEAF);
        self.paths.push(0.0);
        self.leaf_rows.push(0);
        self.nodes.len() - 1
    }

    /// The number of trees.
    pub(crate) fn trees(&self) -> usize {
        self.trees.len()
    }

    /// The number of nodes.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The roots of all trees.
    pub(crate) fn roots(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.trees.iter().map(|tree| tree.root)
    }

    /// What a node is.
    pub(crate) fn view(&self, node: usize) -> View {
        let Node { threshold, .. } = self.nodes[node];
        match (self.nodes[node].feature(), self.nodes[node].left()) {
            (_, 0) => View::Leaf { rows: self.leaf_rows[node] },
            (feature, left) => View::Split { feature, threshold, left: node + left },
        }
    }

    /// The path length of a row, summed over all trees.
    pub(crate) fn path_length(&self, row: &[f32]) -> f64 {
        let mut sum = 0.0;
        let (groups, rest) = self.trees.as_chunks::<LANES>();
        for group in groups {
            let mut at = group.map(|tree| tree.root);
            let depth = group.iter().map(|tree| tree.depth).max().unwrap_or(0);
            for _ in 0..depth {
                for at in &mut at {
                    *at = self.step(*at, row);
                }
            }
            // In the order of the trees, as a batch adds them, so that both come to the same bits.
            for at in at {
                sum += self.paths[at];
            }
        }
        for tree in rest {
            let arrived = (0..tree.depth).fold(tree.root, |at, _| self.step(at, row));
            sum += self.paths[arrived];
        }
        sum
    }

    /// The path lengths of many rows, each summed over all trees.
    pub(crate) fn path_lengths(&self, rows: &[f32], features: usize) -> Vec<f64> {
        let mut sums = Vec::with_capacity(rows.len() / features);
        let mut block = vec![0.0; BLOCK * features];
        let mut block_sums = [[0.0; LANES]; BLOCK / LANES];
        for rows in rows.chunks(BLOCK * features) {
            let count = rows.len() / features;
            let lanes = count.div_ceil(LANES);
            interleave(rows, features, &mut block);
            let sums_here = &mut block_sums[..lanes];
            sums_here.fill([0.0; LANES]);
            for tree in &self.trees {
                let top = Top::of(&self.nodes[tree.root..]);
                for (rows, sums) in block.chunks_exact(LANES * features).zip(sums_here.iter_mut()) {
                    self.descend(tree, &top, rows, sums);
                }
            }
            sums.extend_from_slice(&sums_here.as_flattened()[..count]);
        }
        sums
    }

    /// Eight rows, feature by feature, through one tree.
    #[inline]
    fn descend(&self, tree: &Tree, top: &Top, rows: &[f32], sums: &mut [f64; LANES]) {
        let (values, _) = rows.as_chunks::<LANES>();
        let nodes = &self.nodes[tree.root..];
        let mut at = top.descend(values);
        for _ in Top::DEPTH..tree.depth {
            for (lane, at) in at.iter_mut().enumerate() {
                let node = nodes[*at as usize];
                let goes_right = values[node.feature()][lane] > node.threshold;
                *at += node.left() as u32 + u32::from(goes_right);
            }
        }
        for (sum, at) in sums.iter_mut().zip(at) {
            *sum += self.paths[tree.root + at as usize];
        }
    }

    #[inline(always)]
    fn step(&self, at: usize, row: &[f32]) -> usize {
        let node = self.nodes[at];
        at + node.left() + usize::from(row[node.feature()] > node.threshold)
    }
}

/// The first two levels of a tree. All rows meet these three splits, so here no row looks up its own: each split is compared
/// with several rows by one instruction. A third level would take as many comparisons again for one step saved.
struct Top {
    root: Node,
    left: Node,
    right: Node,
    /// The four nodes below, from left to right, counted from the root. At a leaf the left one is the leaf itself and the
    /// right one is never reached.
    below: [u32; 4],
}

impl Top {
    const DEPTH: u32 = 2;

    /// Of the tree that these nodes begin with.
    fn of(nodes: &[Node]) -> Self {
        let root = nodes[0];
        let (left_at, right_at) = (root.left(), root.left() + 1);
        // Of a tree that is one leaf there is no right child, and nothing goes there.
        let node = |at: usize| nodes.get(at).copied().unwrap_or(Node::LEAF);
        let (left, right) = (node(left_at), node(right_at));
        let (under_left, under_right) = (left_at + left.left(), right_at + right.left());
        let below = [under_left, under_left + 1, under_right, under_right + 1];
        Self { root, left, right, below: below.map(|at| at as u32) }
    }

    /// Where eight rows, feature by feature, are after two steps, counted from the root.
    #[inline(always)]
    fn descend(&self, values: &[[f32; LANES]]) -> [u32; LANES] {
        let Self { root, left, right, below } = self;
        let at_root = &values[root.feature()];
        let (at_left, at_right) = (&values[left.feature()], &values[right.feature()]);
        std::array::from_fn(|lane| {
            let on_left = if at_left[lane] > left.threshold { below[1] } else { below[0] };
            let on_right = if at_right[lane] > right.threshold { below[3] } else { below[2] };
            if at_root[lane] > root.threshold { on_right } else { on_left }
        })
    }
}

/// Rows in groups of eight, feature by feature within a group. What is left over in the last group stays as it was.
fn interleave(rows: &[f32], features: usize, block: &mut [f32]) {
    let groups = rows.chunks(LANES * features).zip(block.chunks_exact_mut(LANES * features));
    for (rows, group) in groups {
        for (lane, row) in rows.chunks_exact(features).enumerate() {
            for (value, place) in row.iter().zip(group[lane..].iter_mut().step_by(LANES)) {
                *place = *value;
            }
        }
    }
}

/// c(n): what an unsuccessful search in a binary search tree of n rows takes on average, which is how many splits more a
/// leaf with n rows would have needed (Liu et al. 2008, equation 1, and `_average_path_length` in scikit-learn).
pub(crate) fn average_path_length(rows: u32) -> f64 {
    const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;
    match rows {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => {
            let n = f64::from(rows);
            2.0 * ((n - 1.0).ln() + EULER_GAMMA) - 2.0 * (n - 1.0) / n
        }
    }
}

/// The score of a row: -2^(-E(h)/c(ψ)), from -1 (isolated at once) to 0 (Liu et al. 2008, equation 2, with
/// scikit-learn's sign).
pub(crate) fn score(path_length: f64, trees: usize, rows_per_tree: u32) -> f64 {
    let average = trees as f64 * average_path_length(rows_per_tree);
    -(-path_length / average).exp2()
}

/// The deepest that a tree of so many rows may be: ⌈log₂ n⌉, the average depth of a balanced one, since only rows that
/// are isolated sooner matter (Liu et al. 2008, section 4.1).
pub(crate) fn depth_limit(rows: u32) -> u32 {
    rows.max(2).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_those_of_the_paper() {
        let check = |rows, expected: f64| {
            let length = average_path_length(rows);
            assert!((length - expected).abs() < 1e-12, "c({rows}) = {length}");
        };
        check(1, 0.0);
        check(2, 1.0);
        // `_average_path_length` of scikit-learn.
        check(3, 1.207_392_357_589_623);
        check(256, 10.244_770_920_119_917);
        check(1000, 12.969_940_887_100_174);
        assert_eq!([1, 2, 3, 4, 5, 256, 257].map(depth_limit), [1, 1, 2, 2, 3, 8, 9]);
    }

    #[test]
    fn a_node_has_room_for_the_largest_tree() {
        // The root's children stand next to it, the last split's just before the end of 2n - 1 nodes.
        let furthest = 2 * MAX_ROWS_PER_TREE as u32 - 1;
        let node =
            Node { threshold: 0.0, way: furthest << FEATURE_BITS | (MAX_FEATURES as u32 - 1) };
        assert_eq!((node.left(), node.feature()), (furthest as usize, MAX_FEATURES - 1));
        assert_eq!(size_of::<Node>(), 8);
    }
}
