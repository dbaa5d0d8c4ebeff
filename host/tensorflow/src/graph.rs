//! Graphs of TensorFlow: from a result back to the inputs, calls of functions computed where they stand.

use std::collections::HashMap;
use std::rc::Rc;

use crate::bundle::Bundle;
use crate::constants::Constant;
use crate::network::{Network, Slot};
use crate::ops::{self, OPS};
use crate::proto::{Attribute, FunctionDef, GraphDef, NodeDef};
use crate::{names, tensors};
use shiftwise_graph::error::Error;

/// Functions that call functions, deeper than this, are refused.
const DEEPEST: usize = 64;

/// What a node yields.
#[derive(Clone, Debug)]
enum Held {
    Tensor(Slot),
    /// A variable, by its name.
    Variable(Rc<str>),
}

/// Nodes of a graph or of a function's body, with what has been computed.
struct Scope<'g> {
    nodes: &'g [NodeDef],
    by_name: HashMap<&'g str, usize>,
    /// Arguments of a function by name; inputs of a graph by the node's name.
    given: HashMap<String, Held>,
    done: HashMap<usize, Vec<Held>>,
}

impl<'g> Scope<'g> {
    fn new(nodes: &'g [NodeDef], given: HashMap<String, Held>) -> Self {
        let by_name = nodes.iter().enumerate().map(|(i, node)| (node.name.as_str(), i)).collect();
        Self { nodes, by_name, given, done: HashMap::new() }
    }

    /// What a reference names, if it is computed: `node`, `node:k`, or `node:result:k` in functions.
    fn get(&self, reference: &str) -> Option<Held> {
        let (name, port) = reference.split_once(':').map_or((reference, ""), |(name, port)| (name, port));
        if let Some(given) = self.given.get(name) {
            return Some(given.clone());
        }
        let node = *self.by_name.get(name)?;
        let results = self.done.get(&node)?;
        let (result, number) = port.rsplit_once(':').unwrap_or(("", port));
        let first = number.parse::<usize>().unwrap_or(0);
        // Statistics that a normalization yields beside its result.
        let beside = self.nodes[node].op.starts_with("FusedBatchNorm") && !matches!(result, "" | "y");
        Some(results.get(first).filter(|_| !beside).cloned().unwrap_or(Held::Tensor(Slot::Nothing)))
    }

    /// The node of a reference that is not computed yet.
    fn missing(&self, reference: &str) -> Result<Option<usize>, Error> {
        let name = reference.split(':').next().unwrap_or(reference);
        if self.given.contains_key(name) {
            return Ok(None);
        }
        let node = self.by_name.get(name).copied();
        let node =
            node.ok_or_else(|| Error::model(format!("the graph has no node `{name:.80}` that another reads")))?;
        Ok((!self.done.contains_key(&node)).then_some(node))
    }
}

/// References to tensors: those that begin with ^ only order nodes.
fn tensors_of(node: &NodeDef) -> impl Iterator<Item = &String> {
    node.inputs.iter().filter(|name| !name.starts_with('^'))
}

/// A graph that is read into a network.
pub(super) struct Graph<'g, 'n> {
    pub(super) network: Network<'n>,
    functions: HashMap<&'g str, &'g FunctionDef>,
    bundle: Option<&'g Bundle>,
    /// Names of variables that the bundle has others for.
    keys: HashMap<String, String>,
    variables: HashMap<Rc<str>, Constant>,
}

impl<'g, 'n> Graph<'g, 'n> {
    pub(super) fn new(
        graph: &'g GraphDef,
        network: Network<'n>,
        bundle: Option<&'g Bundle>,
        keys: HashMap<String, String>,
    ) -> Self {
        let functions = graph.library.iter().flat_map(|library| &library.functions);
        let name = |f: &'g FunctionDef| Some((f.signature.as_ref()?.name.as_str(), f));
        let functions = functions.filter_map(name).collect();
        Self { network, functions, bundle, keys, variables: HashMap::new() }
    }

    /// What references of the graph itself are, with its inputs given by the nodes' names.
    pub(super) fn results(
        &mut self,
        graph: &'g GraphDef,
        inputs: HashMap<String, Slot>,
        references: &[String],
    ) -> Result<Vec<Slot>, Error> {
        let given = inputs.into_iter().map(|(name, slot)| (name, Held::Tensor(slot))).collect();
        let mut scope = Scope::new(&graph.nodes, given);
        let results = self.compute(&mut scope, references, 0)?;
        let slot = |held| match held {
            Held::Tensor(slot) => slot,
            Held::Variable(_) => Slot::Nothing,
        };
        Ok(results.into_iter().map(slot).collect())
    }

    /// Computes what references name, and whatever they need.
    fn compute(&mut self, scope: &mut Scope<'g>, references: &[String], depth: usize) -> Result<Vec<Held>, Error> {
        let mut waiting = Vec::new();
        for reference in references {
            waiting.extend(scope.missing(reference)?);
        }
        // A node that is met again while its operands wait needs itself.
        let mut open = vec![false; scope.nodes.len()];
        while let Some(node) = waiting.last().copied() {
            let steps = 64 + scope.nodes[node].inputs.len() as u64;
            self.network.budget.work(steps).map_err(|e| Error::model(e.to_string()))?;
            if scope.done.contains_key(&node) {
                waiting.pop();
                continue;
            }
            let before = waiting.len();
            for reference in tensors_of(&scope.nodes[node]) {
                waiting.extend(scope.missing(reference)?);
            }
            if waiting.len() > before {
                if std::mem::replace(&mut open[node], true) {
                    let name = &scope.nodes[node].name;
                    return Err(Error::model(format!(
                        "the graph has a circle through `{name:.80}`: loops are not read"
                    )));
                }
                continue;
            }
            let inputs = tensors_of(&scope.nodes[node]).filter_map(|reference| scope.get(reference)).collect();
            let results = self.node(&scope.nodes[node], inputs, depth)?;
            scope.done.insert(node, results);
            waiting.pop();
        }
        let nothing = Held::Tensor(Slot::Nothing);
        Ok(references.iter().map(|reference| scope.get(reference).unwrap_or(nothing.clone())).collect())
    }

