//! A small deployable for target `cpu` with one layer of every kind, and samples for it.

use shiftwise_compile::deployable::{EmitError, Parts, write};
use shiftwise_core::fix::FixPos;
use shiftwise_core::model::{
    Act, AddOp, ConcatOp, ConvOp, CpuOp, DType, Facts, MultiplyOp, PReluOp, PadOp, PermuteOp, Place, PoolKind, PoolOp,
    Region, Role, SoftmaxOp, Step, TensorDesc, TensorId, TensorList, UpSampleOp,
};
use shiftwise_core::shape::{Shape, Window};

/// Rows, columns and channels of the input.
pub const INPUT: [u16; 3] = [9, 8, 3];
/// Bytes of the input.
pub const INPUT_BYTES: usize = 9 * 8 * 3;
/// Number of tensors, the input included.
pub const TENSORS: u16 = 20;
/// Number of steps.
pub const STEPS: u16 = 19;

/// Bytes that look random and are the same everywhere.
pub fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Bytes of the input of sample `n`.
pub fn sample(n: u32) -> Vec<u8> {
    noise(1000 + n, INPUT_BYTES)
}

/// The deployable: quantized convolutions (strided, dilated, grouped, depthwise, transposed), both poolings, element-wise
/// layers, layers that move bytes, a requantization, a dense layer, floats and a softmax. Memory of dead tensors is reused, so each tensor must be looked at in time.
pub fn deployable() -> Result<Vec<u8>, EmitError> {
    let tensor = |name, dims: &[u32], dtype, region, offset, role| TensorDesc {
        name,
        origin: name,
        shape: Shape::new(dims).expect("at most four dimensions"),
        dtype,
        pos: FixPos(4),
        place: Place { region, offset },
        role,
    };
    let inner = |name, dims: &[u32], offset| tensor(name, dims, DType::I8, Region::Workspace, offset, Role::Inner);
    let tensors = [
        tensor("input", &[9, 8, 3], DType::I8, Region::Inputs, 0, Role::Input(0)),
        inner("conv", &[9, 8, 6], 0),
        inner("strided", &[5, 4, 6], 448),
        inner("dilated", &[5, 4, 6], 0),
        inner("depthwise", &[5, 4, 6], 128),
        // In place: the first operand's memory.
        inner("add", &[5, 4, 6], 0),
        inner("max", &[2, 2, 6], 256),
        inner("average", &[1, 1, 6], 288),
        inner("shifted", &[6], 304),
        inner("dense", &[10], 320),
        tensor("floats", &[10], DType::F32, Region::Workspace, 336, Role::Inner),
        tensor("softmax", &[10], DType::F32, Region::Outputs, 0, Role::Output(0)),
        inner("prelu", &[5, 4, 6], 576),
        // In place.
        inner("hard sigmoid", &[5, 4, 6], 576),
        inner("upsampled", &[10, 8, 6], 704),
        inner("padded", &[7, 5, 6], 1200),
        inner("transposed", &[12, 10, 3], 1424),
        // A vector for each channel, and one operand in place.
        inner("product", &[10, 8, 6], 704),
        inner("joined", &[10, 8, 12], 1904),
        inner("permuted", &[12, 10, 8], 2880),
    ];
    let mut constants = Vec::new();
    let mut place = |seed, len: usize| {
        let at = constants.len() as u32;
        constants.extend(noise(seed, len));
        constants.resize(constants.len().next_multiple_of(4), 0);
        at
    };
    let same = |kernel, stride, dilation, before, after| Window {
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [dilation; 2],
        pad_before: before,
        pad_after: after,
    };
    let conv = |input, output, in_dims, out_dims, window, kernel, shift_cut, act| ConvOp {
        input: TensorId(input),
        output: TensorId(output),
        in_dims,
        out_dims,
        window,
        groups: if (input, output) == (2, 3) { 2 } else { 1 },
        kernel,
        bias: None,
        fine: 0,
        shift_cut,
        act,
    };
    let kernels = [
        place(1, 6 * 3 * 3 * 3),
        place(2, 6 * 3 * 3 * 6),
        place(3, 6 * 2 * 2 * 3),
        place(4, 3 * 3 * 6),
        place(5, 10 * 6),
        place(7, 3 * 3 * 3 * 6),
        place(8, 6),
    ];
    let biases = place(6, 4 * 6);
    // Biases of 16 bits: larger ones would drown the products.
    for i in 0..6 {
        let at = biases as usize + 4 * i;
        let value = i32::from(i16::from_le_bytes([constants[at], constants[at + 1]]));
        constants[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let small = [5, 4, 6];
    let pool = |input, output, in_dims, out_dims, window, kind, shift| PoolOp {
        input: TensorId(input),
        output: TensorId(output),
        in_dims,
        out_dims,
        window,
        kind,
        shift,
        act: Act::None,
    };
    let operands = [3, 0, 4, 0];
    let twice = [17, 0, 17, 0];
    let ops = [
        CpuOp::Conv(ConvOp {
            bias: Some(biases),
            ..conv(0, 1, INPUT, [9, 8, 6], same(3, 1, 1, [1; 2], [1; 2]), kernels[0], 9, Act::Relu)
        }),
        CpuOp::Conv(conv(1, 2, [9, 8, 6], small, same(3, 2, 1, [1, 0], [1, 1]), kernels[1], 9, Act::None)),
        CpuOp::Conv(conv(2, 3, small, small, same(2, 1, 3, [1; 2], [2; 2]), kernels[2], 8, Act::ReluMax(20_000))),
        CpuOp::Depthwise(conv(2, 4, small, small, same(3, 1, 1, [1; 2], [1; 2]), kernels[3], 7, Act::None)),
        CpuOp::Add(AddOp {
            inputs: TensorList(&operands),
            shift_read: &[0, 1],
            output: TensorId(5),
            act: Act::None,
            shift_write: 1,
        }),
        CpuOp::PRelu(PReluOp {
            input: TensorId(5),
            output: TensorId(12),
            alpha: kernels[6],
            alpha_shape: Shape::new(&[6]).expect("one dimension"),
            shift_positive: 0,
            shift_negative: 6,
        }),
        CpuOp::HardSigmoid { input: TensorId(12), output: TensorId(13), shift: 12 },
        CpuOp::UpSample(UpSampleOp {
            input: TensorId(13),
            output: TensorId(14),
            in_dims: small,
            factor: [2, 2],
            shift: 1,
        }),
        CpuOp::Pad(PadOp { input: TensorId(13), output: TensorId(15), in_dims: small, before: [1, 0], after: [1, 1] }),
        CpuOp::ConvTranspose(conv(
            15,
            16,
            [7, 5, 6],
            [12, 10, 3],
            same(3, 2, 1, [2, 1], [1, 0]),
            kernels[5],
            8,
            Act::LeakyRelu,
        )),
        CpuOp::Pool(pool(5, 6, small, [2, 2], same(3, 2, 1, [0, 1], [0, 0]), PoolKind::Max, 0)),
        CpuOp::Pool(pool(6, 7, [2, 2, 6], [1, 1], same(2, 1, 1, [0; 2], [0; 2]), PoolKind::Average(1), 2)),
        CpuOp::Multiply(MultiplyOp {
            inputs: [TensorId(14), TensorId(7)],
            output: TensorId(17),
            shift: 5,
            act: Act::None,
        }),
        CpuOp::Concat(ConcatOp { inputs: TensorList(&twice), shifts: &[0, 0xFF], output: TensorId(18), axis: 2 }),
        CpuOp::Permute(PermuteOp { input: TensorId(18), output: TensorId(19), axes: [2, 0, 1, 0] }),
        CpuOp::Requantize { input: TensorId(7), output: TensorId(8), shift: -1, act: Act::None },
        CpuOp::Conv(conv(8, 9, [1, 1, 6], [1, 1, 10], Window::POINT, kernels[4], 7, Act::None)),
        CpuOp::Dequantize { input: TensorId(9), output: TensorId(10) },
        CpuOp::Softmax(SoftmaxOp { input: TensorId(10), output: TensorId(11), axis: 10 }),
    ];
    write(&Parts {
        facts: Facts {
            name: "small",
            target: "cpu",
            tool: "shiftwise-tests",
            workspace_bytes: 3840,
            input_bytes: INPUT_BYTES as u32,
            output_bytes: 40,
            self_test_samples: 0,
        },
        fingerprint: 0,
        tensors: &tensors,
        steps: &ops.map(Step::Cpu),
        metadata: &[],
        layers: &[],
        self_test: &[],
        constants: &constants,
        code: &[],
    })
}
