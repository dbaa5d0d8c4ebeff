//! Small hand-encoded programs against loop nests that know nothing of banks.

mod older;

use proptest::prelude::*;
use std::format;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::isa::codec::encode;
use crate::isa::layout::IsaVersion;
use crate::isa::{Activation, Alu, Conv, Elew, End, Line, Tokens, alu_mode, elew_type};
use crate::model::TensorList;
use crate::target::{BankGroup, Limit, Limits};

const JOB: DpuJob<'static> = DpuJob { name: "test", offset: 0, bytes: 0, outputs: TensorList(&[]) };

fn target(pp: u16, lanes: u16) -> Target {
    let group = |name: &str, kind, first, count| BankGroup {
        name: name.parse().unwrap(),
        kind,
        first,
        count,
        depth: 2048,
        width: lanes,
    };
    let any = Limit { min: 0, max: u32::MAX };
    Target {
        name: "test".parse().unwrap(),
        fingerprint: 0,
        isa: IsaVersion::Dpuczdx8gIsa1,
        pixel_parallel: pp,
        input_channel_parallel: lanes,
        output_channel_parallel: lanes,
        alu_pixel_parallel: pp / 2,
        elew_pixel_parallel: pp / 2,
        channel_augmentation: 2 * lanes,
        clock_mhz: 300,
        banks: [
            group("VB0", BankKind::Feature, 0, pp),
            group("VB1", BankKind::Feature, pp, pp),
            group("CONVW", BankKind::ConvWeights, 2 * pp, lanes),
            group("DWCONVW", BankKind::DepthwiseWeights, 2 * pp + lanes, 1),
            group("BIAS", BankKind::Bias, 2 * pp + lanes + 1, 1),
        ]
        .into_iter()
        .collect(),
        limits: Limits {
            conv_kernel: any,
            conv_stride: any,
            conv_stride_out: any,
            channels: any,
            conv_weight_depth: any,
            alu_kernel: any,
            alu_stride: any,
            alu_stride_out: any,
            alu_pad_before: any,
            alu_pad_after: any,
            elew_operands: any,
            shift_cut: any,
        },
    }
}

/// A program as bytes.
fn assemble(program: &[Inst]) -> Vec<u8> {
    let line = |inst: &Inst| encode(IsaVersion::Dpuczdx8gIsa1, &Line { tokens: Tokens::default(), inst: *inst });
    program.iter().flat_map(|i| line(i).unwrap().bytes().collect::<Vec<_>>()).collect()
}

/// Runs a program; inputs are region 2, outputs region 3. Banks start with noise, so that nothing relies on zeros.
fn run(t: &Target, program: &[Inst], constants: &[u8], inputs: &mut [u8], outputs: &mut [u8]) -> Result<(), ExecError> {
    let mut banks: Vec<u8> = (0..t.bank_bytes()).map(|i| (i * 7 + i / 251) as u8).collect();
    let mut machine = Machine::new(t, &mut banks).unwrap();
    let mut memory = Memory { constants, workspace: &mut [], inputs, outputs };
    machine.run(&JOB, &assemble(program), &mut memory)
}

