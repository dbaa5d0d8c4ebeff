//! POOL and DPTWISE against loop nests, and what must not pass in silence.

use std::string::ToString;

use super::*;
use crate::exec::pool_factor;
use crate::isa::{DptWise, DwInit, Pool, PoolInit, pool_type};

/// 3 rows × 6 columns × 4 channels in, 2 rows × 5 columns out, a window of 2 × 2, stride 1.
const IN: [usize; 3] = [3, 6, 4];
const OUT: [usize; 3] = [2, 5, 4];

fn element(x: &[u8], y: usize, column: usize, c: usize) -> i64 {
    i64::from(x[(y * IN[1] + column) * IN[2] + c] as i8)
}

/// Rows into banks 0, 1, 2; `inner`; rows out of banks 4, 5.
fn around(inner: &[Inst]) -> Vec<Inst> {
    let load = |r: u32| Load {
        bank_id: r,
        length: 6,
        channel: 4,
        jump_read: 4,
        reg_id: 2,
        ddr_addr: 24 * r,
        ..Load::default()
    };
    let save = |r: u32| Save {
        bank_id: 4 + r,
        length: 5,
        channel: 4,
        jump_write: 4,
        reg_id: 3,
        ddr_addr: 20 * r,
        ..Save::default()
    };
    let mut program: Vec<Inst> = (0..3).map(|r| load(r).into()).collect();
    program.extend_from_slice(inner);
    program.extend((0..2).map(|r| Inst::from(save(r))));
    program.push(End {}.into());
    program
}

fn pooled(init: PoolInit, pool: Pool, input: &mut [u8]) -> Result<Vec<u8>, ExecError> {
    let t = target(4, 4);
    let mut output = vec![0; OUT.iter().product()];
    let init = PoolInit { kernel_h: 2, kernel_w: 2, valid_pixel_parallel: 2, ..init };
    let pool = Pool { length: 5, bank_id_out: 4, pad_bottom: 1, pad_right: 1, ..pool };
    run(&t, &around(&[init.into(), pool.into()]), &[], input, &mut output)?;
    Ok(output)
}

fn check(got: &[u8], want: impl Fn(usize, usize, usize) -> i64) {
    for (y, x, c) in (0..OUT[0]).flat_map(|y| (0..OUT[1]).flat_map(move |x| (0..OUT[2]).map(move |c| (y, x, c)))) {
        let want = want(y, x, c).clamp(-128, 127);
        assert_eq!(i64::from(got[(y * OUT[1] + x) * OUT[2] + c] as i8), want, "({y}, {x}, {c})");
    }
}

fn window(input: &[u8], y: usize, x: usize, c: usize) -> [i64; 4] {
    [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(ky, kx)| element(input, y + ky, x + kx, c))
}

#[test]
fn pool_takes_the_maximum_and_shifts_half_up() {
    let mut input = noise(IN.iter().product(), 5);
    for shift_cut in [0, 2] {
        let got = pooled(PoolInit { shift_cut, ..PoolInit::default() }, Pool::default(), &mut input).unwrap();
        check(&got, |y, x, c| {
            let max = window(&input, y, x, c).into_iter().max().unwrap();
            if shift_cut == 0 { max } else { (max + 2).div_euclid(4) }
        });
    }
}

#[test]
fn pool_averages_with_the_quantizers_factors() {
    let mut input = noise(IN.iter().product(), 6);
    let average = PoolInit { pool_type: pool_type::AVERAGE, ..PoolInit::default() };
    let got = pooled(average, Pool::default(), &mut input).unwrap();
    // 2 × 2 is exact: m = 1, n = 2.
    check(&got, |y, x, c| (window(&input, y, x, c).into_iter().sum::<i64>() + 2).div_euclid(4));
    assert_eq!(pool_factor(3, 3), Some((7, 6)));
    assert_eq!(pool_factor(9, 1), None);
}

