//! Vendor-compiled programs: they decode and encode to themselves, their tokens balance, and layer by layer the machine
//! computes what the graph says. The files are public but not in this repository; without them these tests only say so.
//! `RUN_SLOW_TESTS=1` includes the layers and programs of several seconds.

use std::collections::HashMap;
use std::path::PathBuf;

use shiftwise_core::exec::Machine;
use shiftwise_core::isa::codec::{encode, program};
use shiftwise_core::isa::layout::IsaVersion;
use shiftwise_core::isa::{EngineSet, Line};
use shiftwise_core::run::Memory;

use super::xmodel::{Attr, Graph, Op, Subgraph, read};
use crate::{Costs, check_order, schedule};

/// The vendor's models, if they are here.
fn models() -> Vec<Graph> {
    let root = std::env::var_os("SHIFTWISE_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let file = |name: &str| root.join("xmodels").join(name);
    let names = ["tf2_custom_op.zcu102_zcu104_kv260.r2.5.xmodel", "pointpillars.zcu102_zcu104_kv260.r2.5.xmodel"];
    let found: Vec<_> = names.iter().filter_map(|name| std::fs::read(file(name)).ok()).collect();
    if found.is_empty() {
        eprintln!("no vendor models at {}: nothing checked", root.display());
    }
    found.iter().map(|bytes| read(bytes)).collect()
}

/// Multiply-accumulates of a layer, and instructions of a program, up to which it is checked in every run.
const QUICK: (usize, usize) = (130_000_000, 2000);

fn slow() -> bool {
    std::env::var_os("RUN_SLOW_TESTS").is_some()
}

/// Leaves and inner subgraphs that have code.
fn with_code(graph: &Graph) -> Vec<&Subgraph> {
    let mut out = Vec::new();
    let mut open = vec![&graph.root];
    while let Some(s) = open.pop() {
        if s.code().is_some_and(|c| !c.is_empty()) {
            out.push(s);
        }
        open.extend(&s.children);
    }
    out
}

#[test]
fn every_instruction_encodes_back_to_its_words() {
    for graph in models() {
        let mut count = 0;
        for code in with_code(&graph).iter().filter_map(|s| s.code()) {
            let mut again = Vec::new();
            for (offset, line) in program(IsaVersion::Dpuczdx8gIsa1, code) {
                let line = line.unwrap_or_else(|e| panic!("byte {offset}: {e}"));
                again.extend(encode(IsaVersion::Dpuczdx8gIsa1, &line).unwrap().bytes());
                assert_eq!(line.to_string().parse(), Ok(line));
                count += 1;
            }
            assert_eq!(again, code);
        }
        assert!(count > 300, "{count}");
    }
}

struct Regions {
    bytes: HashMap<u32, Vec<u8>>,
}

impl Regions {
    fn new(s: &Subgraph) -> Self {
        let Some(Attr::Map(sizes)) = s.attrs.get("reg_id_to_size") else { panic!("no reg_id_to_size") };
        let mut bytes = HashMap::new();
        for (name, size) in sizes {
            let id: u32 = name.trim_start_matches("REG_").parse().unwrap();
            let Attr::Int(size) = size else { panic!("size of {name}") };
            bytes.insert(id, vec![0u8; *size as usize]);
        }
        let Some(Attr::Map(blobs)) = s.attrs.get("reg_id_to_parameter_value") else { panic!("no parameters") };
        for (name, blob) in blobs {
            let Attr::Bytes(blob) = blob else { panic!("blob {name}") };
            bytes.insert(name.trim_start_matches("REG_").parse().unwrap(), blob.clone());
        }
        Self { bytes }
    }

    /// Inputs, and what a layer that is left out would have written.
    fn fill_with_noise(&mut self) {
        let mut state = 1u32;
        for id in [1, 2] {
            for byte in self.bytes.get_mut(&id).into_iter().flatten() {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                *byte = (state >> 24) as u8;
            }
        }
    }

    fn run(&mut self, machine: &mut Machine<'_>, code: &[u8], costs: &Costs) -> u64 {
        let mut take = |id| self.bytes.remove(&id).unwrap_or_default();
        let (constants, mut workspace, mut inputs, mut outputs) = (take(0), take(1), take(2), take(3));
        let mut memory =
            Memory { constants: &constants, workspace: &mut workspace, inputs: &mut inputs, outputs: &mut outputs };
        let result = schedule::run(machine, costs, code, Some(&mut memory));
        let events = result.unwrap_or_else(|e| panic!("{e}"));
        self.bytes.extend([(0, constants), (1, workspace), (2, inputs), (3, outputs)]);
        events.iter().map(|e| e.end).max().unwrap_or(0)
    }

    /// A tensor in memory as dense NHWC.
    fn tensor(&self, op: &Op) -> Vec<i8> {
        let dims = dims(op);
        let strides: Vec<usize> = match op.tensor_attrs.get("stride") {
            Some(Attr::Ints(s)) => s.iter().map(|s| *s as usize).collect(),
            _ => (0..dims.len()).map(|i| dims[i + 1..].iter().product()).collect(),
        };
        let base = op.tensor_int("ddr_addr").unwrap() as usize;
        let bytes = &self.bytes[&(op.tensor_int("reg_id").unwrap() as u32)];
        let count: usize = dims.iter().product();
        (0..count)
            .map(|flat| {
                let (mut rest, mut at) = (flat, base);
                for (dim, stride) in dims.iter().zip(&strides).rev() {
                    at += rest % dim * stride;
                    rest /= dim;
                }
                bytes[at] as i8
            })
            .collect()
    }
}

fn dims(op: &Op) -> Vec<usize> {
    op.dims.iter().map(|d| *d as usize).collect()
}

/// floor(acc / 2^shift + 1/2) in int8, on exact integers; a negative shift multiplies.
fn round(acc: i64, shift: i64) -> i8 {
    let (num, den) = if shift >= 0 { (acc, 1i64 << shift) } else { (acc << -shift, 1) };
    (2 * num + den).div_euclid(2 * den).clamp(-128, 127) as i8
}

/// What an operation computes by its definition, from the values of its inputs.
fn evaluate(graph: &Graph, op: &Op, value: &mut dyn FnMut(&Op) -> Vec<i8>) -> Vec<i8> {
    let pos = |op: &Op| op.tensor_int("fix_point").unwrap();
    let arg = |name: &str| op.args.iter().find(|(n, _)| n == name).map(|(_, ops)| &graph.ops[&ops[0]]);
    let input = arg("input").unwrap();
    let (x, [_, ih, iw, ic]) = (value(input), dims(input)[..].try_into().unwrap_or([1, 1, 1, 1]));
    let [_, oh, ow, oc]: [usize; 4] = dims(op).try_into().unwrap_or([1, 1, 1, 1]);
    let pair = |name: &str| match op.attrs.get(name) {
        Some(Attr::Ints(v)) => v.iter().map(|v| *v as usize).collect::<Vec<_>>(),
        _ => panic!("{} has no {name}", op.name),
    };
    match op.kind.as_str() {
        "conv2d-fix" | "transposed-conv2d-fix" => {
            let (weights, bias) = (arg("weights").unwrap(), arg("bias").unwrap());
            let (w, b) = (value(weights), value(bias));
            let (kernel, stride, pad) = (pair("kernel"), pair("stride"), pair("pad"));
            let (kw, kh, sw, sh, left, top) = (kernel[0], kernel[1], stride[0], stride[1], pad[0], pad[2]);
            let cut = pos(input) + pos(weights) - pos(op);
            let bias_shift = pos(input) + pos(weights) - pos(bias) + 1;
            let relu = matches!(op.attrs.get("nonlinear"), Some(Attr::Text(t)) if t == "RELU");
            let transposed = op.kind.starts_with("transposed");
            let mut out = Vec::with_capacity(oh * ow * oc);
            for (y, xx) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
                for o in 0..oc {
                    let mut sum = 0i32;
                    for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
                        let at = if transposed {
                            // A plain convolution over the input spread out by the stride, so taps count from the far
                            // end; no padding in these models.
                            let (Some(y), Some(x)) = (y.checked_sub(kh - 1 - ky), xx.checked_sub(kw - 1 - kx)) else {
                                continue;
                            };
                            if y % sh != 0 || x % sw != 0 {
                                continue;
                            }
                            (y / sh, x / sw)
                        } else {
                            let y = (y * sh + ky).checked_sub(top);
                            let (Some(y), Some(x)) = (y, (xx * sw + kx).checked_sub(left)) else { continue };
                            (y, x)
                        };
                        if at.0 >= ih || at.1 >= iw {
                            continue;
                        }
                        let a = &x[(at.0 * iw + at.1) * ic..][..ic];
                        let w = &w[((o * kh + ky) * kw + kx) * ic..][..ic];
                        sum += a.iter().zip(w).map(|(a, w)| i32::from(*a) * i32::from(*w)).sum::<i32>();
                    }
                    // Doubled, as the bias may be one position finer than the products.
                    let acc = 2 * i64::from(sum) + (i64::from(b[o]) << bias_shift);
                    out.push(round(if relu { acc.max(0) } else { acc }, cut + 1));
                }
            }
            out
        }
        "pool-fix" => {
            let (kernel, stride) = (pair("kernel"), pair("stride"));
            let mut out = Vec::with_capacity(oh * ow * oc);
            for (y, xx) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
                for c in 0..oc {
                    let taps = (0..kernel[1]).flat_map(|ky| (0..kernel[0]).map(move |kx| (ky, kx)));
                    let at = |(ky, kx)| x[((y * stride[1] + ky) * iw + xx * stride[0] + kx) * ic + c];
                    out.push(taps.map(at).max().unwrap());
                }
            }
            out
        }
        // The maximum over the row that the point pillars take.
        "reduction_max-fix" | "reduction-max-fix" => {
            (0..oh * oc).map(|i| (0..iw).map(|xx| x[(i / oc * iw + xx) * ic + i % oc]).max().unwrap()).collect()
        }
        "hard-sigmoid-fix" => {
            let (f_i, f_o) = (pos(input), pos(op));
            x.iter().map(|x| round((i64::from(*x) * 2731 + ((3 * 2731) << f_i)).max(0), 14 + f_i - f_o)).collect()
        }
        other => panic!("operation {other} of {}", op.name),
    }
}