    /// Computes a node.
    fn node(&mut self, node: &'g NodeDef, inputs: Vec<Held>, depth: usize) -> Result<Vec<Held>, Error> {
        let short = || names::path(&node.name, &[]).last().copied().unwrap_or(&node.name).to_owned();
        let fail = |why: String| Error::layer(&short(), &node.op, why);
        let one = |slot| Ok(vec![Held::Tensor(slot)]);
        match node.op.as_str() {
            "Const" => one(self.constant(node).map_err(fail)?),
            "Placeholder" => one(Slot::Nothing),
            "VarHandleOp" | "VariableV2" | "Variable" => {
                let shared = match node.attributes.get("shared_name").and_then(|a| a.value.as_ref()) {
                    Some(Attribute::Text(text)) if !text.is_empty() => String::from_utf8_lossy(text).into_owned(),
                    _ => node.name.clone(),
                };
                let variable = Held::Variable(shared.as_str().into());
                // Before resources there were, a variable was its value.
                if node.op == "VarHandleOp" { Ok(vec![variable]) } else { self.read_variable(variable).map_err(fail) }
            }
            "ReadVariableOp" => {
                let variable = inputs.into_iter().next().ok_or_else(|| fail("it has no operand".into()))?;
                self.read_variable(variable).map_err(fail)
            }
            "Identity" | "IdentityN" => Ok(inputs),
            "PartitionedCall" | "StatefulPartitionedCall" => {
                let name = match node.attributes.get("f").and_then(|a| a.value.as_ref()) {
                    Some(Attribute::Function(function)) => function.name.as_str(),
                    _ => return Err(fail("it does not say which function it calls".into())),
                };
                let function = self.functions.get(name).copied();
                let function = function.ok_or_else(|| fail(format!("the file has no function `{name:.80}`")))?;
                self.call(function, inputs, depth)
            }
            other => match self.functions.get(other).copied() {
                Some(function) => self.call(function, inputs, depth),
                None => self.operation(node, inputs, &short()),
            },
        }
    }

    fn constant(&self, node: &NodeDef) -> Result<Slot, String> {
        match node.attributes.get("value").and_then(|a| a.value.as_ref()) {
            Some(Attribute::Tensor(proto)) => {
                let constant = tensors::of_proto(proto, self.network.budget)?;
                Ok(constant.map_or(Slot::Nothing, Slot::Constant))
            }
            _ => Err("it has no value".into()),
        }
    }

    fn read_variable(&mut self, variable: Held) -> Result<Vec<Held>, String> {
        let name = match variable {
            Held::Variable(name) => name,
            // The value of a variable that was frozen.
            Held::Tensor(slot) => return Ok(vec![Held::Tensor(slot)]),
        };
        if let Some(known) = self.variables.get(&name) {
            return Ok(vec![Held::Tensor(Slot::Constant(known.clone()))]);
        }
        let bundle = self.bundle.ok_or_else(|| format!("the file has no value of the variable `{name:.80}`"))?;
        let key = self.keys.get(&*name).map_or(&*name, String::as_str);
        let value = bundle.variable(key, self.network.budget)?;
        self.variables.insert(name, value.clone());
        Ok(vec![Held::Tensor(Slot::Constant(value))])
    }

    fn operation(&mut self, node: &NodeDef, inputs: Vec<Held>, short: &str) -> Result<Vec<Held>, Error> {
        let row = OPS.iter().find(|row| row.0 == node.op);
        let class = || format!("TensorFlow {:.60}", node.op);
        let row = row.ok_or_else(|| Error::UnsupportedLayer { layer: short.to_owned(), class: class() })?;
        let slot = |held| match held {
            Held::Tensor(slot) => slot,
            Held::Variable(_) => Slot::Nothing,
        };
        let inputs: Vec<Slot> = inputs.into_iter().map(slot).collect();
        let results = ops::read(row.1, &mut self.network, &ops::Operation { node, inputs });
        let results = results.map_err(|why| Error::layer(short, &node.op, why))?;
        Ok(results.into_iter().map(Held::Tensor).collect())
    }

    /// Computes a function of these arguments.
    fn call(&mut self, function: &'g FunctionDef, arguments: Vec<Held>, depth: usize) -> Result<Vec<Held>, Error> {
        let signature = function.signature.clone().unwrap_or_default();
        if depth >= DEEPEST {
            return Err(Error::model(format!("functions call each other deeper than {DEEPEST} times")));
        }
        if arguments.len() != signature.inputs.len() {
            let (name, count) = (&signature.name, signature.inputs.len());
            return Err(Error::model(format!("the function `{name:.80}` has {count} arguments, it is given others")));
        }
        let work = 64 * (function.nodes.len() as u64 + 1);
        self.network.budget.work(work).map_err(|e| Error::model(e.to_string()))?;
        let given = signature.inputs.iter().map(|arg| arg.name.clone()).zip(arguments).collect();
        let mut scope = Scope::new(&function.nodes, given);
        let reference = |out: &crate::proto::ArgDef| function.results.get(&out.name).cloned();
        let references: Option<Vec<String>> = signature.outputs.iter().map(reference).collect();
        let references = references.ok_or_else(|| Error::model("a function does not say what its result is"))?;
        self.compute(&mut scope, &references, depth + 1)
    }
}
