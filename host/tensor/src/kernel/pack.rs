//! Weights in the order in which the tiles read them.

use crate::aligned::Aligned;
use crate::kernel::plan::{LANES, Layout};
use crate::kernel::{ConvGeometry, Path};

/// Panels that AVX-512 multiplies side by side.
pub(super) const WIDE: usize = 4;

/// Weights of an f32 convolution, packed as `[group][panels side by side][ky, kx, cin][panel][16]`, zeros past the last output
/// channel.
#[derive(Clone, Debug)]
pub struct PackedF32 {
    pub(super) path: Path,
    pub(super) geometry: ConvGeometry,
    pub(super) panels: Aligned<f32>,
}

/// Weights of an int8 convolution, packed as the path's products want them.
#[derive(Clone, Debug)]
pub struct PackedI8 {
    pub(super) path: Path,
    pub(super) geometry: ConvGeometry,
    pub(super) panels: Panels,
}

#[derive(Clone, Debug)]
pub(super) enum Panels {
    /// Widened to i16, in pairs of input channels: `[group][panel][ky, kx, cin / 2][16][2]`.
    Pairs(Aligned<i16>),
    /// In fours, for AVX-512.
    #[cfg(target_arch = "x86_64")]
    Fours(Fours),
}

/// Weights in fours of input channels, to be multiplied by inputs plus 128.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Debug)]
pub(super) struct Fours {
    /// `[group][panels side by side][ky, kx, cin / 4][panel][16][4]`. Where four panels are side by side, their channels are in
    /// the order of [`quarters`].
    pub(super) weights: Aligned<i8>,
    /// What takes the 128 back: −128 · Σ w over the taps before each one and before the end, in the same order:
    /// `[group][panels side by side][taps + 1][panel][16]`.
    pub(super) back: Aligned<i32>,
    /// Where the channels of a group are no fours, inputs are [gathered](crate::kernel::columns), all taps as one.
    pub(super) gathered: bool,
}

#[cfg(target_arch = "x86_64")]
impl Fours {
    /// How the images lie that these weights meet.
    pub(super) fn layout(&self, geometry: &ConvGeometry) -> Layout {
        let taps = geometry.kernel[0] * geometry.kernel[1];
        match self.gathered {
            true => {
                let tap = (taps * geometry.group_in()).next_multiple_of(4);
                Layout { pitch: tap, tap, taps: 1 }
            }
            false => Layout { pitch: geometry.in_c, tap: geometry.group_in(), taps },
        }
    }
}

/// Where channel `c` of 64 stands in four vectors of 16, so that packing the vectors to bytes, which works on quarters of
/// them, brings the channels into order: quarter q of vector j has the channels from 16 q + 4 j on.
pub(super) const fn quarters(c: usize) -> usize {
    c % 16 / 4 * LANES + c / 16 * 4 + c % 4
}

impl PackedF32 {
    /// Packs a kernel `[kh, kw, in_c / groups, out_c]` for the fastest path of this machine.
    ///
    /// # Panics
    /// If the kernel's length or the geometry is inconsistent.
    #[must_use]
    pub fn new(kernel_hwio: &[f32], geometry: &ConvGeometry) -> Self {
        Self::with_path(kernel_hwio, geometry, Path::detect())
    }

    /// As [`new`](Self::new), for a given path.
    ///
    /// # Panics
    /// As `new`, and if this machine can't run the path.
    #[must_use]
    pub fn with_path(kernel_hwio: &[f32], geometry: &ConvGeometry, path: Path) -> Self {
        let order = Order { bundle: 1, wide: wide(path), quarters: false, gathered: false };
        let panels = order.pack(kernel_hwio, geometry, path, |w| *w);
        Self { path, geometry: geometry.clone(), panels }
    }
}

impl PackedI8 {
    /// Packs a kernel `[kh, kw, in_c / groups, out_c]` for the fastest path of this machine.
    ///
    /// # Panics
    /// If the kernel's length or the geometry is inconsistent.
    #[must_use]
    pub fn new(kernel_hwio: &[i8], geometry: &ConvGeometry) -> Self {
        Self::with_path(kernel_hwio, geometry, Path::detect())
    }

    /// As [`new`](Self::new), for a given path.
    ///
    /// # Panics
    /// As `new`, and if this machine can't run the path.
    #[must_use]
    pub fn with_path(kernel_hwio: &[i8], geometry: &ConvGeometry, path: Path) -> Self {
        let panels = match path {
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => {
                let gathered = !geometry.group_in().is_multiple_of(4);
                let order = Order { bundle: 4, wide: wide(path), quarters: true, gathered };
                let weights = order.pack(kernel_hwio, geometry, path, |w| *w);
                let back = order.take_back(geometry, &weights);
                Panels::Fours(Fours { weights, back, gathered })
            }
            _ => {
                let order = Order { bundle: 2, wide: wide(path), quarters: false, gathered: false };
                Panels::Pairs(order.pack(kernel_hwio, geometry, path, |w| i16::from(*w)))
            }
        };
        Self { path, geometry: geometry.clone(), panels }
    }
}

