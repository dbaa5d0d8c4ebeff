//! The vendor's own results: quantizing each reference case again and comparing everything that can be compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shiftwise::dump;
use shiftwise::dump::{Dump, Type, Values};
use shiftwise::golden::{DumpOptions, Numerics, golden};
use shiftwise_formats::{self as format, LoadOptions, Model};
use shiftwise_graph::graph::Graph;
use shiftwise_quant::eval::run_vendor;
use shiftwise_quant::layer_quant::ActivationQuant;
use shiftwise_quant::metadata::Metadata;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::affine::Range;
use shiftwise_quant::scheme::pof2::State;
use shiftwise_quant::scheme::{Quantizer, Scheme as _};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;

/// What became of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Positions, ranges, integer weights, dump and outputs are the vendor's.
    Same {
        /// Quantized tensors compared.
        positions: usize,
        /// Dumped values compared.
        values: u64,
        /// Of ranges, dumped values and outputs, those behind f32 sums of float scales that fall to the other side of a
        /// rounding: ranges by a last digit, integers by one, outputs by a step.
        edge: usize,
        /// Of them, values that the exact integers (`dpu` numerics) give differently; `None` if the network has no
        /// integer form.
        exact_differs: Option<usize>,
    },
    /// Something that this version doesn't do; the error it gives.
    Refused(String),
    /// Differences, the first few of them.
    Differs(Vec<String>),
}

/// Differences that are known and right; every entry stands in `DIVERGENCES.md`.
pub const EXPLAINED: &[(&str, &str)] = &[
    (
        "o_bn_keep",
        "a normalization kept as a layer: TensorFlow's fused kernel rounds in another order (last digit of a range)",
    ),
    ("o_no_hsig_swish", "swish in floats: another exp (last digit of a range)"),
    ("pof2s_tanh_act_v0", "tanh in floats: another tanh (last digit of a range)"),
    (
        "cust_strategy",
        "the vendor leaves a quantized custom layer calibrating: its positions follow each sample that it sees",
    ),
    (
        "o_train_with_bn_optA",
        "the vendor leaves layers with their normalization inside calibrating; here they are the convolutions of inference",
    ),
    ("x_mul_write_hi", "the vendor stores the limit of shift_write, 15, as the position"),
    ("x_mul_write_lo", "the vendor stores the limit of shift_write, -15, as the position"),
    (
        "real_mlperf_streaming_wakeword",
        "the vendor drops gamma where a normalization's `scale` is written as 1 instead of true",
    ),
];

/// An array of floats; `None` if there is none.
pub(crate) fn array(path: &Path) -> Option<Tensor> {
    let a: ndarray::ArrayD<f32> = ndarray_npy::read_npy(path).ok()?;
    Tensor::new(a.shape().to_vec(), a.iter().copied().collect())
}

/// `stem.npy`, or `stem_0.npy`, `stem_1.npy`, ….
fn arrays(case: &Path, stem: &str) -> Vec<Tensor> {
    match array(&case.join(format!("{stem}.npy"))) {
        Some(one) => vec![one],
        None => (0..).map_while(|k| array(&case.join(format!("{stem}_{k}.npy")))).collect(),
    }
}

/// The mode of a case with finetuning.
const FINETUNED: &str = "fastft";

/// The settings of a case; `None` unless it is a post-training case of a strategy that is built in, and the vendor's tool
/// survived it.
fn config(case: &Path) -> Option<Value> {
    let config: Value = serde_json::from_str(&std::fs::read_to_string(case.join("config.json")).ok()?).ok()?;
    let known = Strategy::built_in(config["strategy"].as_str()?).is_ok();
    let calibrated = config["mode"] == "ptq" || config["mode"] == FINETUNED;
    (known && calibrated && config["status"] == "ok").then_some(config)
}

