//! The quantizers of one layer, from its entry in a strategy or a file, and that entry again.

use serde_json::{Map, Value, json};

use crate::role;
use crate::role::{Role, Variable};
use crate::scheme::{Quantizer, Spelling};
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Node;
use shiftwise_graph::ops::Op;

/// What a layer's activation attribute does about quantization.
#[derive(Clone, Debug, PartialEq)]
pub enum ActivationQuant {
    /// The layer has no such attribute, or its entry has no quantizer for it.
    Absent,
    /// Deliberately not quantized here: the activation layer that follows carries the quantizer.
    Deferred,
    /// Before the function, whose result stays float.
    Before(Quantizer),
    /// After the function.
    After(Quantizer),
}

impl ActivationQuant {
    /// The quantizer, wherever it sits.
    pub fn quantizer(&self) -> Option<&Quantizer> {
        match self {
            Self::Before(own) | Self::After(own) => Some(own),
            Self::Absent | Self::Deferred => None,
        }
    }

    /// [`ActivationQuant::quantizer`], writable.
    pub fn quantizer_mut(&mut self) -> Option<&mut Quantizer> {
        match self {
            Self::Before(own) | Self::After(own) => Some(own),
            Self::Absent | Self::Deferred => None,
        }
    }
}

/// The quantizers of one wrapped layer, or of a Quantize node (then only `output`).
#[derive(Clone, Debug)]
pub struct LayerQuant {
    /// How the layer is wrapped. A Quantize node isn't, which is [`Wrapping::Bare`] too.
    pub wrapping: Wrapping,
    /// What every input goes through, as this layer alone reads it.
    pub input: Option<Quantizer>,
    /// Per weight, in the order of [`Layer::weights`](shiftwise_graph::ops::Layer::weights).
    pub weights: Vec<Option<Quantizer>>,
    /// Activation attribute.
    pub activation: ActivationQuant,
    /// Layer output.
    pub output: Option<Quantizer>,
    /// Training steps that files keep of a convolution that was one layer with its normalization; of others −1.
    pub steps: i32,
}

impl LayerQuant {
    /// The quantizer of the layer's result, wherever it sits: before or after the activation, or at the output.
    pub fn result(&self) -> Option<&Quantizer> {
        self.output.as_ref().or(self.activation.quantizer())
    }

    /// Whether the layer is wrapped by the vendor's class that quantizes inputs.
    pub fn reads(&self) -> bool {
        self.input.is_some()
    }

    /// Every quantizer that works.
    pub fn all(&self) -> impl Iterator<Item = &Quantizer> {
        let weights = self.weights.iter().flatten();
        self.input.iter().chain(weights).chain(self.activation.quantizer()).chain(&self.output)
    }

    /// [`LayerQuant::result`], writable.
    pub fn result_mut(&mut self) -> Option<&mut Quantizer> {
        self.output.as_mut().or(self.activation.quantizer_mut())
    }
}

/// How a layer is wrapped in the quantized model.
#[derive(Clone, Debug)]
pub enum Wrapping {
    /// Without any quantizer, such as an Add before its ReLU: the vendor's NoQuantizeConfig. Its result is quantized
    /// by the layer behind it.
    Bare,
    /// By an entry, with these of its items in their order.
    Entry(Vec<Item>),
}

/// What a layer's entry says of one tensor.
#[derive(Clone, Debug)]
pub struct Item {
    /// Which of the entry's lists it is in.
    pub role: Role,
    /// What is quantized.
    pub name: Name,
    /// How the entry spells the quantizer.
    pub spelling: Spelling,
    /// Where the quantizer came to sit.
    pub seat: Seat,
}

/// What an entry calls a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A weight or the attribute of an activation.
    Text(String),
    /// The number of an output.
    Index(u64),
}

impl Name {
    fn of(value: &Value) -> Option<Self> {
        value.as_str().map(|text| Self::Text(text.to_owned())).or(value.as_u64().map(Self::Index))
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Index(index) => json!(index),
        }
    }
}

/// Where an item's quantizer is kept.
#[derive(Clone, Debug)]
pub enum Seat {
    /// In [`LayerQuant::input`].
    Input,
    /// In [`LayerQuant::weights`], at this index.
    Weight(usize),
    /// In [`LayerQuant::activation`].
    Activation,
    /// In [`LayerQuant::output`].
    Output,
    /// Here: the layer has no such tensor, or leaves its quantization to the layer behind it. Nothing but the file
    /// shows it.
    Aside(Box<Quantizer>),
}

