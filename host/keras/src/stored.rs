//! Weights in HDF5 files: as `model.save("FILE.h5")` lays them out, and as a `.keras` archive does.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::h5::H5;
use crate::layers::WeightSource;
use crate::record::{LayerConfig, ModelConfig};
use crate::weights::ModelWeights;
use shiftwise_tensor::tensor::Tensor;

impl ModelWeights for H5 {
    fn layer(&self, path: &[&str], _: &str) -> Box<dyn WeightSource + '_> {
        let root = if self.has_group("model_weights") { "model_weights" } else { "/" };
        Box::new(LayerWeights::new(self, root, path))
    }
}

/// The weights of a model in an `.h5` file that may come from another run of the program that made the model: Keras
/// numbers layers without a name of their own through a whole run.
pub(crate) struct Named {
    file: H5,
    root: &'static str,
    /// The file's names by the model's: of the outermost layers under their own names, of those inside under theirs and
    /// the outermost one's.
    names: HashMap<(String, String), String>,
}

/// Pairs layers of two runs of a program: the k-th that is called conv2d, conv2d_1, … in one is the k-th in the other.
/// `model` may have more than `stored`, in which layers without weights are missing, but not of one name.
///
/// Errors: the names of which there are not equally many.
fn paired<'a>(model: &[&'a str], stored: &[&'a str]) -> Result<Vec<(&'a str, &'a str)>, String> {
    let count = |names: &[&'a str]| {
        let mut counted: BTreeMap<&'a str, Vec<&'a str>> = BTreeMap::new();
        names.iter().for_each(|name| counted.entry(without_number(name)).or_default().push(*name));
        counted
    };
    let layers = count(model);
    let mut pairs = Vec::new();
    for (base, stored) in count(stored) {
        let own = layers.get(base).map(Vec::as_slice).unwrap_or_default();
        if own.len() != stored.len() {
            return Err(format!(
                "its layers are not those of the model: it has weights for {} called `{base:.60}`, the model has {}",
                stored.len(),
                own.len()
            ));
        }
        pairs.extend(own.iter().copied().zip(stored));
    }
    Ok(pairs)
}

impl Named {
    /// Gives the file back if it is laid out as an archive's.
    pub(crate) fn new(file: H5, model: &ModelConfig) -> Result<Result<Self, H5>, String> {
        let root = if file.has_group("model_weights") { "model_weights" } else { "/" };
        let Some(listed) = file.strings(root, "layer_names")? else { return Ok(Err(file)) };
        let mut stored: Vec<(String, Vec<String>)> = Vec::new();
        for name in listed {
            let group = format!("{}/{name}", root.trim_end_matches('/'));
            let weights = file.strings(&group, "weight_names")?.unwrap_or_default();
            if !weights.is_empty() {
                stored.push((name, weights));
            }
        }
        let own: HashMap<&str, &LayerConfig> = model.layers.iter().map(|l| (l.name.as_str(), l)).collect();
        let mut names = HashMap::new();
        if !stored.iter().all(|(name, _)| own.contains_key(name.as_str())) {
            let layers: Vec<&str> = model.layers.iter().map(|l| l.name.as_str()).collect();
            let weights: HashMap<&str, &[String]> = stored.iter().map(|(n, w)| (n.as_str(), w.as_slice())).collect();
            let found: Vec<&str> = stored.iter().map(|(name, _)| name.as_str()).collect();
            for (layer, stored) in paired(&layers, &found)? {
                names.insert((layer.to_owned(), String::new()), stored.to_owned());
                let inner = own.get(layer).and_then(|l| l.inner.as_ref());
                let Some(inner) = inner else { continue };
                // The folder of a weight is its layer. What isn't trained stands behind everything that is.
                let mut seen = HashSet::new();
                let folders = weights[stored].iter().filter_map(|path| path.rsplit('/').nth(1));
                let folders: Vec<&str> = folders.filter(|folder| seen.insert(*folder)).collect();
                let layers: Vec<&str> = inner.layers.iter().map(|l| l.name.as_str()).collect();
                let pairs = paired(&layers, &folders)?.into_iter();
                names.extend(pairs.map(|(name, stored)| ((layer.to_owned(), name.to_owned()), stored.to_owned())));
            }
        }
        Ok(Ok(Self { file, root, names }))
    }
}