/// The quantizer that a row of `positions.json` names.
fn quantizer<'a>(q: &'a QuantGraph, row: &Value) -> Option<&'a Quantizer> {
    let layer = row["layer"].as_str()?;
    let (id, own) = q.layers.iter().find(|(id, _)| q.quant_name(**id) == layer)?;
    let role = row["role"].as_str()?;
    // Any other role is the name of a weight.
    if let Some(index) = q.graph.node(*id).op.layer().weights().iter().position(|(name, _)| *name == role) {
        return own.weights.get(index)?.as_ref();
    }
    match role {
        "activation" | "pre_activation" => match &own.activation {
            ActivationQuant::Before(q) | ActivationQuant::After(q) => Some(q),
            _ => None,
        },
        _ => own.output.as_ref(),
    }
}

/// What a quantizer has learned, by the keys of `positions.json`: one value, or one for each channel.
fn states(own: &Quantizer) -> Vec<(&'static str, Vec<f32>)> {
    match own {
        Quantizer::Pof2(own) => {
            let of = |value: fn(&State) -> f32| own.states.iter().map(value).collect::<Vec<f32>>();
            vec![
                ("position", of(|f| f.pos.0.into())),
                // Positions of channels are not refined.
                ("position_before_adjust", of(|f| f.calibrated.0.into())),
                ("min", of(|f| f.min)),
                ("max", of(|f| f.max)),
            ]
        }
        Quantizer::Affine(own) => {
            let of = |value: fn(&Range) -> f32| own.ranges.iter().map(value).collect::<Vec<f32>>();
            let steps = own.steps();
            // The unsigned integers that the reference counts in begin at 0.
            let lowest = own.params.bounds().0;
            let framework = own.params.use_framework_quant && !own.params.unsigned;
            let mut all = vec![("min", of(|r| r.min)), ("max", of(|r| r.max)), ("scale", of(|r| r.scale))];
            if framework {
                let zero = |s: &(f32, f32)| s.1 - lowest + f32::from(u8::from(own.params.narrow_range));
                all.push(("derived_step", steps.iter().map(|s| s.0).collect()));
                all.push(("derived_zero_point_unsigned_domain", steps.iter().map(zero).collect()));
            }
            all
        }
        // Nothing is learned.
        Quantizer::Block(_) => Vec::new(),
        Quantizer::Tqt(own) => {
            vec![("log_threshold", vec![own.log_threshold]), ("min", vec![own.min]), ("max", vec![own.max])]
        }
    }
}

/// Comparing with the vendor's results: what is found.
#[derive(Default)]
struct Findings {
    differences: Vec<String>,
    /// See [`Outcome::Same`].
    edge: usize,
    /// The largest step of a float scale that data goes through, if there is one: TensorFlow sums products of such steps in
    /// an order of its own.
    step: Option<f32>,
}

/// How far a range may be off behind sums in another order, relative to itself.
const LAST_DIGITS: f32 = 4.0 * f32::EPSILON;

impl Findings {
    fn new(q: &QuantGraph) -> Self {
        let results = q.layers.values().filter_map(|layer| layer.result());
        let steps = results.filter_map(|own| match own {
            Quantizer::Affine(own) => own.steps().into_iter().map(|s| s.0).reduce(f32::max),
            Quantizer::Pof2(_) | Quantizer::Tqt(_) | Quantizer::Block(_) => None,
        });
        Self { step: steps.reduce(f32::max), ..Self::default() }
    }

    /// Whether two values may be one, and counts it if they are not equal.
    fn near(&mut self, a: f32, b: f32, allowed: f32) -> bool {
        let near = self.step.is_some() && (a - b).abs() <= allowed;
        self.edge += usize::from(a != b && near);
        a == b || near
    }