#[test]
fn vendor_code_computes_what_the_vendor_graph_says() {
    let mut checked = 0;
    for graph in models() {
        for subgraph in graph.root.children.iter().filter(|s| s.code().is_some()) {
            let target = shiftwise_targets::find("B4096").unwrap();
            let mut banks = vec![0x5A; target.bank_bytes()];
            let mut machine = Machine::new(&target, &mut banks).unwrap();
            let mut regions = Regions::new(subgraph);
            regions.fill_with_noise();
            // Without per-layer code in execution order there is nothing to compare in between.
            let Some(Attr::Texts(order)) = subgraph.attrs.get("children_topological_sort") else { continue };
            for name in order {
                let Some(layer) = subgraph.children.iter().find(|c| c.name == *name) else { continue };
                let Some(code) = layer.code() else { continue };
                if !slow() && layer.macs() > QUICK.0 {
                    continue;
                }
                regions.run(&mut machine, code, &Costs::default());
                for op in layer.ops.iter().map(|name| &graph.ops[name]).filter(|op| op.is_computed()) {
                    if op.tensor_int("location") != Some(1) {
                        continue;
                    }
                    let mut value = |op: &Op| value_of(&graph, &regions, op);
                    let want = evaluate(&graph, op, &mut value);
                    let got = regions.tensor(op);
                    let wrong = want.iter().zip(&got).filter(|(a, b)| a != b).count();
                    assert_eq!(wrong, 0, "{} of {} values of {} differ", wrong, want.len(), op.name);
                    assert!(want.iter().any(|v| *v != want[0]), "{} is constant: a weak check", op.name);
                    checked += want.len();
                }
            }
        }
    }
    eprintln!("{checked} values equal");
}