/// A layer's name without the number that Keras puts behind it.
fn without_number(name: &str) -> &str {
    match name.rsplit_once('_') {
        Some((base, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => base,
        _ => name,
    }
}

impl ModelWeights for Named {
    fn layer(&self, path: &[&str], _: &str) -> Box<dyn WeightSource + '_> {
        let outer = path.first().copied().unwrap_or_default();
        let stored = |(depth, name): (usize, &&str)| {
            let key = (outer.to_owned(), if depth == 0 { String::new() } else { (*name).to_owned() });
            self.names.get(&key).cloned().unwrap_or_else(|| (*name).to_owned())
        };
        let path: Vec<String> = path.iter().enumerate().map(stored).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        Box::new(LayerWeights::new(&self.file, self.root, &path))
    }
}

/// The weights of one layer in an `.h5` file: an outer layer has a group, which lists the weights of all layers inside.
pub(crate) struct LayerWeights<'a> {
    file: &'a H5,
    group: String,
    /// Names of the layer and the models around it, but for the outermost, which is the group.
    inner: Vec<String>,
    /// Paths below the group; read when the first weight is asked for.
    names: Option<Vec<String>>,
}

impl<'a> LayerWeights<'a> {
    pub(crate) fn new(file: &'a H5, root: &str, path: &[&str]) -> Self {
        let (outer, inner) = path.split_first().map_or(("", &[][..]), |(outer, inner)| (*outer, inner));
        let inner = inner.iter().map(|name| (*name).to_owned()).collect();
        Self { file, group: format!("{}/{outer}", root.trim_end_matches('/')), inner, names: None }
    }

    /// Paths of the layer's weights as the file lists them.
    pub(crate) fn names(&mut self) -> Result<&[String], String> {
        if self.names.is_none() {
            let mut names = self.file.strings(&self.group, "weight_names")?.unwrap_or_default();
            // Each layer inside an outer one looks through the names of all.
            self.file.budget().work(names.iter().map(|n| n.len() as u64).sum::<u64>())?;
            // The longest match wins: in another model inside, a layer may have the same name.
            let score = |path: &str| {
                let folders = path.rsplit('/').skip(1);
                folders.zip(self.inner.iter().rev()).take_while(|(folder, name)| folder == name).count()
            };
            if !self.inner.is_empty() {
                let best = names.iter().map(|n| score(n)).max().unwrap_or(0);
                names.retain(|n| best > 0 && score(n) == best);
            }
            self.names = Some(names);
        }
        Ok(self.names.as_deref().unwrap_or_default())
    }
}

impl LayerWeights<'_> {
    /// The path of a variable of the layer itself.
    fn variable(&mut self, name: &str) -> Result<String, String> {
        let names = self.names()?;
        let Some(path) = names.iter().find(|n| short_name(n) == name).cloned() else {
            let known: Vec<&str> = names.iter().map(|n| short_name(n)).collect();
            return Err(format!("its weight `{name}` is not in the file, which has [{}] for it", known.join(", ")));
        };
        Ok(format!("{}/{path}", self.group))
    }

    /// A variable that may hold infinities, of a shape or, without one, of any length.
    pub(crate) fn state(&mut self, name: &str, shape: Option<&[usize]>) -> Result<Tensor, String> {
        let path = self.variable(name)?;
        let tensor = self.file.floats(&path, shape).map_err(|e| format!("its {e}"))?;
        match tensor.shape() {
            [_] => Ok(tensor),
            _ if shape.is_some() => Ok(tensor),
            other => Err(format!("its weight `{name}` has shape {other:?}, a list is expected")),
        }
    }

    /// A variable with one integer.
    pub(crate) fn integer(&mut self, name: &str) -> Result<i32, String> {
        let path = self.variable(name)?;
        self.file.integer(&path).map_err(|e| format!("its {e}"))
    }

    /// A variable with a list of integers.
    pub(crate) fn integers(&mut self, name: &str) -> Result<Vec<i32>, String> {
        let path = self.variable(name)?;
        self.file.integers(&path).map_err(|e| format!("its {e}"))
    }
}