    /// Values that differ; floats behind an exponential may differ in the last digits.
    fn differing(&mut self, ours: &Values, theirs: &Values) -> usize {
        let all = ours.differences(theirs);
        let lengths = ours.len().abs_diff(theirs.len());
        let step = self.step.unwrap_or_default();
        let differ = |i: &&usize| match (ours, theirs) {
            (Values::Int8(x), Values::Int8(y)) => !self.near(x[**i].into(), y[**i].into(), 1.0),
            (Values::Float(x), Values::Float(y)) => {
                (x[**i] - y[**i]).abs() > 1e-6 && !self.near(x[**i], y[**i], 1.01 * step)
            }
            _ => true,
        };
        all.iter().filter(differ).count() + lengths + usize::from(Type::of(ours) != Type::of(theirs))
    }
}

/// `calibrated`: the model also knows its positions before refinement, which a file doesn't.
fn positions(q: &QuantGraph, case: &Path, calibrated: bool, findings: &mut Findings) -> usize {
    let text = std::fs::read_to_string(case.join("positions.json")).unwrap_or_default();
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    let rows: Vec<&Value> = rows.iter().filter(|r| r["role"] != "none").collect();
    for row in &rows {
        let place = format!("{} {}", row["layer"].as_str().unwrap_or("?"), row["role"].as_str().unwrap_or("?"));
        let Some(own) = quantizer(q, row) else {
            findings.differences.push(format!("{place}: not quantized"));
            continue;
        };
        if let Quantizer::Block(own) = own {
            let info = own.info();
            let keys = ["bit_width", "round_mode", "data_format", "tile_size", "signed"];
            for key in keys.into_iter().filter(|key| info[*key] != row[*key]) {
                findings.differences.push(format!("{place}: {key} {} and not {}", info[key], row[key]));
            }
            continue;
        }
        for (key, ours) in states(own).into_iter().filter(|(key, _)| calibrated || *key != "position_before_adjust") {
            // Ranges are f32 in both; the real models' files leave the calibrated position out.
            let single = |v: &Value| v.as_f64().map(|v| v as f32);
            let theirs: Option<Vec<f32>> = match &row[key] {
                Value::Array(all) => all.iter().map(single).collect(),
                one => single(one).map(|v| vec![v]),
            };
            let Some(theirs) = theirs else { continue };
            let mut same = ours.len() == theirs.len();
            // What was trained is equal up to the order of sums.
            let trained = q.trained && matches!(key, "min" | "max");
            for (a, b) in ours.iter().zip(&theirs) {
                same &= findings.near(*a, *b, b.abs() * LAST_DIGITS) || (trained && (a - b).abs() <= 1e-5 * b.abs());
            }
            if !same {
                findings.differences.push(format!("{place}: {key} {ours:?} and not {}", row[key]));
            }
        }
    }
    rows.len()
}

/// Values that differ; floats behind an exponential may differ in the last digits.
fn differing(a: &Values, b: &Values) -> usize {
    match (a, b) {
        (Values::Float(x), Values::Float(y)) if x.len() == y.len() => {
            x.iter().zip(y).filter(|(x, y)| (*x - *y).abs() > 1e-6).count()
        }
        _ => a.differences(b).len() + a.len().abs_diff(b.len()),
    }
}

fn dumps(vendor: &Dump, own: &Dump, findings: &mut Findings) -> u64 {
    let mut values = 0;
    for (theirs, ours) in [(&vendor.weights, &own.weights), (&vendor.activations, &own.activations)] {
        for t in theirs {
            values += t.values.len() as u64;
            let (name, count) = (t.file_name(), t.values.len());
            match ours.iter().find(|o| o.file_name() == name) {
                Some(o) => match findings.differing(&o.values, &t.values) {
                    0 => {}
                    n => findings.differences.push(format!("dump {name}: {n} of {count} values")),
                },
                None => findings.differences.push(format!("dump {name}: not written")),
            }
        }
        for o in ours.iter().filter(|o| !theirs.iter().any(|t| t.file_name() == o.file_name())) {
            findings.differences.push(format!("dump {}: the vendor's has no such file", o.file_name()));
        }
    }
    values
}

/// Quantizes, evaluates and dumps one case again. `None` unless it is a post-training case.
pub fn check(case: &Path) -> Option<Outcome> {
    let config = config(case)?;
    Some(compare(case, &config).unwrap_or_else(|e| Outcome::Refused(e.to_string())))
}

