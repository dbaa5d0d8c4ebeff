//! What machines take: instructions, deployables, frames.

use shiftwise_core::isa::codec;
use shiftwise_core::isa::described::InstructionSet;
use shiftwise_core::link::{Deframer, FRAME, decode, decode_answer, encode, encode_answer, version_of};
use shiftwise_core::listing;
use shiftwise_core::model::{CpuOp, Deployable, Region, Step, TensorDesc, TensorId, crc32};
use shiftwise_core::run::{Memory, NoDpu, Observer, run};
use shiftwise_core::target::IsaVersion;
use shiftwise_sim::{Costs, SimDpu};

/// Most bytes of a region, and most products, of a deployable that is run.
const WORK: u64 = 1 << 20;

/// Code of every instruction set: what decodes is printed, and encodes to the bytes that it came from.
pub(super) fn code(bytes: &[u8]) {
    for version in IsaVersion::ALL {
        for (at, line) in codec::program(*version, bytes) {
            let Ok(line) = line else { break };
            let words = codec::encode(*version, &line).expect("what was decoded encodes");
            let again: Vec<u8> = words.bytes().collect();
            assert!(bytes[at..].starts_with(&again) && !again.is_empty(), "byte {at}: {line}");
        }
    }
    for set in InstructionSet::all_names().filter_map(InstructionSet::named) {
        for (at, item) in set.program(bytes) {
            let Ok(item) = item else { break };
            let again: Vec<u8> = item.bytes().collect();
            assert!(bytes[at..].starts_with(&again) && !again.is_empty(), "{}: byte {at}: {item}", set.name);
        }
    }
}

/// A deployable with the length and the checksum that belong to it.
pub fn with_checksum(mut file: Vec<u8>) -> Vec<u8> {
    let length = (file.len() as u32).to_le_bytes();
    if let Some(field) = file.get_mut(16..20) {
        field.copy_from_slice(&length);
    }
    if let Some((body, checksum)) = file.split_last_chunk_mut::<4>() {
        *checksum = crc32(body).to_le_bytes();
    }
    file
}

/// Looks at every byte of every tensor.
struct Sum(u64);

impl Observer for Sum {
    fn tensor(&mut self, _: TensorId, _: &TensorDesc<'_>, bytes: &[u8]) {
        self.0 += bytes.iter().map(|b| u64::from(*b)).sum::<u64>();
    }
}

/// About how many products and moves a step takes.
fn work(model: &Deployable<'_>, op: &CpuOp<'_>) -> u64 {
    let output = model.tensor(op.output()).map_or(0, |t| u64::from(t.bytes()));
    let taps = |kernel: [u16; 2]| u64::from(kernel[0]) * u64::from(kernel[1]);
    let each = match op {
        CpuOp::Conv(c) | CpuOp::Depthwise(c) | CpuOp::ConvTranspose(c) => {
            taps(c.window.kernel).saturating_mul(u64::from(c.in_dims[2]))
        }
        CpuOp::Pool(p) => taps(p.window.kernel),
        _ => 64,
    };
    output.saturating_mul(each)
}

/// A deployable: listed, and run on the CPU or its DPU.
pub(super) fn deployable(bytes: &[u8]) {
    let file = with_checksum(bytes.to_vec());
    let Ok(model) = Deployable::parse(&file) else { return };
    let mut text = String::new();
    let _ = listing::write(&model, IsaVersion::Dpuczdx8gIsa1, &mut text);
    let sizes = [Region::Workspace, Region::Inputs, Region::Outputs].map(|r| model.region_bytes(r));
    let steps = model.steps().map(|step| match step {
        Step::Cpu(op) => work(&model, &op),
        Step::Dpu(_) => 0,
    });
    // Larger ones are legitimate, and take longer than a fuzzer should.
    if sizes.iter().any(|n| *n as u64 > WORK) || steps.fold(0, u64::saturating_add) > 4 * WORK {
        return;
    }
    let [mut workspace, mut inputs, mut outputs] = sizes.map(|n| vec![1; n]);
    let mut memory =
        Memory { constants: model.constants(), workspace: &mut workspace, inputs: &mut inputs, outputs: &mut outputs };
    let mut seen = Sum(0);
    // By fingerprint alone: a name in a file is no path.
    match shiftwise_targets::targets().into_iter().find(|t| t.fingerprint == model.fingerprint()) {
        Some(target) => {
            let clock = target.clock_mhz;
            if let Ok(mut sim) = SimDpu::new(target, clock, Costs::default())
                && run(&model, &mut sim, &mut memory, &mut seen).is_ok()
            {
                let _ = sim.report(&model);
            }
        }
        None => drop(run(&model, &mut NoDpu, &mut memory, &mut seen)),
    }
}

/// Bytes as they come, and as the message of a frame whose checksum is right.
pub(super) fn link(bytes: &[u8]) {
    let mut deframer = Deframer::new();
    for byte in bytes {
        if let Some(Ok(())) = deframer.push(*byte) {
            message(deframer.payload());
        }
    }
    message(&[bytes, &crc32(bytes).to_le_bytes()].concat());
}

/// A frame's payload as a request and as an answer: what is understood is written as it was.
fn message(payload: &[u8]) {
    let _ = version_of(payload);
    let mut buffer = [0; FRAME];
    if let Ok((sequence, request)) = decode(payload)
        && let Ok(frame) = encode(sequence, &request, &mut buffer)
    {
        let mut deframer = Deframer::new();
        let whole = frame.iter().filter_map(|byte| deframer.push(*byte)).next();
        assert!(whole == Some(Ok(())) && decode(deframer.payload()) == Ok((sequence, request)));
    }
    if let Ok((number, answer)) = decode_answer(payload)
        && let Ok(frame) = encode_answer(number, &answer, &mut buffer)
    {
        let mut deframer = Deframer::new();
        let whole = frame.iter().filter_map(|byte| deframer.push(*byte)).next();
        assert!(whole == Some(Ok(())) && decode_answer(deframer.payload()).is_ok());
    }
}