fn noise(n: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2654435761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// A layer that slides a window: sizes are [vertical, horizontal].
#[derive(Clone, Copy, Debug)]
struct Slide {
    input: [u32; 2],
    channels: u32,
    outputs: u32,
    kernel: [u32; 2],
    stride: [u32; 2],
    before: [u32; 2],
    after: [u32; 2],
    /// First bank address of the input map; near the end of the bank it wraps.
    base: u32,
    /// Rows that share an output bank.
    stride_out: u32,
}

impl Slide {
    fn out(&self, axis: usize) -> u32 {
        (self.input[axis] + self.before[axis] + self.after[axis] - self.kernel[axis]) / self.stride[axis] + 1
    }

    fn element(&self, input: &[u8], y: u32, x: u32, c: u32) -> Option<i64> {
        let [iy, ix] = [y.checked_sub(self.before[0])?, x.checked_sub(self.before[1])?];
        let inside = iy < self.input[0] && ix < self.input[1];
        inside.then(|| i64::from(input[((iy * self.input[1] + ix) * self.channels + c) as usize] as i8))
    }

    /// Calls `f(output row, column, window rows and columns)` for every output.
    fn each(&self, mut f: impl FnMut(u32, u32)) {
        (0..self.out(0)).for_each(|y| (0..self.out(1)).for_each(|x| f(y, x)));
    }

    /// LOADs of the input: row y in bank (y / s) mod PP.
    fn load_input(&self, t: &Target) -> Vec<Inst> {
        let (pp, lanes, s) = (u32::from(t.pixel_parallel), u32::from(t.input_channel_parallel), self.stride[0]);
        let groups = self.channels.div_ceil(lanes);
        let row = self.input[1] * groups;
        let load = |y: u32| Load {
            bank_id: y / s % pp,
            bank_addr: (self.base + (y / (s * pp) * s + y % s) * row) % 2048,
            jump_write: groups,
            jump_read: self.channels,
            length: self.input[1],
            channel: self.channels,
            reg_id: 2,
            ddr_addr: y * self.input[1] * self.channels,
            ..Load::default()
        };
        (0..self.input[0]).map(|y| load(y).into()).collect()
    }

    /// Where the window of output row `y0` starts: (bank, packed position, four addresses).
    fn window(&self, t: &Target, y0: u32) -> (u32, u32, [u32; 4]) {
        let (pp, lanes, s) =
            (i64::from(t.pixel_parallel), u32::from(t.input_channel_parallel), i64::from(self.stride[0]));
        let groups = i64::from(self.channels.div_ceil(lanes));
        let first = i64::from(y0) * s - i64::from(self.before[0]);
        let step = first.div_euclid(s);
        let address = |n: i64| {
            let turn = step.div_euclid(pp) + n;
            let at = i64::from(self.base) + turn * s * i64::from(self.input[1]) * groups;
            (at - i64::from(self.before[1]) * groups).rem_euclid(2048) as u32
        };
        (step.rem_euclid(pp) as u32, first.rem_euclid(s) as u32, [0, 1, 2, 3].map(address))
    }

    /// pad_top, pad_left, pad_bottom, pad_right of a tile of `rows` rows from `y0`.
    fn pads(&self, y0: u32, rows: u32, most: u32) -> [u32; 4] {
        let reach = |axis: usize, last: u32| {
            (self.input[axis] - 1 + self.before[axis]).saturating_sub(last * self.stride[axis]).min(most)
        };
        let origin = y0 * self.stride[0];
        // Counted from the tile's first window row.
        let top = self.before[0].saturating_sub(origin);
        let last = y0 + rows - 1;
        [top, self.before[1], reach(0, last), reach(1, self.out(1) - 1)]
    }

    /// Bank and address of output row `y` (group 0, column 0).
    fn out_row(&self, t: &Target, y: u32) -> (u32, u32) {
        let (pp, lanes, s) = (u32::from(t.pixel_parallel), u32::from(t.input_channel_parallel), self.stride_out);
        let row = self.out(1) * self.outputs.div_ceil(lanes);
        (pp + y / s % pp, (y / (s * pp) * s + y % s) * row % 2048)
    }

    fn save_output(&self, t: &Target) -> Vec<Inst> {
        let groups = self.outputs.div_ceil(t.input_channel_parallel.into());
        let save = |y: u32| {
            let (bank_id, bank_addr) = self.out_row(t, y);
            Save {
                bank_id,
                bank_addr,
                jump_read: groups,
                jump_write: self.outputs,
                length: self.out(1),
                channel: self.outputs,
                reg_id: 3,
                ddr_addr: y * self.out(1) * self.outputs,
                ..Save::default()
            }
        };
        (0..self.out(0)).map(|y| save(y).into()).collect()
    }
}

/// floor(value / 2^shift + 1/2), saturated to int8, without a shift operator.
fn round(value: i64, shift: u32) -> i64 {
    let unit = (0..shift).fold(1i128, |d, _| 2 * d);
    (2 * i128::from(value) + unit).div_euclid(2 * unit).clamp(-128, 127) as i64
}

fn any_slide() -> impl Strategy<Value = Slide> {
    let size = || [1u32..18, 1u32..12];
    let small = || [1u32..6, 1u32..6];
    let stride = || [1u32..4, 1u32..4];
    (size(), 1u32..40, 1u32..40, small(), stride(), any::<[u8; 4]>(), 0u32..2048, 1u32..3)
        .prop_map(|(input, channels, outputs, kernel, stride, pad, base, stride_out)| {
            let pad = |i: usize, k: u32| u32::from(pad[i]) % k;
            let (before, after) = ([pad(0, kernel[0]), pad(1, kernel[1])], [pad(2, kernel[0]), pad(3, kernel[1])]);
            Slide { input, channels, outputs, kernel, stride, before, after, base, stride_out }
        })
        .prop_filter("the window must fit", |s| (0..2).all(|a| s.input[a] + s.before[a] + s.after[a] >= s.kernel[a]))
}

fn sizes() -> impl Strategy<Value = Target> {
    prop_oneof![Just(target(4, 8)), Just(target(8, 16)), Just(target(8, 10))]
}

fn check_conv(t: &Target, s: &Slide, act: Activation, shift_cut: u32, shift_bias: u32, seed: u32) {
    let (pp, lanes) = (u32::from(t.pixel_parallel), u32::from(t.input_channel_parallel));
    let taps = s.kernel[0] * s.kernel[1];
    let (groups_in, groups_out) = (s.channels.div_ceil(lanes), s.outputs.div_ceil(lanes));
    let constants = noise((s.outputs * (taps * s.channels + 1)) as usize, seed);
    let input = noise((s.input[0] * s.input[1] * s.channels) as usize, seed + 1);
    let mut output = vec![0; (s.out(0) * s.out(1) * s.outputs) as usize];
    let bias_at = s.outputs * taps * s.channels;

    let mut program = s.load_input(t);
    for o in 0..s.outputs {
        let load = Load {
            bank_id: 2 * pp + o % lanes,
            bank_addr: o / lanes * taps * groups_in,
            jump_write: groups_in,
            jump_read: s.channels,
            length: taps,
            channel: s.channels,
            ddr_addr: o * taps * s.channels,
            ..Load::default()
        };
        program.push(load.into());
    }
    let bias =
        Load { bank_id: 2 * pp + lanes + 1, bank_addr: 5, channel: s.outputs, ddr_addr: bias_at, ..Load::default() };
    program.push(bias.into());
    // As many rows as banks allow, counted in whole groups of output banks.
    for y0 in (0..s.out(0)).step_by(pp as usize) {
        let rows = (s.out(0) - y0).min(pp);
        let (bank_id_in, stride_offset_in, [a0, a1, a2, a3]) = s.window(t, y0);
        let [pad_top, pad_left, pad_bottom, pad_right] = s.pads(y0, rows, 15);
        let (bank_id_out, bank_addr_out) = s.out_row(t, y0);
        program.push(
            ConvInit {
                kernel_h: s.kernel[0],
                kernel_w: s.kernel[1],
                stride_h: s.stride[0],
                stride_w: s.stride[1],
                shift_cut,
                shift_bias,
                act_type: act.code().unwrap(),
                jump_read: groups_in,
                jump_read_endl: s.input[1] * groups_in,
                jump_write: groups_out,
                jump_write_endl: s.out(1) * groups_out,
                stride_out: s.stride_out,
                stride_offset_in,
                stride_offset_out: 0,
                valid_pixel_parallel: rows,
            }
            .into(),
        );
        for g in 0..groups_out {
            program.push(
                Conv {
                    bank_id_in,
                    bank_addr_in: a0,
                    bank_addr_in_1: a1,
                    bank_addr_in_2: a2,
                    bank_addr_in_3: a3,
                    pad_top,
                    pad_left,
                    pad_bottom,
                    pad_right,
                    channel_group: groups_in,
                    channel_offset: groups_in * lanes - s.channels,
                    length: s.out(1),
                    bank_addr_weights: g * taps * groups_in,
                    bank_addr_bias: 5 + g,
                    bank_id_out,
                    bank_addr_out: bank_addr_out + g,
                }
                .into(),
            );
        }
    }
    program.extend(s.save_output(t));
    program.push(End {}.into());
    run(t, &program, &constants, &mut input.clone(), &mut output).unwrap_or_else(|e| panic!("{e}"));

    let weight = |o: u32, ky: u32, kx: u32, c: u32| {
        i64::from(constants[(((o * s.kernel[0] + ky) * s.kernel[1] + kx) * s.channels + c) as usize] as i8)
    };
    s.each(|y, x| {
        for o in 0..s.outputs {
            let mut sum = 0;
            for (ky, kx) in (0..s.kernel[0]).flat_map(|ky| (0..s.kernel[1]).map(move |kx| (ky, kx))) {
                for c in 0..s.channels {
                    let v = s.element(&input, y * s.stride[0] + ky, x * s.stride[1] + kx, c);
                    sum += v.unwrap_or(0) * weight(o, ky, kx, c);
                }
            }
            // Doubled, so that the bias of shift −1 (field 0) is whole.
            let acc = 2 * sum + (i64::from(constants[(bias_at + o) as usize] as i8) << shift_bias);
            let want = match act {
                Activation::None => round(acc, shift_cut + 1),
                Activation::Relu => round(acc, shift_cut + 1).max(0),
                Activation::LeakyRelu if acc < 0 => round(acc * 26, shift_cut + 9),
                Activation::LeakyRelu => round(acc, shift_cut + 1),
                // Six in output steps, clamped after rounding: the same where six is a whole number of steps.
                Activation::Relu6 { pos } => round(acc, shift_cut + 1).clamp(0, 6 << pos),
            };
            let got = output[((y * s.out(1) + x) * s.outputs + o) as usize] as i8;
            assert_eq!(i64::from(got), want, "{s:?} row {y} column {x} channel {o}");
        }
    });
}

fn check_alu(t: &Target, s: &Slide, mode: u32, shift_cut: u32, shift_bias: u32, seed: u32) {
    let s = &Slide { outputs: s.channels, ..*s };
    let (pp, lanes) = (u32::from(t.pixel_parallel), u32::from(t.input_channel_parallel));
    let taps = s.kernel[0] * s.kernel[1];
    let groups = s.channels.div_ceil(lanes);
    let constants = noise((s.channels * (taps + 1)) as usize, seed);
    let mut input = noise((s.input[0] * s.input[1] * s.channels) as usize, seed + 1);
    let mut output = vec![0; (s.out(0) * s.out(1) * s.channels) as usize];
    let weights = Load {
        bank_id: 2 * pp + lanes,
        bank_addr: 3,
        jump_write: groups,
        jump_read: s.channels,
        length: taps,
        channel: s.channels,
        ..Load::default()
    };
    let bias = Load {
        bank_id: 2 * pp + lanes + 1,
        bank_addr: 1,
        channel: s.channels,
        ddr_addr: taps * s.channels,
        ..Load::default()
    };
    let mut program = s.load_input(t);
    program.extend([Inst::from(weights), bias.into()]);
    let factor = 21;
    for y0 in (0..s.out(0)).step_by(usize::from(t.alu_pixel_parallel)) {
        let rows = (s.out(0) - y0).min(t.alu_pixel_parallel.into());
        let (bank_id_in, stride_offset_in, [a0, a1, a2, a3]) = s.window(t, y0);
        let [pad_top, pad_left, pad_bottom, pad_right] = s.pads(y0, rows, 255);
        let (bank_id_out, bank_addr_out) = s.out_row(t, y0);
        let init = AluInit {
            exec_mode: mode,
            kernel_h: s.kernel[0],
            kernel_w: s.kernel[1],
            stride_h: s.stride[0],
            stride_w: s.stride[1],
            length: s.out(1),
            channel_group: groups,
            channel_offset: groups * lanes - s.channels,
            shift_cut,
            shift_bias,
            multi_factor: factor,
            jump_read: groups,
            jump_read_endl: s.input[1] * groups,
            jump_write: groups,
            jump_write_endl: s.out(1) * groups,
            jump_read_weights: groups,
            stride_out: s.stride_out,
            stride_offset_in,
            // The packed row that y0 has in its bank.
            stride_offset_out: 0,
            ..AluInit::default()
        };
        let alu = Alu {
            bank_id_in,
            bank_addr_in: a0,
            bank_addr_in_1: a1,
            bank_addr_in_2: a2,
            bank_addr_in_3: a3,
            valid_pixel_parallel: rows,
            pad_top,
            pad_left,
            pad_bottom,
            pad_right,
            bank_addr_weights: 3,
            bank_addr_bias: 1,
            bank_id_out,
            bank_addr_out,
            ..Alu::default()
        };
        program.extend([Inst::from(init), alu.into()]);
    }
    program.extend(s.save_output(t));
    program.push(End {}.into());
    run(t, &program, &constants, &mut input, &mut output).unwrap_or_else(|e| panic!("{e}"));
    s.each(|y, x| {
        for c in 0..s.channels {
            let window: Vec<(Option<i64>, i64)> = (0..s.kernel[0])
                .flat_map(|ky| (0..s.kernel[1]).map(move |kx| (ky, kx)))
                .map(|(ky, kx)| {
                    let w = constants[((ky * s.kernel[1] + kx) * s.channels + c) as usize];
                    (s.element(&input, y * s.stride[0] + ky, x * s.stride[1] + kx, c), i64::from(w as i8))
                })
                .collect();
            let sum = |f: fn(i64, i64) -> i64| window.iter().map(|(v, w)| f(v.unwrap_or(0), *w)).sum::<i64>();
            let bias = i64::from(constants[(taps * s.channels + c) as usize] as i8);
            let want = match mode {
                alu_mode::DWCONV => round(2 * sum(|v, w| v * w) + (bias << shift_bias), shift_cut + 1),
                alu_mode::DWCONV_NO_BIAS => round(sum(|v, w| v * w), shift_cut),
                alu_mode::MAX_POOL => round(window.iter().filter_map(|(v, _)| *v).max().unwrap_or(0), shift_cut),
                _ => round(sum(|v, _| v) * i64::from(factor), shift_cut),
            };
            let got = output[((y * s.out(1) + x) * s.channels + c) as usize] as i8;
            assert_eq!(i64::from(got), want, "{s:?} mode {mode} row {y} column {x} channel {c}");
        }
    });
}

/// As many cases as `PROPTEST_CASES` says, of which any share may be too large for a bank.
fn any_number() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { max_global_rejects: config.cases.saturating_mul(4).max(1024), ..config }
}

