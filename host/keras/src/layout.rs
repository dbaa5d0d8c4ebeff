//! Cancels the permutations that stand around layers over channels that come first.
//!
//! Layers that work on elements are computed in either layout, so a permutation in front of one goes behind it, until it
//! meets its inverse. What remains stands at the model's ends, and where the file itself looks at the layout.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::expand::inverse;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{ActivationFn, Concatenate, Dense, Op, Operand, PRelu, Permute, Reshape};
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

/// A value as another one permuted: axis i of it is axis `order[i]` of the other.
type Turned = (NodeId, Vec<usize>);

struct Layout<'a> {
    graph: &'a mut Graph,
    turned: HashMap<NodeId, Turned>,
    /// Nodes by what they permute, and how.
    made: BTreeMap<Turned, NodeId>,
    /// Permutations that may go.
    free: BTreeSet<NodeId>,
    /// What is read instead of a node.
    instead: HashMap<NodeId, NodeId>,
    names: HashSet<String>,
}

/// Cancels what it can of these permutations; the other nodes keep their names and stay in order of their making.
pub fn cancel(graph: &mut Graph, permutations: &BTreeSet<NodeId>) -> Result<(), Error> {
    if permutations.is_empty() {
        return Ok(());
    }
    let names = graph.nodes.iter().map(|n| n.name.clone()).collect();
    let mut layout = Layout {
        graph,
        turned: HashMap::new(),
        made: BTreeMap::new(),
        free: permutations.clone(),
        instead: HashMap::new(),
        names,
    };
    // Nodes stand behind what they read, and read what has been put in its place; those that are added meanwhile are dealt with when they are.
    for id in layout.graph.ids().collect::<Vec<_>>() {
        let instead = &layout.instead;
        layout.graph.node_mut(id).inputs.iter_mut().for_each(|i| *i = *instead.get(i).unwrap_or(i));
        if layout.free.contains(&id) {
            layout.compose(id);
        } else {
            layout.move_behind(id)?;
        }
    }
    let instead = &layout.instead;
    layout.graph.outputs.iter_mut().for_each(|o| *o = *instead.get(o).unwrap_or(o));
    layout.flattened();
    layout.views();
    Ok(())
}

impl Layout<'_> {
    /// A permutation of a permuted value permutes the value itself, or is nothing.
    fn compose(&mut self, id: NodeId) {
        let Op::Permute(Permute { dims }) = &self.graph.node(id).op else { return };
        let input = self.graph.node(id).inputs[0];
        let (from, order) = match self.turned.get(&input) {
            Some((from, first)) => (*from, dims.iter().map(|i| first[*i]).collect()),
            None => (input, dims.clone()),
        };
        if order.iter().copied().eq(0..order.len()) {
            self.instead.insert(id, from);
            return;
        }
        if let Some(other) = self.made.get(&(from, order.clone())) {
            self.instead.insert(id, *other);
            return;
        }
        let node = self.graph.node_mut(id);
        (node.op, node.inputs) = (Op::Permute(Permute { dims: order.clone() }), vec![from]);
        self.made.insert((from, order.clone()), id);
        self.turned.insert(id, (from, order));
    }

    /// A permuted value, in a node of its own if there is none yet.
    fn permuted(&mut self, from: NodeId, order: Vec<usize>, near: NodeId) -> Result<NodeId, Error> {
        if let Some(known) = self.made.get(&(from, order.clone())) {
            return Ok(*known);
        }
        let node = self.graph.node(near);
        let (name, origin) = (format!("{}_permute", node.name), node.origin.clone());
        let free = |name: &String| !self.names.contains(name);
        let name = std::iter::once(name.clone()).chain((1..).map(|n| format!("{name}_{n}"))).find(free);
        self.names.extend(name.clone());
        let op = Op::Permute(Permute { dims: order.clone() });
        let id = self.graph.add(name.unwrap_or_default(), op, vec![from], origin)?;
        self.made.insert((from, order.clone()), id);
        self.free.insert(id);
        self.turned.insert(id, (from, order));
        Ok(id)
    }

    /// Lets a layer that works on elements read values before their permutation, which then stands behind the layer.
    fn move_behind(&mut self, id: NodeId) -> Result<(), Error> {
        let node = self.graph.node(id);
        let Some(order) = node.inputs.iter().find_map(|i| self.turned.get(i)).map(|(_, order)| order.clone()) else {
            return Ok(());
        };
        let rank = order.len();
        let alike = |i: &NodeId| match self.turned.get(i) {
            Some((_, own)) => *own == order,
            None => self.graph.node(*i).shape.len() == rank,
        };
        if node.shape.len() != rank || !node.inputs.iter().all(alike) {
            return Ok(());
        }
        let Some((op, changed)) = turned_op(&node.op, &order) else { return Ok(()) };
        // A layer that is applied several times has one form.
        if changed && node.shared.is_some() {
            return Ok(());
        }
        let mut inputs = node.inputs.clone();
        for input in &mut inputs {
            *input = match self.turned.get(input) {
                Some((from, _)) => *from,
                None => self.permuted(*input, inverse(&order), *input)?,
            };
        }
        let back = inverse(&order);
        let node = self.graph.node_mut(id);
        node.shape = back.iter().map(|i| node.shape[*i]).collect();
        (node.op, node.inputs) = (op, inputs);
        let behind = self.permuted(id, order, id)?;
        self.instead.insert(id, behind);
        Ok(())
    }

    /// A dense layer over a permuted map that is flattened takes the map as it is, with its weights in that order.
    fn flattened(&mut self) {
        let readers = self.graph.consumers();
        for id in self.graph.ids().collect::<Vec<_>>() {
            let node = self.graph.node(id);
            let (Op::Flatten(_), [input]) = (&node.op, &node.inputs[..]) else { continue };
            let Some((from, order)) = self.turned.get(input).cloned() else { continue };
            let Some(dense) = self.dense_readers(id, &readers).filter(|all| !all.is_empty()) else { continue };
            let sizes = self.graph.node(from).shape.clone();
            for reader in dense {
                if let Op::Dense(Dense { w }) = &mut self.graph.node_mut(reader).op {
                    w.kernel = rows_in_order(&w.kernel, &sizes, &order);
                }
            }
            self.graph.node_mut(id).inputs = vec![from];
        }
    }

    /// The dense layers that alone read a vector, perhaps behind dropout; `None` if something else does.
    fn dense_readers(&self, id: NodeId, readers: &[Vec<NodeId>]) -> Option<Vec<NodeId>> {
        if self.graph.outputs.contains(&id) || self.graph.node(id).shared.is_some() {
            return None;
        }
        let mut all = Vec::new();
        for reader in &readers[id.0] {
            match &self.graph.node(*reader).op {
                Op::Dense(_) if self.graph.node(*reader).shared.is_none() => all.push(*reader),
                Op::Dropout(_) => all.extend(self.dense_readers(*reader, readers)?),
                _ => return None,
            }
        }
        Some(all)
    }

    /// A permutation that only moves axes of one element is a view.
    fn views(&mut self) {
        for id in self.free.clone() {
            let node = self.graph.node(id);
            let (Op::Permute(Permute { dims }), [input]) = (&node.op, &node.inputs[..]) else { continue };
            let sizes = &self.graph.node(*input).shape;
            let long: Vec<usize> = dims.iter().copied().filter(|d| sizes[*d] != 1).collect();
            if long.is_sorted() {
                let target = node.shape.iter().map(|d| *d as i64).collect();
                self.graph.node_mut(id).op = Op::Reshape(Reshape { target });
            }
        }
    }
}

