//! Attributes of operations, and what windows of images are made of.

use crate::layers::{Edges, Sliding};
use crate::proto::{Attribute, NodeDef};

impl NodeDef {
    fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.get(name)?.value.as_ref()
    }

    /// Files leave out attributes that have the operation's default.
    pub(super) fn integer(&self, name: &str, default: i64) -> i64 {
        match self.attribute(name) {
            Some(Attribute::Integer(value)) => *value,
            _ => default,
        }
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        match self.attribute(name) {
            Some(Attribute::Float(value)) => *value,
            _ => default,
        }
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        match self.attribute(name) {
            Some(Attribute::Flag(value)) => *value,
            _ => default,
        }
    }

    pub(super) fn element(&self, name: &str) -> Option<i32> {
        match self.attribute(name) {
            Some(Attribute::Type(value)) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        match self.attribute(name) {
            Some(Attribute::Text(bytes)) => std::str::from_utf8(bytes).unwrap_or_default(),
            _ => "",
        }
    }

    pub(super) fn integers(&self, name: &str) -> &[i64] {
        match self.attribute(name) {
            Some(Attribute::List(list)) => &list.integers,
            _ => &[],
        }
    }

    /// The sizes of a shape, unless not even their number is known.
    pub(super) fn sizes(&self, name: &str) -> Option<Vec<i64>> {
        match self.attribute(name) {
            Some(Attribute::Shape(shape)) if !shape.unknown_rank => Some(shape.sizes()),
            _ => None,
        }
    }

    /// Height and width of `[1, height, width, 1]`; 1 and 1 where nothing is said.
    pub(super) fn window(&self, name: &str) -> Result<[usize; 2], String> {
        let list = self.integers(name);
        let side = |d: i64| usize::try_from(d).map_err(|_| format!("its {name} are {list:?}"));
        match list {
            [] => Ok([1, 1]),
            [1, 1, height, width] if self.channels_first() => Ok([side(*height)?, side(*width)?]),
            [1, height, width, 1] if !self.channels_first() => Ok([side(*height)?, side(*width)?]),
            other => Err(format!("its {name} are {other:?}: only height and width can have others than 1")),
        }
    }

    /// Fails unless channels come last.
    pub(super) fn channels_last(&self) -> Result<(), String> {
        match self.text("data_format") {
            "" | "NHWC" => Ok(()),
            other => Err(format!("its data_format is {other:.20}, NHWC is expected")),
        }
    }

    /// How a window pads.
    pub(super) fn edges(&self) -> Result<Edges, String> {
        match self.text("padding") {
            "SAME" => Ok(Edges::Same),
            "VALID" => Ok(Edges::Valid),
            "EXPLICIT" => {
                let list = self.integers("explicit_paddings");
                let wrong = || format!("its explicit_paddings are {list:?}");
                let whole: Option<Vec<usize>> = list.iter().map(|d| usize::try_from(*d).ok()).collect();
                match (whole.as_deref(), self.channels_first()) {
                    (Some([0, 0, top, bottom, left, right, 0, 0]), false)
                    | (Some([0, 0, 0, 0, top, bottom, left, right]), true) => {
                        Ok(Edges::Explicit([[*top, *bottom], [*left, *right]]))
                    }
                    _ => Err(wrong()),
                }
            }
            other => Err(format!("its padding is {other:.20}, which is not known")),
        }
    }

    /// Whether channels come first.
    pub(super) fn channels_first(&self) -> bool {
        self.text("data_format") == "NCHW"
    }

    /// Strides, dilation and padding.
    pub(super) fn sliding(&self) -> Result<Sliding, String> {
        Ok(Sliding { strides: self.window("strides")?, dilation: self.window("dilations")?, edges: self.edges()? })
    }
}