/// Panels that a path multiplies side by side.
fn wide(path: Path) -> usize {
    match path {
        Path::Portable | Path::Avx2 => 1,
        Path::Avx512 => WIDE,
    }
}

/// An order of weights.
struct Order {
    /// Input channels that stand together.
    bundle: usize,
    /// Panels that stand together at most.
    wide: usize,
    /// Whether the channels of four panels are in the order of [`quarters`].
    quarters: bool,
    /// Whether all taps are bundled as one.
    gathered: bool,
}

/// Where an output channel of a group stands.
#[derive(Clone, Copy)]
struct Place {
    /// The first of the panels side by side, and their number.
    panel: usize,
    panels: usize,
    /// Its lane in these.
    lane: usize,
}

impl Order {
    fn place(&self, channel: usize, all: usize) -> Place {
        let panel = channel / (self.wide * LANES) * self.wide;
        let panels = self.wide.min(all - panel);
        let lane = channel - panel * LANES;
        Place { panel, panels, lane: if self.quarters && panels == WIDE { quarters(lane) } else { lane } }
    }

    /// Rows of a panel.
    fn rows(&self, geometry: &ConvGeometry) -> usize {
        let (taps, cin) = (geometry.kernel[0] * geometry.kernel[1], geometry.group_in());
        match self.gathered {
            true => (taps * cin).next_multiple_of(self.bundle),
            false => taps * cin.next_multiple_of(self.bundle),
        }
    }

    /// Packs a kernel `[kh, kw, in_c / groups, out_c]` as `[group][panels side by side][row / bundle][panel][16][bundle]`.
    fn pack<S, T: Copy + Default>(
        &self,
        kernel: &[S],
        geometry: &ConvGeometry,
        path: Path,
        convert: impl Fn(&S) -> T,
    ) -> Aligned<T> {
        geometry.assert_valid();
        assert!(path.is_available(), "this machine can't run {path:?}");
        assert_eq!(kernel.len(), geometry.kernel_len(), "kernel length");
        let (bundle, rows) = (self.bundle, self.rows(geometry));
        let (cin, cout) = (geometry.group_in(), geometry.group_out());
        let panels = cout.div_ceil(LANES);
        let mut packed = Aligned::new(geometry.groups * panels * rows * LANES);
        if geometry.out_c == 0 {
            return packed;
        }
        let places: Vec<Place> = (0..cout).map(|channel| self.place(channel, panels)).collect();
        for (source_row, source) in kernel.chunks_exact(geometry.out_c).enumerate() {
            let row = match self.gathered {
                true => source_row,
                false => source_row / cin * cin.next_multiple_of(bundle) + source_row % cin,
            };
            for (group, source) in source.chunks_exact(cout).enumerate() {
                for (value, place) in source.iter().zip(&places) {
                    let base = (group * panels + place.panel) * rows + row / bundle * bundle * place.panels;
                    packed[(base * LANES) + place.lane * bundle + row % bundle] = convert(value);
                }
            }
        }
        packed
    }

    /// See [`Fours`].
    #[cfg(target_arch = "x86_64")]
    fn take_back(&self, geometry: &ConvGeometry, weights: &[i8]) -> Aligned<i32> {
        let taps = if self.gathered { 1 } else { geometry.kernel[0] * geometry.kernel[1] };
        let rows = self.rows(geometry);
        let panels = geometry.group_out().div_ceil(LANES);
        let mut back = Aligned::new(geometry.groups * panels * (taps + 1) * LANES);
        let (mut from, mut to) = (0, 0);
        for _ in 0..geometry.groups {
            for panel in (0..panels).step_by(self.wide) {
                let lanes = self.wide.min(panels - panel) * LANES;
                for _ in 0..taps {
                    for _ in 0..rows / taps / 4 {
                        for (lane, four) in weights[from..from + 4 * lanes].chunks_exact(4).enumerate() {
                            let sum: i32 = four.iter().map(|w| i32::from(*w)).sum();
                            back[to + lanes + lane] = i32::wrapping_sub(back[to + lanes + lane], 128 * sum);
                        }
                        from += 4 * lanes;
                    }
                    for lane in 0..lanes {
                        back[to + lanes + lane] = i32::wrapping_add(back[to + lanes + lane], back[to + lane]);
                    }
                    to += lanes;
                }
                to += lanes;
            }
        }
        back
    }
}
