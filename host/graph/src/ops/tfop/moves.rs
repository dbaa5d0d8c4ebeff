//! Functions that choose elements: takes, reversals, blocks of channels as blocks of pixels.

use crate::ops::tfop::Kind;
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

impl Kind {
    /// The shape that these functions make of one.
    pub(super) fn moved(&self, x: &[usize]) -> Result<Vec<usize>, String> {
        let mut shape = x.to_vec();
        match self {
            Self::Gather { axis, indices, drop } => {
                if *axis >= x.len() || indices.iter().any(|i| *i >= x[*axis]) {
                    return Err(format!("its indices don't fit into a tensor of shape {x:?}"));
                }
                shape[*axis] = indices.len();
                if *drop {
                    shape.remove(*axis);
                }
            }
            Self::DepthToSpace(b) | Self::SpaceToDepth(b) => {
                let [n, h, w, c] = x[..] else {
                    return Err(format!("its operand has shape {x:?}, images are expected"));
                };
                let (area, wide) = (b * b, matches!(self, Self::DepthToSpace(_)));
                let fits = if wide { c.is_multiple_of(area) } else { h.is_multiple_of(*b) && w.is_multiple_of(*b) };
                if !fits {
                    return Err(format!("{h}x{w} pixels of {c} channels are no blocks of {b}x{b}"));
                }
                let side = |d: usize| if wide { d.checked_mul(*b) } else { Some(d / b) };
                let depth = if wide { Some(c / area) } else { c.checked_mul(area) };
                let sides = side(h).zip(side(w)).zip(depth).ok_or("its result is too large")?;
                shape = vec![n, sides.0.0, sides.0.1, sides.1];
            }
            _ => {}
        }
        Ok(shape)
    }

    /// The elements of the result in order.
    pub(super) fn move_elements(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Gather { axis, indices, .. } => {
                let outer: usize = x.shape()[..*axis].iter().product();
                let inner: usize = x.shape()[axis + 1..].iter().product();
                let block = x.shape()[*axis] * inner;
                let mut data = Vec::with_capacity(outer * indices.len() * inner);
                for o in 0..outer {
                    for i in indices {
                        data.extend_from_slice(&x.data()[o * block + i * inner..][..inner]);
                    }
                }
                Tensor::vector(data)
            }
            Self::Reverse(axes) => {
                let along = |(axis, size): (usize, &usize)| match axes.contains(&axis) {
                    true => (size.saturating_sub(1), *size, -1),
                    false => (0, *size, 1),
                };
                array::slice(x, &x.shape().iter().enumerate().map(along).collect::<Vec<_>>())
            }
            Self::DepthToSpace(b) => {
                let [n, h, w, c] = [0, 1, 2, 3].map(|i| x.shape()[i]);
                let split = x.clone().reshaped(vec![n, h, w, *b, *b, c / (b * b)]);
                split.map_or_else(|| Tensor::zeros(&[0]), |x| array::transpose(&x, &[0, 1, 3, 2, 4, 5]))
            }
            Self::SpaceToDepth(b) => {
                let [n, h, w, c] = [0, 1, 2, 3].map(|i| x.shape()[i]);
                let split = x.clone().reshaped(vec![n, h / b, *b, w / b, *b, c]);
                split.map_or_else(|| Tensor::zeros(&[0]), |x| array::transpose(&x, &[0, 1, 3, 2, 4, 5]))
            }
            _ => x.clone(),
        }
    }
}