/// A tensor from memory, or computed when it only exists in banks.
fn value_of(graph: &Graph, regions: &Regions, op: &Op) -> Vec<i8> {
    if op.tensor_int("location") == Some(1) {
        regions.tensor(op)
    } else {
        evaluate(graph, op, &mut |op| value_of(graph, regions, op))
    }
}

#[test]
fn whole_vendor_programs_give_the_same_bytes_whatever_instructions_cost() {
    for graph in models() {
        for subgraph in graph.root.children.iter() {
            let Some(code) = subgraph.code() else { continue };
            let instructions = program(IsaVersion::Dpuczdx8gIsa1, code).count();
            if !slow() && instructions > QUICK.1 {
                continue;
            }
            let outputs = |costs: &Costs| {
                let target = shiftwise_targets::find("B4096").unwrap();
                let mut banks = vec![0; target.bank_bytes()];
                let mut machine = Machine::new(&target, &mut banks).unwrap();
                let mut regions = Regions::new(subgraph);
                regions.fill_with_noise();
                let start = std::time::Instant::now();
                let cycles = regions.run(&mut machine, code, costs);
                eprintln!("{instructions} instructions, {cycles} cycles in {:?}", start.elapsed());
                regions.bytes.remove(&3)
            };
            let want = outputs(&Costs::default());
            let seeds = if instructions > QUICK.1 { 1 } else { 12 };
            (0..seeds).for_each(|seed| assert!(outputs(&Costs::shuffled(seed)) == want, "seed {seed}"));
        }
    }
}

/// The vendor's own tokens order every access; without one of them something is not ordered, stuck or left over.
#[test]
fn vendor_tokens_order_everything_and_none_is_missed() {
    let target = shiftwise_targets::find("B4096").unwrap();
    let mut broken = 0;
    for graph in models() {
        for subgraph in with_code(&graph) {
            let lines: Vec<Line> =
                program(IsaVersion::Dpuczdx8gIsa1, subgraph.code().unwrap()).map(|(_, l)| l.unwrap()).collect();
            let sizes = [0, 1 << 24, 1 << 24, 1 << 24];
            check_order(&target, &lines, &sizes).unwrap_or_else(|race| panic!("{}: {race}", subgraph.name));
            if lines.len() > 300 {
                continue;
            }
            for index in 0..lines.len() {
                for from in lines[index].tokens.waits.iter() {
                    let own = lines[index].inst.engine();
                    if from == own {
                        continue;
                    }
                    let mut lines = lines.clone();
                    let waits = lines[index].tokens.waits.bits() & !(1 << from as u8);
                    lines[index].tokens.waits = EngineSet::from_bits(waits);
                    broken += usize::from(check_order(&target, &lines, &sizes).is_err());
                }
            }
        }
    }
    eprintln!("{broken} missing waits are races");
    assert!(models().is_empty() || broken > 50, "{broken}");
}