/// Where the result of a layer's activation attribute is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationPlace {
    /// At the layer, if its entry says so.
    Here,
    /// At the layer behind it.
    Behind,
    /// Nowhere: the layer isn't asked.
    Nowhere,
}

impl LayerQuant {
    /// Wrapped without quantizers.
    pub fn bare() -> Self {
        Self {
            wrapping: Wrapping::Bare,
            input: None,
            weights: Vec::new(),
            activation: ActivationQuant::Absent,
            output: None,
            steps: -1,
        }
    }

    /// The quantizers of a layer from its strategy entry.
    ///
    /// Errors: lists of different lengths; a quantizer that this version doesn't have.
    pub fn from_entry(op: &Op, entry: &Map<String, Value>, activation: ActivationPlace) -> Result<Self, Error> {
        let mut own = Self { weights: vec![None; op.layer().weights().len()], ..Self::bare() };
        let mut items = Vec::new();
        for row in role::lists() {
            let list = |key: &str| entry.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let (names, quantizers) = (list(row.names), list(row.quantizers));
            let lengths = (names.len(), quantizers.len());
            if lengths.0 != lengths.1 {
                return Err(Error::Options(row.lengths_differ(lengths)));
            }
            for (name, quantizer) in names.iter().zip(quantizers) {
                let bad = || Error::Options(format!("{} has {name}, a name or a number is expected", row.names));
                let name = Name::of(name).ok_or_else(bad)?;
                let spelling = Spelling::of(quantizer);
                let quantizer = Quantizer::from_entry(quantizer)?;
                let seat = own.seat(op, row.role, &name, quantizer, activation);
                items.push(Item { role: row.role, name, spelling, seat });
            }
        }
        own.wrapping = Wrapping::Entry(items);
        Ok(own)
    }

    /// Takes in an item's quantizer, where the layer has a tensor for it that has none yet.
    fn seat(&mut self, op: &Op, role: Role, name: &Name, own: Quantizer, activation: ActivationPlace) -> Seat {
        match role {
            // The first of an entry serves all inputs, as in the vendor's tool.
            Role::Input if self.input.is_none() => {
                self.input = Some(own);
                return Seat::Input;
            }
            Role::Weight | Role::Bias => {
                let named = |(weight, _): &(&str, _)| matches!(name, Name::Text(text) if text == weight);
                let index = op.layer().weights().iter().position(named);
                if let Some((index, free @ None)) = index.and_then(|k| Some((k, self.weights.get_mut(k)?))) {
                    *free = Some(own);
                    return Seat::Weight(index);
                }
            }
            Role::PreActivation | Role::PostActivation if self.activation == ActivationQuant::Absent => {
                match activation {
                    ActivationPlace::Here => {
                        self.activation = match op.layer().activation().quantized_before() {
                            true => ActivationQuant::Before(own),
                            false => ActivationQuant::After(own),
                        };
                        return Seat::Activation;
                    }
                    ActivationPlace::Behind => self.activation = ActivationQuant::Deferred,
                    ActivationPlace::Nowhere => {}
                }
            }
            Role::Output if self.output.is_none() => {
                self.output = Some(own);
                return Seat::Output;
            }
            Role::Input | Role::PreActivation | Role::PostActivation | Role::Output => {}
        }
        Seat::Aside(Box::new(own))
    }

    /// The entry of the layer, as it goes into the quantized model: all lists, in the vendor's order; `None` if it is
    /// wrapped bare.
    pub fn to_entry(&self) -> Option<Map<String, Value>> {
        let Wrapping::Entry(items) = &self.wrapping else { return None };
        let mut entry = Map::new();
        for row in role::lists() {
            let own: Vec<&Item> = items.iter().filter(|item| item.role == row.role).collect();
            entry.insert(row.names.into(), own.iter().map(|item| item.name.json()).collect());
            let quantizers = own.iter().filter_map(|item| Some(self.seated(item)?.to_entry(&item.spelling)));
            entry.insert(row.quantizers.into(), quantizers.collect());
        }
        Some(entry)
    }