#[test]
fn dptwise_is_a_depthwise_convolution() {
    let t = target(4, 4);
    let mut input = noise(IN.iter().product(), 7);
    // Four taps of four channels, then four biases.
    let constants = noise(20, 8);
    let taps = Load { bank_id: 8 + 4, length: 4, channel: 4, jump_read: 4, ..Load::default() };
    let biases = Load { bank_id: 8 + 4 + 1, channel: 4, ddr_addr: 16, ..Load::default() };
    let init =
        DwInit { kernel_h: 2, kernel_w: 2, shift_cut: 6, shift_bias: 3, valid_pixel_parallel: 2, ..DwInit::default() };
    for act_type in [0, 1] {
        let wise = DptWise { length: 5, bank_id_out: 4, pad_bottom: 1, pad_right: 1, act_type, ..DptWise::default() };
        let mut output = vec![0; OUT.iter().product()];
        let program = around(&[taps.into(), biases.into(), init.into(), wise.into()]);
        run(&t, &program, &constants, &mut input, &mut output).unwrap();
        check(&output, |y, x, c| {
            let weight = |tap: usize| i64::from(constants[tap * 4 + c] as i8);
            let sum: i64 = window(&input, y, x, c).into_iter().enumerate().map(|(tap, v)| v * weight(tap)).sum();
            let acc = 2 * sum + i64::from(constants[16 + c] as i8) * 8;
            let acc = if act_type == 1 { acc.max(0) } else { acc };
            (acc + 64).div_euclid(128)
        });
    }
}

#[test]
fn what_is_unknown_about_pool_is_an_error() {
    let mut input = noise(IN.iter().product(), 9);
    let fault = |init: PoolInit, pool: Pool, input: &mut [u8]| pooled(init, pool, input).unwrap_err().to_string();
    let unknown = fault(PoolInit { pool_type: 3, ..PoolInit::default() }, Pool::default(), &mut input);
    assert_eq!(unknown, "instruction 4 POOL at byte 68: pool_type 3 is not modelled");
    let second = fault(PoolInit::default(), Pool { downsample_kernel_w: 2, ..Pool::default() }, &mut input);
    assert!(second.contains("downsample_kernel_w 2 is not modelled"), "{second}");
    let t = target(4, 4);
    let mut none = [0; 40];
    let error = run(&t, &[Inst::from(Pool::default())], &[], &mut input, &mut none).unwrap_err();
    assert_eq!(error.to_string(), "instruction 0 POOL at byte 0: no POOLINIT came before");
    let error = run(&t, &[Inst::from(DptWise::default())], &[], &mut input, &mut none).unwrap_err();
    assert_eq!(error.to_string(), "instruction 0 DPTWISE at byte 0: no DWINIT came before");
}

#[test]
fn a_row_longer_than_its_bank_is_an_error() {
    let t = target(4, 4);
    let mut input = vec![0; 5000];
    let mut output = vec![0; 16];
    // 3 addresses a pixel: 1024 pixels are 3072 addresses of a bank of 2048.
    let load = Load { length: 1024, channel: 4, jump_write: 3, reg_id: 2, ..Load::default() };
    let error = run(&t, &[load.into()], &[], &mut input, &mut output).unwrap_err();
    assert_eq!(error.to_string(), "instruction 0 LOAD at byte 0: bank address 3070 is outside 0..2048");
    let init = ConvInit { jump_write: 3, ..ConvInit::default() };
    let conv = Conv { length: 1024, bank_id_out: 4, ..Conv::default() };
    let error = run(&t, &[init.into(), conv.into()], &[], &mut input, &mut output).unwrap_err();
    assert!(error.to_string().contains("CONV at byte 16: bank address 3070 is outside"), "{error}");
}

#[test]
fn an_accumulator_beyond_32_bits_is_an_error() {
    let t = target(4, 4);
    let mut input = noise(72, 3);
    let mut output = vec![0; 40];
    // Weights and bias of the first group are what banks hold; the bias alone, shifted by 32, is too large.
    let bias = Load { bank_id: 13, channel: 4, ..Load::default() };
    let init = ConvInit { shift_bias: 32, ..ConvInit::default() };
    let conv = Conv { length: 1, bank_id_out: 4, ..Conv::default() };
    let error = run(&t, &[bias.into(), init.into(), conv.into()], &[1, 1, 1, 1], &mut input, &mut output).unwrap_err();
    assert!(error.to_string().contains("does not fit 32 bits"), "{error}");
    // Banks in which sums could wrap make no machine.
    let mut deep = t.clone();
    let weights = deep.banks.iter_mut().find(|g| g.kind == BankKind::ConvWeights).unwrap();
    (weights.depth, weights.width) = (1 << 16, 4);
    let mut banks = vec![0; deep.bank_bytes()];
    assert!(Machine::new(&deep, &mut banks).is_none());
}