proptest! {
    #![proptest_config(any_number())]

    #[test]
    fn conv_equals_the_loop_nest(
        t in sizes(), s in any_slide(), act in 0usize..4, shift_cut in 2u32..12, shift_bias in 0u32..14, seed in 0u32..1000,
    ) {
        let act = [Activation::None, Activation::Relu, Activation::LeakyRelu, Activation::relu6(4)][act];
        // Keep the input inside one bank.
        let groups = s.channels.div_ceil(t.input_channel_parallel.into());
        prop_assume!(s.kernel[0] * s.kernel[1] * groups * s.outputs.div_ceil(t.input_channel_parallel.into()) <= 2048);
        check_conv(&t, &s, act, shift_cut, shift_bias, seed);
    }

    #[test]
    fn alu_equals_the_loop_nest(
        t in sizes(), s in any_slide(), mode in 0usize..4, shift_cut in 0u32..12, shift_bias in 0u32..14, seed in 0u32..1000,
    ) {
        use alu_mode::*;
        let s = Slide { stride_out: s.stride_out.min(u32::from(t.alu_pixel_parallel)), ..s };
        check_alu(&t, &s, [DWCONV, DWCONV_NO_BIAS, MAX_POOL, AVG_POOL][mode], shift_cut, shift_bias, seed);
    }

    #[test]
    fn elew_equals_the_definition(
        t in sizes(), num in 1u32..=4, multiply: bool, relu: bool, shifts in any::<[u8; 4]>(), shift_write in -3i32..12,
        length in 1u32..9, groups in 1u32..3, seed in 0u32..1000,
    ) {
        let (pp, lanes) = (u32::from(t.pixel_parallel), u32::from(t.input_channel_parallel));
        let rows = u32::from(t.elew_pixel_parallel);
        let channels = groups * lanes;
        // The first bank is such that rows pass the end of the group.
        let start = pp - 1;
        let tensor = rows * length * channels;
        let mut input = noise((num * tensor) as usize, seed);
        let mut output = vec![0; tensor as usize];
        let num_shift = |n: u32| if multiply { 0 } else { u32::from(shifts[n as usize] % 8) };
        let num = if multiply { num.min(2) } else { num };
        let mut program = Vec::new();
        let at = |n: u32, r: u32| ((start + r) % pp, 100 * n + if start + r >= pp { 50 } else { 0 });
        for n in 0..num {
            for r in 0..rows {
                let (bank_id, bank_addr) = at(n, r);
                program.push(Inst::from(Load {
                    bank_id, bank_addr, jump_write: groups, jump_read: channels, length, channel: channels, reg_id: 2,
                    ddr_addr: n * tensor + r * length * channels, ..Load::default()
                }));
            }
            program.push(ElewInit {
                id: n, bank_id_in: start, bank_addr_in: 100 * n, jump_read: groups, jump_read_endl: 50,
                shift_read: num_shift(n), ..ElewInit::default()
            }.into());
        }
        program.push(Elew {
            num, elew_type: if multiply { elew_type::MUL } else { elew_type::ADD }, act_type: relu.into(), shift_write,
            length, channel_group: groups, valid_pixel_parallel: rows, jump_write: groups, jump_write_endl: 50,
            bank_id_out: start, bank_addr_out: 100,
        }.into());
        for r in 0..rows {
            let (bank_id, bank_addr) = at(1, r);
            program.push(Save {
                bank_id, bank_addr, jump_read: groups, jump_write: channels, length, channel: channels, reg_id: 3,
                ddr_addr: r * length * channels, ..Save::default()
            }.into());
        }
        program.push(End {}.into());
        run(&t, &program, &[], &mut input, &mut output).unwrap();
        for (i, got) in output.iter().enumerate() {
            let values = (0..num).map(|n| i64::from(input[n as usize * tensor as usize + i] as i8) << num_shift(n));
            let exact: i64 = if multiply { values.product() } else { values.sum() };
            let exact = if relu { exact.max(0) } else { exact };
            let want = round(exact << (-shift_write).max(0), shift_write.max(0) as u32);
            prop_assert_eq!(i64::from(*got as i8), want);
        }
    }

    /// Words that mean something, with wild values: never a panic, whatever happens.
    #[test]
    fn random_programs_end_in_a_result_or_a_fault(t in sizes(), seed in any::<u32>()) {
        let raw = noise(4 * 6 * 40, seed);
        let mut code = Vec::new();
        for (n, words) in raw.chunks(24).enumerate() {
            let layout = &t.isa.layout()[usize::from(words[0]) % t.isa.layout().len()];
            for (i, word) in words.chunks(4).take(layout.words.into()).enumerate() {
                let word = u32::from_le_bytes(word.try_into().unwrap()) & layout.used[i];
                // Half the words get small fields, so that some instructions get far.
                let word = if n % 2 == 0 { word & 0x0F0F_0F0F } else { word };
                let head = if i == 0 { u32::from(layout.kind.opcode()) << 28 | word & 0x0FFF_FFFF } else { word };
                code.extend((head & layout.used[i]).to_le_bytes());
            }
        }
        let mut banks = vec![0; t.bank_bytes()];
        let (mut a, mut b, mut c) = (vec![0; 4096], vec![1; 4096], vec![2; 4096]);
        let mut machine = Machine::new(&t, &mut banks).unwrap();
        let mut memory = Memory { constants: &[3; 4096], workspace: &mut a, inputs: &mut b, outputs: &mut c };
        let _ = machine.run(&JOB, &code, &mut memory);
        // One by one as well, so that a fault does not hide what follows.
        let mut at = 0;
        while let Ok((line, words)) = codec::decode(t.isa, code.get(at..).unwrap_or(&[])) {
            let _ = machine.execute(&line.inst, &mut memory);
            at += 4 * words;
        }
        prop_assert!(at == code.len());
    }
}