    /// The quantizer of an item.
    fn seated<'a>(&'a self, item: &'a Item) -> Option<&'a Quantizer> {
        match &item.seat {
            Seat::Input => self.input.as_ref(),
            Seat::Weight(index) => self.weights.get(*index)?.as_ref(),
            Seat::Activation => self.activation.quantizer(),
            Seat::Output => self.output.as_ref(),
            Seat::Aside(own) => Some(own),
        }
    }

    /// The quantizers that work, each with its role and the first part of its variables' names, in the vendor's order.
    /// `node` is the layer.
    pub fn quantizers<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = (Role, &'a str, &'a Quantizer)> {
        let roles = self.roles(node);
        let working =
            self.weights.iter().map(Option::as_ref).chain([self.activation.quantizer(), self.output.as_ref()]);
        roles.into_iter().zip(working).filter_map(|((role, variable), own)| Some((role, variable, own?)))
    }

    /// [`LayerQuant::quantizers`], writable.
    pub fn quantizers_mut<'a>(
        &'a mut self,
        node: &'a Node,
    ) -> impl Iterator<Item = (Role, &'a str, &'a mut Quantizer)> {
        let roles = self.roles(node);
        let rest = [self.activation.quantizer_mut(), self.output.as_mut()];
        let working = self.weights.iter_mut().map(Option::as_mut).chain(rest);
        roles.into_iter().zip(working).filter_map(|((role, variable), own)| Some((role, variable, own?)))
    }

    /// Role and variable of every place for a quantizer: the weights, the activation, the output.
    fn roles<'a>(&self, node: &'a Node) -> Vec<(Role, &'a str)> {
        let of_weight = |k: usize| match &self.wrapping {
            Wrapping::Entry(items) if items.iter().any(|i| i.role == Role::Bias && i.seat.is_weight(k)) => Role::Bias,
            Wrapping::Entry(_) | Wrapping::Bare => Role::Weight,
        };
        let activation = match &self.activation {
            ActivationQuant::Before(_) => Role::PreActivation,
            ActivationQuant::After(_) | ActivationQuant::Absent | ActivationQuant::Deferred => Role::PostActivation,
        };
        // A Quantize node quantizes what enters other layers.
        let output = if matches!(node.op, Op::Quantize(_)) { Role::Input } else { Role::Output };
        let names = node.op.layer().weights().into_iter().map(|(name, _)| name);
        let weights = names.take(self.weights.len()).enumerate().map(|(k, name)| (of_weight(k), name));
        let variable = |role: Role| match role.row().variable {
            Variable::Named(name) => (role, name),
            Variable::Layer | Variable::Weight => (role, node.name.as_str()),
        };
        weights.chain([variable(activation), variable(output)]).collect()
    }

    /// Replaces quantizers of the layer by others of another scheme, those that only the file shows too; `other` returns
    /// `None` for one that stays.
    pub fn convert(&mut self, other: impl Fn(&Quantizer) -> Option<Quantizer>) {
        let working = self.weights.iter_mut().flatten().chain(self.activation.quantizer_mut()).chain(&mut self.output);
        for own in working {
            *own = other(own).unwrap_or_else(|| own.clone());
        }
        let Wrapping::Entry(mut items) = std::mem::replace(&mut self.wrapping, Wrapping::Bare) else { return };
        for item in &mut items {
            if let Seat::Aside(own) = &mut item.seat
                && let Some(new) = other(own)
            {
                **own = new;
            }
            // A quantizer that came from no entry is spelled out.
            if let Some(own) = self.seated(item)
                && item.spelling.class_is_foreign(own)
            {
                item.spelling = Spelling::whole(own);
            }
        }
        self.wrapping = Wrapping::Entry(items);
    }

    /// Lets quantizers that have collected values in training find their range of them.
    pub fn settle(&mut self) {
        self.every().for_each(|(_, own)| match own {
            Quantizer::Affine(own) => own.settle(),
            Quantizer::Pof2(_) | Quantizer::Tqt(_) | Quantizer::Block(_) => {}
        });
    }

    /// Gives every quantizer of positions the vendor's FixNeuron arithmetic: 2 for weights, 1 for all else.
    pub fn set_fix_neuron(&mut self) {
        self.every().for_each(|(is_weight, own)| match own {
            Quantizer::Pof2(own) => own.params.use_fixneuron_quant = if is_weight { 2 } else { 1 },
            Quantizer::Affine(_) | Quantizer::Tqt(_) | Quantizer::Block(_) => {}
        });
    }

    /// Gives every quantizer of the layer another width, those that only the file shows too.
    pub fn set_width(&mut self, bits: u8) {
        self.every().for_each(|(_, own)| own.scheme_mut().set_width(bits));
    }

    /// Every quantizer, and whether it is of a weight: those that only the file shows too.
    fn every(&mut self) -> impl Iterator<Item = (bool, &mut Quantizer)> {
        let items = match &mut self.wrapping {
            Wrapping::Entry(items) => items.as_mut_slice(),
            Wrapping::Bare => &mut [],
        };
        let aside = items.iter_mut().filter_map(|item| match &mut item.seat {
            Seat::Aside(own) => Some((item.role.is_weight(), own.as_mut())),
            Seat::Input | Seat::Weight(_) | Seat::Activation | Seat::Output => None,
        });
        let weights = self.weights.iter_mut().flatten().map(|own| (true, own));
        let rest = self.input.iter_mut().chain(self.activation.quantizer_mut()).chain(&mut self.output);
        weights.chain(rest.map(|own| (false, own))).chain(aside)
    }
}

