//! The classes that a reader of models knows besides Keras' own.

use std::sync::Arc;

use crate::ops::CustomLayer;
use crate::ops::formula::Formula;

/// The class of the vendor's example.
pub const EXAMPLE: &str = "Mylayer";

/// The implementations that a reader of models knows.
#[derive(Clone, Debug)]
pub struct CustomLayers(Vec<Arc<dyn CustomLayer>>);

impl Default for CustomLayers {
    /// The layer of the vendor's example of custom layers: a PReLU.
    fn default() -> Self {
        let example = Formula::parse(&format!("{EXAMPLE}=maximum(x, 0) + alpha * minimum(x, 0)"));
        Self(example.into_iter().map(|formula| Arc::new(formula) as Arc<dyn CustomLayer>).collect())
    }
}

impl CustomLayers {
    /// Adds an implementation, which replaces an earlier one of its class.
    pub fn add(&mut self, layer: Arc<dyn CustomLayer>) {
        self.0.retain(|known| known.class() != layer.class());
        self.0.push(layer);
    }

    /// Adds a class by a formula, such as `Mylayer=maximum(x, 0) + alpha * minimum(x, 0)`: see [`Formula`].
    pub fn add_formula(&mut self, text: &str) -> Result<(), String> {
        self.add(Arc::new(Formula::parse(text)?));
        Ok(())
    }

    /// The implementation of a class; packages don't count.
    pub fn get(&self, class: &str) -> Option<Arc<dyn CustomLayer>> {
        let own = class.rsplit('>').next().unwrap_or(class);
        let named = |name: &str| self.0.iter().find(|known| known.class() == name).cloned();
        named(class).or_else(|| named(own))
    }

    /// What each implementation stands for.
    pub fn classes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|known| known.class())
    }

    /// The implementation that stands for a layer by its name: all of it, or the part behind the models around it.
    pub fn by_name(&self, layer: &str) -> Option<Arc<dyn CustomLayer>> {
        let own = layer.rsplit('/').next().unwrap_or(layer);
        let named = |name: &str| self.0.iter().find(|known| known.class() == name).cloned();
        named(layer).or_else(|| named(own))
    }
}
