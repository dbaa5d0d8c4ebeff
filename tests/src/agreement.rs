//! Whether all that compute a network compute the same: float engine, integer engine, CPU programs, machine, simulator.

use std::collections::BTreeMap;

use shiftwise::dump::Values;
use shiftwise::golden::{DumpOptions, Numerics, golden};
use shiftwise_compile::{self as compile, CpuOptions, DpuOptions, Program};
use shiftwise_core::exec::Machine;
use shiftwise_core::model::{Deployable, Region, TensorDesc, TensorId};
use shiftwise_core::run::{Dpu, Memory, NoDpu, Observer, run};
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::Op;
use shiftwise_integer::engine::Engine;
use shiftwise_integer::graph::{IntGraph, IntOp, IntOpKind, Kind};
use shiftwise_integer::lower::lower;
use shiftwise_quant::owners::conv_positions;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;
use shiftwise_sim::{Costs, SimDpu};
use shiftwise_tensor::tensor::Tensor;

use crate::networks::random_samples;
use crate::reference::evaluate;

/// What came of a comparison in which nothing disagreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All computed the network, and the same.
    Agree,
    /// The network was refused, for a reason that random networks may give.
    Refused(String),
}

/// Why a network may be refused that is not damaged in any way: numbers that leave what f32, the accumulators, the shifts
/// or the file can hold, and which nothing adjusts.
const REFUSALS: &[&str] = &[
    "a value is not finite",
    "ReLU6 at output position",
    "outside -31..=31",
    "outside 0..=15",
    "32-bit accumulator",
    "bits below the accumulator",
    "up to 20 fit 32 bits",
    "is too large for a deployable",
    "can be added",
    "up to 4 can be",
    "lies wholly in the padding",
];

/// The reason of a legitimate refusal; any other error is given back.
pub fn refusal(error: Error) -> Result<String, Error> {
    let why = error.to_string();
    if REFUSALS.iter().any(|known| why.contains(known)) { Ok(why) } else { Err(error) }
}

/// A value, or the verdict that it was refused. Errors: a refusal that is none of the legitimate ones.
fn accepted<T>(result: Result<T, Error>, what: &str) -> Result<Result<T, Verdict>, String> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => refusal(error).map(|why| Err(Verdict::Refused(why))).map_err(|e| format!("{what}: {e}")),
    }
}

/// Gives up a comparison whose network is refused.
macro_rules! accept {
    ($result:expr, $what:expr) => {
        match accepted($result, $what)? {
            Ok(value) => value,
            Err(refused) => return Ok(refused),
        }
    };
}

/// Quantizes on random samples in batches of four.
pub fn quantized(graph: &Graph, seed: u64, samples: usize, strategy: Strategy) -> Result<QuantGraph, Error> {
    let samples = random_samples(graph, seed, samples);
    let options = PtqOptions { batch_size: 4, ..PtqOptions::new(strategy) };
    Ok(ptq(graph.clone(), &samples, &options, |_, _| {})?.quantized)
}

/// Whether no sum of the network leaves the integers that f32 holds: only then are float and integer engine alike.
pub fn sums_fit_f32(q: &QuantGraph) -> bool {
    q.graph.ids().all(|id| {
        let Some(p) = conv_positions(q, id) else { return true };
        let Some(weighted) = q.graph.node(id).op.weighted() else { return true };
        let shape = weighted.kernel.shape();
        let inputs: usize = match q.graph.node(id).op {
            Op::DepthwiseConv2D(_) => shape[..2].iter().product(),
            _ => shape[..shape.len() - 1].iter().product(),
        };
        // In units of the finer of product and bias.
        let fine = p.b.map_or(0, |b| (b - p.w - p.i).max(0));
        let bias = p.b.map_or(0.0, |b| 128.0 * f64::from(p.w + p.i + fine - b).exp2());
        (inputs as f64) * 128.0 * 128.0 * f64::from(fine).exp2() + bias < f64::from(1 << 24)
    })
}

/// The float engine against the integer engine, on tensors that are integers.
pub fn float_and_integer(q: &QuantGraph, inputs: &[Tensor]) -> Result<Verdict, String> {
    if !sums_fit_f32(q) {
        return Ok(Verdict::Refused("sums beyond what f32 holds".into()));
    }
    let dump = |numerics| golden(q, Some(inputs.to_vec()), numerics, &DumpOptions::default());
    let exact = accept!(dump(Numerics::Dpu), "the integer engine");
    let vendor = accept!(dump(Numerics::Vendor), "the float engine");
    if exact.activations.len() != vendor.activations.len() {
        return Err(format!("{} tensors and {}", exact.activations.len(), vendor.activations.len()));
    }
    for (a, b) in exact.activations.iter().zip(&vendor.activations) {
        // A float tensor is a softmax here, whose last bits are not promised.
        if a.name != b.name || matches!(a.values, Values::Int8(_)) && a != b {
            return Err(format!("`{}` and `{}` differ between float and integer engine", a.name, b.name));
        }
    }
    Ok(Verdict::Agree)
}

#[derive(Default)]
struct Seen(BTreeMap<u16, Vec<u8>>);

impl Observer for Seen {
    fn tensor(&mut self, id: TensorId, _: &TensorDesc<'_>, bytes: &[u8]) {
        self.0.insert(id.0, bytes.to_vec());
    }
}