/// Whether a weight's path ends in a name, which may be a path itself: of a layer within the layer.
fn is_called(path: &str, name: &str) -> bool {
    let path = path.strip_suffix(":0").unwrap_or(path);
    path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

/// The last part of a weight's path, without the output number.
fn short_name(path: &str) -> &str {
    let last = path.rsplit('/').next().unwrap_or(path);
    last.strip_suffix(":0").unwrap_or(last)
}

impl WeightSource for LayerWeights<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, String> {
        let nested = !self.inner.is_empty();
        let names = self.names()?;
        // Keras 3 calls the kernel of a depthwise convolution as that of any other.
        let has = |name: &str| names.iter().any(|n| is_called(n, name));
        let stored = if name == "depthwise_kernel" && !has(name) { "kernel" } else { name };
        let mut found = names.iter().filter(|n| is_called(n, stored));
        let Some(path) = found.next().cloned() else {
            let known: Vec<&str> = names.iter().map(|n| short_name(n)).collect();
            return Err(format!("its weight `{name}` is not in the file, which has [{}] for it", known.join(", ")));
        };
        if nested && found.next().is_some() {
            return Err(format!("the file has several weights `{name}` that may be its own"));
        }
        checked(self.file.floats(&format!("{}/{path}", self.group), Some(shape)).map_err(|e| format!("its {e}"))?, name)
    }

    fn all(&mut self) -> Result<Vec<(String, Tensor)>, String> {
        // The state of quantizers follows the first of their variables.
        let names = self.names()?.iter().take_while(|n| short_name(n) != "optimizer_step").cloned().collect::<Vec<_>>();
        let layer = self.inner.last().map_or_else(|| self.group.rsplit('/').next().unwrap_or_default(), String::as_str);
        let read = |path: &String| {
            let below =
                path.split_once('/').filter(|(first, _)| *first == layer).map_or(path.as_str(), |(_, rest)| rest);
            let name = below.strip_suffix(":0").unwrap_or(below);
            let tensor = self.file.floats(&format!("{}/{path}", self.group), None)?;
            Ok((name.to_owned(), checked(tensor, name)?))
        };
        names.iter().map(read).collect()
    }
}

/// The weight, if it has the shape and only finite values.
fn checked(tensor: Tensor, name: &str) -> Result<Tensor, String> {
    if let Some(i) = tensor.data().iter().position(|v| !v.is_finite()) {
        return Err(format!("its weight `{name}` has the value {} at index {i}", tensor.data()[i]));
    }
    Ok(tensor)
}

/// Weights as Keras' archives hold them: a group for each layer, named by its class, with numbered variables.
pub(crate) struct Store {
    file: H5,
    /// Groups by the path of their layer, names joined by a separator that no name has.
    groups: HashMap<String, String>,
}

const SEPARATOR: &str = "\u{0}";

impl Store {
    /// Finds the groups of all layers of a model.
    pub(crate) fn new(file: H5, model: &ModelConfig) -> Result<Self, String> {
        let mut groups = HashMap::new();
        find(&file, model, "", &[], &mut groups)?;
        Ok(Self { file, groups })
    }
}

impl ModelWeights for Store {
    fn layer(&self, path: &[&str], _: &str) -> Box<dyn WeightSource + '_> {
        let group = self.groups.get(&path.join(SEPARATOR)).map(String::as_str);
        Box::new(StoredLayer { file: &self.file, group, next: 0 })
    }
}

/// Where the layers of a model are, by writer.
const CONTAINERS: [&str; 3] = ["layers", "_layer_checkpoint_dependencies", "_self_tracked_trackables"];

