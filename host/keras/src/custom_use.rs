//! The layers of the user's own while a model is read: which implementations are used, and for what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use shiftwise_graph::error::Error;
use shiftwise_graph::ops::EXAMPLE;
use shiftwise_graph::ops::custom::is_opaque;
use shiftwise_graph::ops::{CustomLayer, CustomLayers};

/// How Python names every function that has no name.
pub(crate) const LAMBDA: &str = "<lambda>";

/// Layers that one formula of their class stands for.
#[derive(Debug, Default)]
struct OfClass {
    layers: Vec<String>,
    /// The settings of the first that say what is computed.
    settings: Map<String, Value>,
    /// Whether another has other ones.
    differ: bool,
}

/// The implementations while a model is read: which are used, and for what.
#[derive(Debug)]
pub(crate) struct CustomUse<'a> {
    known: &'a CustomLayers,
    used: BTreeSet<String>,
    of_class: BTreeMap<String, OfClass>,
}

impl<'a> CustomUse<'a> {
    /// Nothing is used yet.
    pub(crate) fn new(known: &'a CustomLayers) -> Self {
        Self { known, used: BTreeSet::new(), of_class: BTreeMap::new() }
    }

    /// Whether there is an implementation of a class.
    pub(crate) fn has(&self, class: &str) -> bool {
        self.known.get(class).is_some()
    }

    /// The implementation of a layer: by its name, else by its class.
    pub(crate) fn layer(
        &mut self,
        name: &str,
        class: &str,
        config: &Map<String, Value>,
    ) -> Option<Arc<dyn CustomLayer>> {
        let found = match self.known.by_name(name) {
            Some(found) => found,
            None => {
                let found = self.known.get(class)?;
                if is_opaque(class) {
                    self.note(class, name, config);
                }
                found
            }
        };
        self.used.insert(found.class().to_owned());
        Some(found)
    }

    /// Whether two layers of an opaque class compute the same shows in their settings only.
    fn note(&mut self, class: &str, name: &str, config: &Map<String, Value>) {
        const ELSEWHERE: [&str; 5] = ["name", "trainable", "dtype", "batch_input_shape", "build_config"];
        let mut settings = config.clone();
        settings.retain(|key, _| !ELSEWHERE.contains(&key.as_str()));
        match self.of_class.get_mut(class) {
            Some(of) => {
                of.differ |= of.settings != settings;
                of.layers.push(name.to_owned());
            }
            None => {
                let of = OfClass { layers: vec![name.to_owned()], settings, differ: false };
                self.of_class.insert(class.to_owned(), of);
            }
        }
    }

    /// The implementation of an activation function of a layer: by the layer's name, else by the function's.
    ///
    /// `setting` is what the layer says of it: the code of a function without a name, in some files.
    pub(crate) fn activation(&mut self, layer: &str, function: &str, setting: &Value) -> Option<Arc<dyn CustomLayer>> {
        let by_name = self.known.by_name(layer);
        if by_name.is_none() && function == LAMBDA {
            self.note(function, layer, &Map::from_iter([("activation".to_owned(), setting.clone())]));
        }
        let found = by_name.or_else(|| self.known.get(function))?;
        self.used.insert(found.class().to_owned());
        Some(found)
    }

    /// Fails if one formula stands for several layers that compute different things.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.of_class.iter().find(|(_, of)| of.differ) {
            Some((class, of)) => Err(Error::Options(format!(
                "--custom-layer `{class}`: the model has several different layers of that class or function ({}), and one formula \
                 can't be what all of them compute; give each its own by its name, such as --custom-layer '{}=FORMULA'",
                listed(&of.layers),
                of.layers.first().map_or("NAME", String::as_str),
            ))),
            None => Ok(()),
        }
    }

    /// What the user should know of.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let given = self.known.classes().filter(|class| *class != EXAMPLE);
        let idle = given.filter(|class| !self.used.contains(*class)).map(|class| {
            format!(
                "--custom-layer `{class}` has no effect: the model has no layer, class or activation of that name that \
                 is not known anyway"
            )
        });
        let lambdas = self.of_class.get(LAMBDA).filter(|of| of.layers.len() > 1).map(|of| {
            format!(
                "the one formula of `{LAMBDA}` is used for the activations of the layers {}; the file doesn't tell \
                 whether they are the same function, so give each its own by the layer's name if they are not",
                listed(&of.layers)
            )
        });
        idle.chain(lambdas).collect()
    }
}

/// `` `a`, `b` and 3 more ``.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}
