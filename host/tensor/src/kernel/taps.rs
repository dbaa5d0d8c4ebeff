//! The taps of a depthwise convolution that lie inside the image.

use crate::kernel::ConvGeometry;

/// Channels that are summed together.
pub(super) const CHUNK: usize = 32;

/// A tap that lies inside the image: where its weights and its input pixel begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    pub(super) weights: usize,
    pub(super) input: usize,
}

/// Lists the taps of an output pixel that lie inside the image, in the order of the chain.
pub(super) fn find_taps(geometry: &ConvGeometry, pixel: usize, taps: &mut Vec<Tap>) {
    taps.clear();
    let origin = [pixel / geometry.out_w * geometry.stride[0], pixel % geometry.out_w * geometry.stride[1]];
    let size = [geometry.in_h, geometry.in_w];
    let at = |axis: usize, k: usize| {
        let shifted = origin[axis] + k * geometry.dilation[axis];
        shifted.checked_sub(geometry.pad_before[axis]).filter(|v| *v < size[axis])
    };
    for ky in 0..geometry.kernel[0] {
        let Some(y) = at(0, ky) else { continue };
        for kx in 0..geometry.kernel[1] {
            let Some(x) = at(1, kx) else { continue };
            taps.push(Tap {
                weights: (ky * geometry.kernel[1] + kx) * geometry.out_c,
                input: (y * geometry.in_w + x) * geometry.in_c,
            });
        }
    }
}