/// What the custom layers of the reference cases compute.
pub const FORMULAS: [&str; 3] = ["MyScaleShift=x * s + t", "MyDouble=x * 2", "MyBlend=ratio * x0 + (1 - ratio) * x1"];

/// The custom strategy of a case, as its quantized model shows it: it quantizes the custom layers.
fn custom_strategy(case: &Path) -> Option<Value> {
    let quantizer = |round: u8| {
        json!({
            "quantizer_type": "LastValueQuantPosQuantizer",
            "quantizer_params": { "bit_width": 8, "method": 1, "round_mode": round },
        })
    };
    let entry = |class: &str, weights: &[&str]| {
        json!({
            "layer_type": format!("__main__.{class}"), "quantizable_weights": weights,
            "weight_quantizers": weights.iter().map(|_| quantizer(0)).collect::<Vec<_>>(),
            "quantizable_outputs": ["0"], "output_quantizers": [quantizer(1)],
        })
    };
    let layers = json!([entry("MyScaleShift", &["s", "t"]), entry("MyDouble", &[]), entry("MyBlend", &[])]);
    let strategy = json!({ "quantize_registry_config": { "layer_quantize_config": layers } });
    case.ends_with("cust_strategy").then_some(strategy)
}

fn compare(case: &Path, config: &Value) -> Result<Outcome, shiftwise_graph::error::Error> {
    let model = config["model"].as_str().map_or_else(|| case.join("model.h5"), |m| case.join(m));
    let (calib, input) = (arrays(case, "calib"), arrays(case, "input"));
    let mut strategy = Strategy::built_in(config["strategy"].as_str().unwrap_or_default())?;
    let mut steps = None;
    // A network of open size takes the size of the data, as the vendor's does.
    let mut load = LoadOptions::default();
    if let Some([first, ..]) = calib.first().map(|_| &calib[..])
        && calib.len() == 1
    {
        load.input_shapes.push((None, first.shape().to_vec()));
    }
    for formula in FORMULAS {
        load.custom.add_formula(formula).map_err(shiftwise_graph::error::Error::Options)?;
    }
    if let Some(custom) = custom_strategy(case) {
        strategy.update(&custom)?;
    }
    for (key, value) in config["quantize_kwargs"].as_object().into_iter().flatten() {
        match key.as_str() {
            "calib_steps" => steps = value.as_u64().map(|s| s as usize),
            "input_shape" | "add_shape_info" => {}
            key => drop(strategy.set(key, value.clone())?),
        }
    }
    let batch_size = config["calib_batch_size"].as_u64().map_or(32, |b| b as usize);
    let options = PtqOptions { strategy, batch_size, steps };
    let graph = format::load(&model, &load)?;
    if config["mode"] == FINETUNED {
        return finetuned(case, graph, (&calib, input), &options);
    }
    let q = ptq(graph, &calib, &options, |_, _| {})?.quantized;

    results(&q, input, case, config, true)
}

/// Positions and losses of a case with finetuning against the vendor's: its weights follow an order of samples that nothing
/// records.
fn finetuned(
    case: &Path,
    graph: Graph,
    (calib, input): (&Vec<Tensor>, Vec<Tensor>),
    options: &PtqOptions,
) -> Result<Outcome, shiftwise_graph::error::Error> {
    let q = crate::finetune::finetuned(graph.clone(), calib, options, 0)?.quantized;
    let mut findings = Findings::new(&q);
    let positions = positions(&q, case, true, &mut findings);
    let (losses, wrong) = crate::finetune::losses(case, &graph, calib, options)?;
    findings.differences.extend(wrong);
    if !findings.differences.is_empty() {
        return Ok(Outcome::Differs(findings.differences));
    }
    let dump = |numerics| golden(&q, Some(input.clone()), numerics, &DumpOptions::default()).map(|d| d.activations);
    let (exact, float) = (dump(Numerics::Dpu)?, dump(Numerics::Vendor)?);
    let differs = exact.iter().zip(&float).map(|(a, b)| differing(&a.values, &b.values)).sum();
    Ok(Outcome::Same { positions, values: losses as u64, edge: 0, exact_differs: Some(differs) })
}