/// Rows of a kernel over the elements of a map of this shape, where they stood for those of the map permuted.
pub fn rows_in_order(kernel: &Tensor, sizes: &[usize], order: &[usize]) -> Tensor {
    let columns = kernel.shape()[1];
    let step = |axis: usize| sizes[axis + 1..].iter().product::<usize>();
    // For each row of the old kernel the element of the map that it stands for.
    let rows = order.iter().fold(vec![0usize], |all, axis| {
        all.iter().flat_map(|base| (0..sizes[*axis]).map(move |k| base + k * step(*axis))).collect()
    });
    let mut out = Tensor::zeros(kernel.shape());
    for (row, to) in kernel.data().chunks_exact(columns.max(1)).zip(rows) {
        out.data_mut()[to * columns..(to + 1) * columns].copy_from_slice(row);
    }
    out
}

/// The op of a layer on elements for operands before the permutation `order`, and whether it is another one; `None` for
/// a layer that the layout matters to.
fn turned_op(op: &Op, order: &[usize]) -> Option<(Op, bool)> {
    match op {
        Op::Activation(a) if matches!(a.function, ActivationFn::Softmax | ActivationFn::LogSoftmax) => None,
        Op::Relu(_)
        | Op::LeakyRelu(_)
        | Op::Elu(_)
        | Op::Activation(_)
        | Op::HardSigmoid(_)
        | Op::Dropout(_)
        | Op::Add(_)
        | Op::Multiply(_)
        | Op::Merge(_)
        | Op::ScaledAdd(_) => Some((op.clone(), false)),
        Op::Rescaling(r) if r.scale.len() == 1 && r.offset.len() == 1 => Some((op.clone(), false)),
        Op::Concatenate(c) => Some((Op::Concatenate(Concatenate { axis: *order.get(c.axis)? }), true)),
        Op::PRelu(p) => {
            let alpha = array::transpose(&p.alpha, &inverse(order));
            let shared_axes = p.shared_axes.iter().map(|axis| order[axis - 1] + 1).collect();
            Some((Op::PRelu(PRelu { alpha, shared_axes }), true))
        }
        Op::TfOp(f) if f.is_elementwise() => {
            // A constant of several elements stands for some axis.
            let single = |o: &Operand| !matches!(o, Operand::Constant(t) if t.data().len() != 1);
            f.operands.iter().all(single).then(|| (op.clone(), false))
        }
        _ => None,
    }
}