/// Every tensor that a program shows on given inputs, by its number.
pub fn tensors<D: Dpu>(program: &Program, inputs: &[Vec<u8>], dpu: &mut D) -> Result<BTreeMap<u16, Vec<u8>>, String>
where
    D::Error: std::fmt::Debug,
{
    let file = program.to_bytes(&[]).map_err(|e| e.to_string())?;
    let model = Deployable::parse(&file).map_err(|e| e.to_string())?;
    let [mut workspace, mut input, mut output] =
        [Region::Workspace, Region::Inputs, Region::Outputs].map(|r| vec![0xA5; model.region_bytes(r)]);
    let mut memory =
        Memory { constants: model.constants(), workspace: &mut workspace, inputs: &mut input, outputs: &mut output };
    for ((_, t), bytes) in model.inputs().zip(inputs) {
        memory.tensor_mut(&t).ok_or("an input lies outside its region")?.copy_from_slice(bytes);
    }
    let mut seen = Seen::default();
    run(&model, dpu, &mut memory, &mut seen).map_err(|e| format!("{e:?}"))?;
    Ok(seen.0)
}

/// Programs for the CPU and for some DPUs, in program order and with time, against what every tensor has to be.
///
/// A network that the CPU takes, a DPU with the CPU beside it takes as well.
pub fn programs(graph: &IntGraph, inputs: &[Vec<u8>], want: &[Vec<u8>]) -> Result<Verdict, String> {
    let check = |what: &str, seen: &BTreeMap<u16, Vec<u8>>| match graph
        .tensors
        .iter()
        .zip(want)
        .enumerate()
        .find(|(i, (_, want))| seen.get(&(*i as u16)) != Some(want))
    {
        Some((_, (tensor, _))) => Err(format!("{what}: {} differs", tensor.name)),
        None => Ok(()),
    };
    for separate_io in [false, true] {
        let program = accept!(compile::cpu(graph, &CpuOptions { separate_io }), "cpu");
        check("cpu", &tensors(&program, inputs, &mut NoDpu).map_err(|e| format!("cpu: {e}"))?)?;
    }
    // Integers of other steps than a DPU's run on the CPU alone.
    let scaled = |op: &IntOp| matches!(op.kind, IntOpKind::Scaled(_));
    if graph.tensors.iter().any(|t| matches!(t.kind, Kind::Scaled(_))) || graph.ops.iter().any(scaled) {
        return Ok(Verdict::Agree);
    }
    for name in ["B512", "B1152", "B4096"] {
        let fail = |e: &dyn std::fmt::Display| format!("{name}: {e}");
        let target = shiftwise_targets::find(name).map_err(|e| fail(&e))?;
        let program = compile::dpu(graph, &target, &DpuOptions::default()).map_err(|e| fail(&e))?;
        let mut banks = vec![0x77; target.bank_bytes()];
        let mut machine = Machine::new(&target, &mut banks).ok_or_else(|| fail(&"no machine"))?;
        check(&fail(&"machine"), &tensors(&program, inputs, &mut machine).map_err(|e| fail(&e))?)?;
        let clock = target.clock_mhz;
        let mut sim = SimDpu::new(target, clock, Costs::default()).map_err(|e| fail(&e))?;
        check(&fail(&"simulator"), &tensors(&program, inputs, &mut sim).map_err(|e| fail(&e))?)?;
    }
    Ok(Verdict::Agree)
}

/// The integer engine and every program of a quantized network, on one sample.
pub fn engine_and_programs(q: &QuantGraph, samples: &[Tensor]) -> Result<Verdict, String> {
    let integers = accept!(lower(q), "lowering");
    let engine = Engine::new(&integers);
    let values = engine.run(accept!(engine.sample(samples, 0), "a sample"), |_| true);
    let want: Option<Vec<Vec<u8>>> = values.iter().map(|v| Some(v.as_ref()?.to_bytes())).collect();
    let want = want.ok_or("the integer engine left a tensor out")?;
    let inputs: Vec<Vec<u8>> = integers.inputs.iter().map(|t| want[t.0].clone()).collect();
    programs(&integers, &inputs, &want)
}

/// An integer graph by the oracle, the integer engine and every program. The graph is one without layers in floats.
pub fn integer_graph(graph: &IntGraph, inputs: &[Vec<u8>]) -> Result<Verdict, String> {
    let want = evaluate(graph, inputs);
    let of_kind = |(t, bytes): (&shiftwise_integer::graph::TensorIx, &Vec<u8>)| match graph.tensors[t.0].kind {
        Kind::Fixed(_) => Values::Int8(bytes.iter().map(|b| *b as i8).collect()),
        Kind::Scaled(scale) if scale.is_wide() => {
            Values::Int16(bytes.as_chunks().0.iter().map(|b| i16::from_le_bytes(*b)).collect())
        }
        Kind::Scaled(_) => Values::Int8(bytes.iter().map(|b| *b as i8).collect()),
        Kind::Float => Values::Float(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
    };
    let given = graph.inputs.iter().zip(inputs).map(of_kind).collect();
    let got = Engine::new(graph).run(given, |_| true);
    for ((tensor, want), got) in graph.tensors.iter().zip(&want).zip(&got) {
        if got.as_ref().map(Values::to_bytes).as_ref() != Some(want) {
            return Err(format!("the integer engine: {} differs", tensor.name));
        }
    }
    programs(graph, inputs, &want)
}