/// Positions, dump and outputs of a quantized model against the vendor's.
pub(crate) fn results(
    q: &QuantGraph,
    input: Vec<Tensor>,
    case: &Path,
    config: &Value,
    calibrated: bool,
) -> Result<Outcome, shiftwise_graph::error::Error> {
    let mut findings = Findings::new(q);
    let positions = positions(q, case, calibrated, &mut findings);
    let flag = |key: &str| config["dump_kwargs"][key].as_bool().unwrap_or(false);
    let dump_options = DumpOptions { float: flag("dump_float"), weights_only: flag("weights_only"), vendor_gaps: true };
    let own = golden(q, Some(input.clone()), Numerics::Vendor, &dump_options)?;
    let mut values = 0;
    if let Ok(vendor) = dump::read(&case.join("dump")) {
        values = dumps(&vendor, &own, &mut findings);
    }
    let outputs = run_vendor(q, input.clone())?;
    for (k, (ours, theirs)) in outputs.iter().zip(arrays(case, "output")).enumerate() {
        let (a, b) = (Values::Float(ours.data().to_vec()), Values::Float(theirs.into_data()));
        let n = findings.differing(&a, &b);
        if n > 0 {
            findings.differences.push(format!("output {k}: {n} of {} values", b.len()));
        }
    }
    let Findings { mut differences, edge, .. } = findings;
    // Seldom does a sum lie so close to an edge; more of them are another arithmetic.
    if edge > 20 + (positions + values as usize) / 100 {
        differences.push(format!("{edge} of {values} values and {positions} ranges on the edge"));
    }
    if !differences.is_empty() {
        return Ok(Outcome::Differs(differences));
    }
    let exact = golden(q, Some(input), Numerics::Dpu, &dump_options).ok();
    let exact_differs = exact.map(|exact| {
        let of = |o: &dump::DumpTensor| own.activations.iter().find(|a| a.file_name() == o.file_name());
        exact.activations.iter().filter_map(|e| Some(differing(&e.values, &of(e)?.values))).sum()
    });
    Ok(Outcome::Same { positions, values, edge, exact_differs })
}

/// Reads the quantized model that the vendor's tool saved and compares what it computes with the vendor's own results.
/// `None` unless it is a post-training case.
pub fn check_file(case: &Path) -> Option<Outcome> {
    let config = config(case)?;
    let packed = std::fs::read(case.join("quantized.h5.gz")).ok()?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut bytes).ok()?;
    let run = || {
        let mut load = LoadOptions::default();
        for formula in FORMULAS {
            load.custom.add_formula(formula).map_err(shiftwise_graph::error::Error::Options)?;
        }
        let input = arrays(case, "input");
        if let [one] = &input[..] {
            load.input_shapes.push((None, one.shape().to_vec()));
        }
        match format::open_bytes(Path::new("quantized.h5"), bytes.clone(), &load)? {
            Model::Quantized(q) => results(&q, input, case, &config, false),
            // Layers of another type, none of which is quantized.
            Model::Float(graph) => {
                let (layers, metadata) = (BTreeMap::new(), Metadata::default());
                results(&QuantGraph { graph, layers, metadata, trained: false }, input, case, &config, false)
            }
        }
    };
    Some(run().unwrap_or_else(|e| Outcome::Refused(e.to_string())))
}

