//! The channels of a tensor, for quantizers that have a state for each.

/// How the elements of a tensor fall into channels: element `i` belongs to channel `i / inner % count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Number of channels.
    pub count: usize,
    inner: usize,
}

impl Channels {
    /// The channels of a tensor of this shape along `axis`, negative ones counted from the end. In a vector every element
    /// is a channel of its own, as in the vendor's tool; and so are all of a tensor that lacks the axis.
    pub fn of(shape: &[usize], axis: i64) -> Self {
        let rank = shape.len() as i64;
        let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok().filter(|a| *a < shape.len());
        match axis {
            Some(axis) if rank > 1 => Self { count: shape[axis], inner: shape[axis + 1..].iter().product() },
            _ => Self { count: shape.iter().product(), inner: 1 },
        }
    }

    /// A tensor of so many elements as one channel.
    pub(super) fn whole(elements: usize) -> Self {
        Self { count: 1, inner: elements }
    }

    /// Elements of one channel that lie side by side.
    pub(super) fn run(self) -> usize {
        self.inner.max(1)
    }

    /// The channel of an element.
    pub fn of_element(self, i: usize) -> usize {
        i / self.inner.max(1) % self.count.max(1)
    }

    /// The shape of a variable with one value for each channel: the tensor's, with 1 at every other axis.
    pub fn variable_shape(shape: &[usize], axis: i64) -> Vec<usize> {
        let rank = shape.len() as i64;
        let axis = if axis < 0 { axis + rank } else { axis };
        match rank {
            0 | 1 => shape.to_vec(),
            _ => shape.iter().enumerate().map(|(i, d)| if i as i64 == axis { *d } else { 1 }).collect(),
        }
    }

    pub(super) fn split(self, data: &[f32]) -> Vec<Vec<f32>> {
        let mut all = vec![Vec::with_capacity(data.len() / self.count.max(1)); self.count];
        data.iter().enumerate().for_each(|(i, x)| all[self.of_element(i)].push(*x));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_counts_from_either_end_and_a_vectors_elements_are_channels() {
        assert_eq!(Channels::of(&[3, 3, 8, 1], 2), Channels { count: 8, inner: 1 });
        assert_eq!(Channels::of(&[5], -1), Channels { count: 5, inner: 1 });
        assert_eq!(Channels::variable_shape(&[3, 3, 8, 4], -1), [1, 1, 1, 4]);
    }
}
