//! What a file says of a layer beyond what the layer models: kept for writing, and read by layers of the user's own.
//!
//! The values are those that the files of all frameworks have: numbers, words, flags, lists and named values. Their
//! order is the file's.

use std::fmt;

use shiftwise_tensor::tensor::Tensor;

/// A value that a file gives to a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// Nothing, said explicitly.
    Null,
    /// True or false.
    Flag(bool),
    /// A whole number; files have signed and unsigned ones of 64 bits.
    Integer(i128),
    /// A number with a fraction or an exponent.
    Number(f64),
    /// A word.
    Text(String),
    /// Several values.
    List(Vec<Attribute>),
    /// Values with names.
    Map(Attributes),
}

impl Attribute {
    /// A number of either kind as f32; `None` for anything else and for what is beyond its range.
    pub fn single(&self) -> Option<f32> {
        let wide = match self {
            Self::Integer(n) => *n as f64,
            Self::Number(n) => *n,
            Self::Null | Self::Flag(_) | Self::Text(_) | Self::List(_) | Self::Map(_) => return None,
        };
        Some(wide as f32).filter(|n| n.is_finite())
    }

    /// A number or nested lists of numbers as an array; `None` for anything else, and for lists of different lengths.
    pub fn tensor(&self) -> Option<Tensor> {
        let Self::List(items) = self else { return Tensor::new(Vec::new(), vec![self.single()?]) };
        let parts = items.iter().map(Self::tensor).collect::<Option<Vec<Tensor>>>()?;
        let inner = parts.first().map_or(&[][..], |p| p.shape());
        let shape = [&[parts.len()], inner].concat();
        parts.iter().all(|p| p.shape() == inner).then_some(())?;
        Tensor::new(shape, parts.iter().flat_map(|p| p.data().iter().copied()).collect())
    }

    /// Whether it is a number of either kind.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Integer(_) | Self::Number(_))
    }
}

impl fmt::Display for Attribute {
    /// As JSON writes it, but for characters that it escapes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = |i: usize| if i > 0 { "," } else { "" };
        match self {
            Self::Null => write!(f, "null"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Integer(n) => write!(f, "{n}"),
            Self::Number(n) => write!(f, "{n:?}"),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::List(items) => {
                write!(f, "[")?;
                items.iter().enumerate().try_for_each(|(i, item)| write!(f, "{}{item}", between(i)))?;
                write!(f, "]")
            }
            Self::Map(map) => {
                write!(f, "{{")?;
                map.iter().enumerate().try_for_each(|(i, (key, item))| write!(f, "{}\"{key}\":{item}", between(i)))?;
                write!(f, "}}")
            }
        }
    }
}

/// Values by name, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(Vec<(String, Attribute)>);

impl Attributes {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Attribute> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// Gives a value to a name; one that has a value already keeps its place.
    pub fn insert(&mut self, name: &str, value: Attribute) {
        match self.0.iter_mut().find(|(own, _)| own == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// All names with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attribute)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, Attribute)> for Attributes {
    /// Of a name that comes twice, the last value counts.
    fn from_iter<I: IntoIterator<Item = (String, Attribute)>>(all: I) -> Self {
        let mut places = std::collections::HashMap::new();
        let mut list: Vec<(String, Attribute)> = Vec::new();
        for (name, value) in all {
            match places.get(&name) {
                Some(at) => list[*at] = (name, value),
                None => {
                    places.insert(name.clone(), list.len());
                    list.push((name, value));
                }
            }
        }
        Self(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_lists_of_one_shape_are_an_array() {
        let list = |items: &[i128]| Attribute::List(items.iter().map(|n| Attribute::Integer(*n)).collect());
        let square = Attribute::List(vec![list(&[1, 2]), list(&[3, 4])]);
        let tensor = square.tensor().unwrap();
        assert_eq!((tensor.shape(), tensor.data()), (&[2, 2][..], &[1.0, 2.0, 3.0, 4.0][..]));
        assert!(Attribute::List(vec![list(&[1]), list(&[1, 2])]).tensor().is_none());
        assert!(Attribute::Number(1e300).tensor().is_none() && Attribute::Text("1".into()).tensor().is_none());
    }

    #[test]
    fn names_keep_their_order_and_the_last_value() {
        let given = [("b", 1), ("a", 2), ("b", 3)].map(|(name, n)| (name.to_owned(), Attribute::Integer(n)));
        let mut all: Attributes = given.into_iter().collect();
        all.insert("a", Attribute::Flag(true));
        all.insert("c", Attribute::Null);
        let text: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(text, ["b=3", "a=true", "c=null"]);
    }
}