#[test]
fn hard_sigmoid_is_the_published_formula() {
    let t = target(8, 16);
    for (input_pos, output_pos) in [(0, 7), (2, 7), (4, 7), (5, 8), (15, 7)] {
        let mut input: Vec<u8> = (0..=255).collect();
        let mut output = vec![0; 256];
        let program = [
            Load { reg_id: 2, length: 16, channel: 16, jump_read: 16, ..Load::default() }.into(),
            AluInit {
                exec_mode: alu_mode::HSIGMOID,
                shift_cut: 14 + input_pos - output_pos,
                shift_bias: input_pos,
                length: 16,
                ..AluInit::default()
            }
            .into(),
            Alu { bank_id_out: 8, ..Alu::default() }.into(),
            Save { bank_id: 8, reg_id: 3, length: 16, channel: 16, jump_write: 16, ..Save::default() }.into(),
            End {}.into(),
        ];
        run(&t, &program, &[], &mut input, &mut output).unwrap();
        for (x, y) in input.iter().zip(&output) {
            let exact = (i64::from(*x as i8) * 2731 + 3 * 2731 * (1 << input_pos)).max(0);
            assert_eq!(i64::from(*y as i8), round(exact, 14 + input_pos - output_pos), "{x} at {input_pos}");
        }
    }
}