fn find(
    file: &H5,
    model: &ModelConfig,
    prefix: &str,
    path: &[&str],
    groups: &mut HashMap<String, String>,
) -> Result<(), String> {
    let container = CONTAINERS.iter().map(|name| format!("{prefix}{name}")).find(|group| file.has_group(group));
    // A model without weights may have none.
    let Some(container) = container else { return Ok(()) };
    let children = file.groups(&container)?;
    // Newer writers note the layer's name; all of them name groups by class and number them in layer order.
    let mut by_name: HashMap<String, &str> = HashMap::new();
    let mut by_class: HashMap<&str, BTreeMap<usize, &str>> = HashMap::new();
    for child in &children {
        let noted = file.string(&format!("{container}/{child}/vars"), "name").ok().flatten();
        by_name.extend(noted.map(|name| (name, child.as_str())));
        by_class.entry(child).or_default().insert(0, child);
        if let Some((class, number)) = child.rsplit_once('_')
            && let Ok(number) = number.parse()
        {
            by_class.entry(class).or_default().insert(number, child);
        }
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    for layer in &model.layers {
        // An inner model's class is its Python class; its config's may be a subclass that is saved under its own name.
        let class = snake_case(&layer.class);
        let count = seen.entry(class.clone()).or_default();
        let numbered = by_class.get(class.as_str()).and_then(|all| all.values().nth(*count));
        *count += 1;
        let Some(child) = by_name.get(&layer.name).or(numbered) else { continue };
        let group = format!("{container}/{child}");
        let own: Vec<&str> = path.iter().copied().chain([layer.name.as_str()]).collect();
        if let Some(inner) = &layer.inner {
            find(file, inner, &format!("{group}/"), &own, groups)?;
        }
        // A wrapper keeps no weights of its own.
        let wrapped = format!("{group}/layer");
        let wraps = layer.config.contains_key("layer") && file.has_group(&wrapped);
        groups.insert(own.join(SEPARATOR), if wraps { wrapped } else { group });
    }
    Ok(())
}

/// Keras' snake case of a class name: an underscore before each capital that begins a word.
fn snake_case(class: &str) -> String {
    let class = class.rsplit('>').next().unwrap_or(class);
    let chars: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or(' ');
    let mut out = String::new();
    for (i, c) in chars.iter().enumerate() {
        let word = c.is_ascii_uppercase() && at(i + 1).is_ascii_lowercase();
        let after_small = c.is_ascii_uppercase() && i > 0 && at(i - 1).is_ascii_lowercase();
        if i > 0 && (word || after_small) {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

struct StoredLayer<'a> {
    file: &'a H5,
    group: Option<&'a str>,
    /// Number of the next variable: they are numbered in Keras' order, in which a layer asks for them.
    next: usize,
}

impl WeightSource for StoredLayer<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, String> {
        let group = self.group.ok_or_else(|| format!("its weight `{name}` is not in the file"))?;
        let path = match name.split_once('/') {
            // A layer within the layer has a group of its own, in which the kernel comes first.
            Some((part, own)) => {
                let part = if part == "attention_output" { "output" } else { part };
                let groups = [format!("{group}/{part}_dense"), format!("{group}/_{part}_dense")];
                let found = groups.iter().find(|group| self.file.has_group(group));
                let found = found.ok_or_else(|| format!("its weight `{name}` is not in the file"))?;
                format!("{found}/vars/{}", usize::from(own != "kernel"))
            }
            None => {
                self.next += 1;
                format!("{group}/vars/{}", self.next - 1)
            }
        };
        checked(self.file.floats(&path, Some(shape)).map_err(|e| format!("its {e}"))?, name)
    }

    fn all(&mut self) -> Result<Vec<(String, Tensor)>, String> {
        let Some(group) = self.group else { return Ok(Vec::new()) };
        let count = self.file.datasets(&format!("{group}/vars"))?.len();
        let read = |i: usize| {
            let name = format!("w{i}");
            let tensor = checked(self.file.floats(&format!("{group}/vars/{i}"), None)?, &name)?;
            Ok((name, tensor))
        };
        (0..count).map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{paired, snake_case};

    #[test]
    fn layers_of_two_runs_are_paired() {
        let model = ["input_1", "conv2d", "flatten", "conv2d_1", "dense"];
        let pairs = paired(&model, &["conv2d_7", "conv2d_8", "dense_3"]).unwrap();
        assert_eq!(pairs, [("conv2d", "conv2d_7"), ("conv2d_1", "conv2d_8"), ("dense", "dense_3")]);
        assert!(paired(&model, &["conv2d_7", "dense_3"]).unwrap_err().contains("1 called `conv2d`, the model has 2"));
        assert!(paired(&model, &["gru"]).is_err());
    }

    #[test]
    fn class_names_become_groups() {
        let table = [
            ("Conv2D", "conv2d"),
            ("SeparableConv2D", "separable_conv2d"),
            ("ReLU", "re_lu"),
            ("PReLU", "p_re_lu"),
            ("LeakyReLU", "leaky_re_lu"),
            ("BatchNormalization", "batch_normalization"),
            ("GlobalAveragePooling2D", "global_average_pooling2d"),
            ("package>MyLayer", "my_layer"),
        ];
        for (class, want) in table {
            assert_eq!(snake_case(class), want);
        }
    }
}