impl Seat {
    fn is_weight(&self, k: usize) -> bool {
        matches!(self, Self::Weight(index) if *index == k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::Strategy;
    use shiftwise_graph::ops::{ActivationFn, Dense, Weighted};
    use shiftwise_tensor::tensor::Tensor;

    fn dense(bias: bool) -> Op {
        let bias = bias.then(|| Tensor::zeros(&[3]));
        Op::Dense(Dense { w: Weighted { kernel: Tensor::zeros(&[2, 3]), bias, activation: ActivationFn::Relu } })
    }

    fn lists_of(entry: &Map<String, Value>) -> Map<String, Value> {
        let list = |key: &str| (key.to_owned(), entry.get(key).cloned().unwrap_or_else(|| json!([])));
        role::lists().flat_map(|row| [row.names, row.quantizers]).map(list).collect()
    }

    #[test]
    fn an_entry_comes_back_as_it_was_wherever_its_quantizers_sit() {
        let entry = Strategy::built_in("pof2s").unwrap().layer_entry("Dense", true).unwrap();
        for bias in [true, false] {
            for place in [ActivationPlace::Here, ActivationPlace::Behind, ActivationPlace::Nowhere] {
                let own = LayerQuant::from_entry(&dense(bias), &entry, place).unwrap();
                assert_eq!(format!("{:?}", own.to_entry().unwrap()), format!("{:?}", lists_of(&entry)), "{place:?}");
            }
        }
        assert!(LayerQuant::bare().to_entry().is_none());
    }

    #[test]
    fn an_entry_that_says_less_in_another_order_comes_back_so() {
        let quantizer = json!({
            "quantizer_type": "LastValueQuantPosQuantizer",
            "quantizer_params": { "round_mode": 1, "bit_width": 4, "method": 0 },
        });
        let entry = json!({
            "quantizable_weights": ["gamma", "kernel"], "weight_quantizers": [quantizer, quantizer],
            "quantizable_outputs": ["0"], "output_quantizers": [quantizer],
        });
        let own = LayerQuant::from_entry(&dense(true), entry.as_object().unwrap(), ActivationPlace::Here).unwrap();
        assert!(own.weights[0].is_some() && own.weights[1].is_none());
        let back = own.to_entry().unwrap();
        assert_eq!(format!("{back:?}"), format!("{:?}", lists_of(entry.as_object().unwrap())));
    }

    #[test]
    fn a_width_reaches_every_quantizer_of_an_entry() {
        let entry = Strategy::built_in("pof2s").unwrap().layer_entry("Dense", true).unwrap();
        let mut own = LayerQuant::from_entry(&dense(false), &entry, ActivationPlace::Behind).unwrap();
        own.set_width(16);
        let back = Value::Object(own.to_entry().unwrap()).to_string();
        assert_eq!((back.matches("\"bit_width\":16").count(), back.matches("\"bit_width\":8").count()), (3, 0));
    }
}