/// Quantizes a case that the vendor's tool can't; the number of values in which exact integers and float arithmetic
/// differ.
pub fn beyond_the_vendor(case: &Path) -> Result<usize, shiftwise_graph::error::Error> {
    let text = std::fs::read_to_string(case.join("config.json")).unwrap_or_default();
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let model = config["model"].as_str().map_or_else(|| case.join("model.h5"), |m| case.join(m));
    // The folders of failed cases hold no data, so the values are made here.
    let graph = format::load(&model, &LoadOptions::default())?;
    let random = |id: &shiftwise_graph::graph::NodeId| {
        let shape = [&[4], graph.node(*id).shape.as_slice()].concat();
        let data = (0..shape.iter().product::<usize>()).map(|i| ((i * 7919 % 2003) as f32 - 700.0) / 1000.0).collect();
        Tensor::new(shape, data).unwrap_or_else(|| Tensor::zeros(&[0]))
    };
    let inputs: Vec<Tensor> = graph.inputs.iter().map(random).collect();
    let q = ptq(graph, &inputs, &PtqOptions::new(Strategy::built_in("pof2s")?), |_, _| {})?.quantized;
    let options = DumpOptions::default();
    let [exact, float] =
        [Numerics::Dpu, Numerics::Vendor].map(|n| golden(&q, Some(inputs.clone()), n, &options).map(|d| d.activations));
    let (exact, float) = (exact?, float?);
    Ok(exact.iter().zip(&float).map(|(a, b)| differing(&a.values, &b.values)).sum())
}

/// One line per case, as Markdown.
pub fn table(cases: &[PathBuf]) -> String {
    let mut rows = String::new();
    let (mut same, mut explained, mut refused, mut wrong) = (0, 0, 0, 0);
    for case in cases {
        let name = case.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let reason = EXPLAINED.iter().find(|(case, _)| *case == name).map(|(_, why)| *why);
        let row = match check(case) {
            None => continue,
            Some(Outcome::Same { positions, values, edge, exact_differs }) => {
                same += 1;
                let exact = exact_differs.map_or_else(|| "no integer form".into(), |n| n.to_string());
                let edge = if edge == 0 { String::new() } else { format!(", {edge} on the edge") };
                format!("same{edge} | {positions} | {values} | {exact}")
            }
            Some(Outcome::Refused(why)) => {
                refused += 1;
                format!("not in this version: {why} | | | ")
            }
            Some(Outcome::Differs(all)) => match reason {
                Some(why) => {
                    explained += 1;
                    format!("explained: {why} | | | ")
                }
                None => {
                    wrong += 1;
                    format!("DIFFERS: {} | | | ", all[0])
                }
            },
        };
        let file = match check_file(case) {
            None => "none".to_owned(),
            Some(Outcome::Same { .. }) => "same".to_owned(),
            Some(Outcome::Refused(why)) => format!("not read: {why}"),
            Some(Outcome::Differs(all)) => all[0].clone(),
        };
        rows += &format!("| {name} | {row} | {file} |\n");
    }
    format!(
        "{HEAD}{same} same, {explained} explained, {refused} not in this version, {wrong} differ.\n\n{COLUMNS}{rows}"
    )
}

const HEAD: &str = "# The vendor's reference runs, and ours

Written by `cargo run --release -p shiftwise-tests --bin golden > tests/GOLDEN.md`. A case is one post-training run of the
vendor's tool. `quantized here`: the float model goes through our quantizer with the same data and options, and positions,
ranges, integer weights, dump (`vendor` numerics) and outputs are compared. `on the edge`: TensorFlow sums the products of
float scales in another order than we, so that a range may differ in its last digit, and a value beside an edge by a step.
`positions` and `values` count what was compared; then come the values that the exact integers (`dpu` numerics) give
differently, all of them at average pooling, see `DIVERGENCES.md`. Of a case with finetuning, `values` are the losses that
the vendor's tool looked at: weights follow the order of samples, which nothing records. `the vendor's file`: its
`quantized.h5` is read, and computes the vendor's dump and outputs here. Cases of training are walked by the test
`train_golden`, variable by variable; what a case exported in another format is not compared here.

";

const COLUMNS: &str = "| case | quantized here | positions | values | differ in exact integers | the vendor's file |
|---|---|---|---|---|---|
";
