//! Convolution kernels.
/// Geometry of one image's convolution.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct ConvGeometry {
    pub in_h: usize,
    pub in_w: usize,
    pub in_c: usize,
    pub out_h: usize,
    pub out_w: usize,
    pub out_c: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    pub pad_before: [usize; 2],
    pub groups: usize,
}
/// Packed.
#[derive(Debug)]
pub struct PackedF32(Vec<f32>);
impl PackedF32 {
    /// new
    pub fn new(k: &[f32], _: &ConvGeometry) -> Self {
        Self(k.to_vec())
    }
}
/// conv
pub fn conv_f32(k: &PackedF32, g: &ConvGeometry, x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let icg = g.in_c / g.groups;
    let ocg = g.out_c / g.groups;
    for oy in 0..g.out_h {
        for ox in 0..g.out_w {
            for o in 0..g.out_c {
                let mut s = 0.0f32;
                let grp = o / ocg;
                for ky in 0..g.kernel[0] {
                    for kx in 0..g.kernel[1] {
                        let iy = (oy * g.stride[0] + ky * g.dilation[0]) as isize - g.pad_before[0] as isize;
                        let ix = (ox * g.stride[1] + kx * g.dilation[1]) as isize - g.pad_before[1] as isize;
                        if iy < 0 || ix < 0 || iy >= g.in_h as isize || ix >= g.in_w as isize {
                            continue;
                        }
                        for c in 0..icg {
                            s = x[(iy as usize * g.in_w + ix as usize) * g.in_c + grp * icg + c]
                                .mul_add(k.0[((ky * g.kernel[1] + kx) * icg + c) * g.out_c + o], s);
                        }
                    }
                }
                y[(oy * g.out_w + ox) * g.out_c + o] = s + bias.map_or(0.0, |b| b[o]);
            }
        }
    }
}
/// dw
pub fn depthwise_f32(g: &ConvGeometry, k: &[f32], x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let m = g.out_c / g.in_c;
    for oy in 0..g.out_h {
        for ox in 0..g.out_w {
            for o in 0..g.out_c {
                let mut s = 0.0f32;
                for ky in 0..g.kernel[0] {
                    for kx in 0..g.kernel[1] {
                        let iy = (oy * g.stride[0] + ky * g.dilation[0]) as isize - g.pad_before[0] as isize;
                        let ix = (ox * g.stride[1] + kx * g.dilation[1]) as isize - g.pad_before[1] as isize;
                        if iy < 0 || ix < 0 || iy >= g.in_h as isize || ix >= g.in_w as isize {
                            continue;
                        }
                        s = x[(iy as usize * g.in_w + ix as usize) * g.in_c + o / m]
                            .mul_add(k[(ky * g.kernel[1] + kx) * g.out_c + o], s);
                    }
                }
                y[(oy * g.out_w + ox) * g.out_c + o] = s + bias.map_or(0.0, |b| b[o]);
            }
        }
    }
}