#[test]
fn channel_augmentation_is_a_load_with_overlapping_pixels() {
    // 1 × 10 pixels of 3 channels, kernel 1 × 3: nine bytes as channels, kernel_w 1, against the plain form.
    let t = target(4, 8);
    let mut input = noise(30, 4);
    let constants = noise(9, 5);
    let mut output = vec![0; 8];
    let program = [
        Load { reg_id: 2, length: 8, channel: 9, jump_read: 3, jump_write: 2, ..Load::default() }.into(),
        Load { bank_id: 8, channel: 9, ..Load::default() }.into(),
        Load { bank_id: 17, reg_id: 2, channel: 1, ..Load::default() }.into(),
        ConvInit { shift_cut: 6, jump_read: 2, ..ConvInit::default() }.into(),
        Conv { channel_group: 2, channel_offset: 7, length: 8, bank_id_out: 4, ..Conv::default() }.into(),
        Save { bank_id: 4, reg_id: 3, length: 8, ..Save::default() }.into(),
        End {}.into(),
    ];
    run(&t, &program, &constants, &mut input, &mut output).unwrap();
    for (x, got) in output.iter().enumerate() {
        let products = (0..9).map(|k| i64::from(input[3 * x + k] as i8) * i64::from(constants[k] as i8));
        let acc = 2 * products.sum::<i64>() + i64::from(input[0] as i8);
        assert_eq!(i64::from(*got as i8), round(acc, 7));
    }
}

#[test]
fn padding_pixels_of_a_load_are_zero() {
    let t = target(4, 8);
    let mut output = vec![9; 24];
    let load = Load { reg_id: 2, channel: 8, jump_read: 8, pad_start: 1, pad_end: 1, ..Load::default() };
    let save = Save { reg_id: 3, length: 3, channel: 8, jump_write: 8, ..Save::default() };
    run(&t, &[load.into(), save.into(), End {}.into()], &[], &mut [7; 8], &mut output).unwrap();
    assert_eq!(output, [[0; 8], [7; 8], [0; 8]].concat());
}

#[test]
fn faults_name_the_instruction() {
    let t = target(4, 8);
    let check = |program: &[Inst], index: u32, fault: Fault, text: &str| {
        let error = run(&t, program, &[0; 64], &mut [0; 64], &mut [0; 64]).unwrap_err();
        assert_eq!((error.index, error.fault), (index, fault));
        assert_eq!(format!("{error}"), text);
    };
    let load = Load { bank_id: 30, ..Load::default() };
    check(
        &[load.into()],
        0,
        Fault::Bank { bank: 30 },
        "instruction 0 LOAD at byte 0: bank 30 does not exist or is of the wrong kind",
    );
    let load = Load { channel: 40, ddr_addr: 40, ..Load::default() };
    check(
        &[Load::default().into(), load.into()],
        1,
        Fault::Memory { reg_id: 0, start: 40, bytes: 40 },
        "instruction 1 LOAD at byte 20: 40 bytes at 40 are outside the region of base register 0",
    );
    let load = Load { bank_id: 17, bank_addr: 2047, channel: 9, ..Load::default() };
    check(
        &[load.into()],
        0,
        Fault::Address { address: 2049, depth: 2048 },
        "instruction 0 LOAD at byte 0: bank address 2049 is outside 0..2048",
    );
    check(
        &[Save::default().into()],
        0,
        Fault::Register { reg_id: 0 },
        "instruction 0 SAVE at byte 0: base register 0 has no region that allows this",
    );
    check(
        &[Conv::default().into()],
        0,
        Fault::Uninitialised { inst: "CONVINIT" },
        "instruction 0 CONV at byte 0: no CONVINIT came before",
    );
    let init = ConvInit { valid_pixel_parallel: 5, ..ConvInit::default() };
    check(
        &[init.into(), Conv::default().into()],
        1,
        Fault::Value { field: "valid_pixel_parallel", value: 5, max: 4 },
        "instruction 1 CONV at byte 16: valid_pixel_parallel 5 is above 4",
    );
    let init = ConvInit { act_type: 4, ..ConvInit::default() };
    check(
        &[init.into(), Conv::default().into()],
        1,
        Fault::Unsupported { field: "act_type", value: 4 },
        "instruction 1 CONV at byte 16: act_type 4 is not modelled",
    );
    check(&[], 0, Fault::NoEnd, "instruction 0 at byte 0: the code has no END");
    let far = Conv { bank_id_out: 5, ..Conv::default() };
    let init = ConvInit { valid_pixel_parallel: 4, ..ConvInit::default() };
    check(
        &[init.into(), far.into()],
        1,
        Fault::Rows { row: 3 },
        "instruction 1 CONV at byte 16: row 3 is past the bank addresses of the instruction",
    );
}

#[test]
fn a_bias_beyond_32_bits_is_an_overflow() {
    let t = target(4, 8);
    let program = [
        Load { bank_id: 17, channel: 8, ..Load::default() }.into(),
        ConvInit { shift_bias: 30, ..ConvInit::default() }.into(),
        Conv { bank_id_out: 4, ..Conv::default() }.into(),
        End {}.into(),
    ];
    let error = run(&t, &program, &[3; 64], &mut [], &mut []).unwrap_err();
    assert!(matches!(error.fault, Fault::Accumulator { .. }), "{error}");
}
