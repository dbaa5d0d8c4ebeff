//! `shiftwise info`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use shiftwise::info::{Content, Info, Network, Origin, Port, Xmodel, info};
use shiftwise::text;
use shiftwise_formats::LoadOptions;
use shiftwise_graph::error::Error;
use shiftwise_quant::metadata::{InputStatistics, Metadata};

use crate::outcome::Outcome;
use crate::screen::{Screen, bytes, count};

/// Columns of what is printed.
const WIDTH: usize = 80;
/// Columns of the labels.
const LABEL: usize = 14;
/// A blank at which no line is broken.
const GLUE: char = '\u{a0}';

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A model, a compiled model, a dump folder, arrays, a proof, provenance or a strategy
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let info = info(&args.file, &LoadOptions::default())?;
    let mut page = Page(String::new());
    describe(&info, &mut page);
    info.snippets.iter().for_each(|snippet| {
        let several = info.inputs.len() > 1;
        let of = if several { format!(", {}", text::name(&snippet.input)) } else { String::new() };
        page.0.push_str(&format!("\n{}{of}: x to q\n{}\n", snippet.language, text::lines(&snippet.code)));
    });
    screen.lines(page.0.trim_end());
    info.warnings.iter().for_each(|warning| screen.note(format!("warning: {warning}")));
    Outcome::done(info)
}

/// Lines of labels and what they are about.
struct Page(String);

impl Page {
    /// A label, and a text that is broken where the lines end. Without a label it goes on with what is above.
    fn row(&mut self, label: &str, text: &str) {
        for (number, line) in wrapped(&text::clean(text), WIDTH - LABEL).into_iter().enumerate() {
            let label = if number == 0 { label } else { "" };
            self.0.push_str(format!("{label:<LABEL$}{line}").trim_end());
            self.0.push('\n');
        }
    }
}

/// The lines of a text: broken between words, and within those that are too long for one.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for c in word.chars() {
            if line.chars().count() == width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines.into_iter().map(|line| line.replace(GLUE, " ")).collect()
}

fn describe(info: &Info, page: &mut Page) {
    page.row("file", &info.file.display().to_string());
    page.row("is", &format!("{}, {}", info.kind, bytes(info.bytes)));
    if let Some(name) = info.name.as_ref().filter(|name| !name.is_empty()) {
        page.row("name", &text::name(name));
    }
    content(&info.content, page);
    info.inputs.iter().for_each(|port| self::port("input", port, page));
    info.outputs.iter().for_each(|port| self::port("output", port, page));
    metadata(&info.metadata, page);
}

fn content(content: &Content, page: &mut Page) {
    match content {
        Content::Network(network) => self::network(network, page),
        Content::Deployable(own) => {
            let id = own.fingerprint.as_ref().map_or(String::new(), |id| format!(", fingerprint {id}"));
            page.row("target", &format!("{}{id}", text::name(&own.target)));
            page.row("made by", &text::name(&own.tool));
            page.row("runs", &format!("DPU jobs: {}, layers on the CPU: {}", own.dpu_jobs, own.cpu_layers));
            let size = |n: usize| bytes(n as u64);
            page.row("holds", &format!("code {}, weights {}", size(own.code_bytes), size(own.constant_bytes)));
            let (work, input, output) = (size(own.workspace_bytes), size(own.input_bytes), size(own.output_bytes));
            page.row("memory", &format!("workspace {work}, inputs {input}, outputs {output}"));
            page.row("self-test", &format!("{} samples", own.self_test_samples));
        }
        Content::Xmodel(own) => xmodel(own, page),
        Content::Dump(own) => {
            page.row("tensors", &format!("{} of weights, {} of layers", own.weights, own.activations));
            page.row("values", &count(own.values as u64));
            let says = if own.has_manifest { "says that the folder is whole" } else { "there is none" };
            page.row("manifest", says);
        }
        Content::Arrays(all) => {
            for array in all {
                let key = array.key.as_deref().map_or("array".to_owned(), text::name);
                let what = match (&array.dtype, &array.problem) {
                    (Some(dtype), _) => format!("{dtype}, shape {}", shape(&array.shape)),
                    (None, problem) => problem.clone().unwrap_or_default(),
                };
                // Short names stand as labels.
                match key.chars().count() < LABEL {
                    true => page.row(&key, &what),
                    false => page.row("array", &format!("{key}: {what}")),
                }
            }
        }
        Content::Proof(own) => {
            page.row("verdict", &own.verdict);
            page.row("samples", &own.samples.to_string());
            own.checks.iter().for_each(|check| page.row("checked", check));
            own.origin.iter().for_each(|origin| self::origin(origin, page));
        }
        Content::Provenance(own) => origin(own, page),
        Content::Part { command, shard, of, samples, tool } => {
            page.row("command", command);
            page.row("shard", &format!("{shard} of {of}"));
            page.row("samples", &format!("{samples} in the whole run"));
            page.row("program", &format!("shiftwise {tool}"));
        }
        Content::Strategy { sections } => page.row("sections", &sections.join(", ")),
    }
}

fn network(own: &Network, page: &mut Page) {
    if let Some(version) = &own.keras {
        page.row("written by", &format!("Keras {}", text::name(version)));
    }
    let numbers = |counts: &BTreeMap<String, usize>| {
        let mut all: Vec<_> = counts.iter().collect();
        all.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), (*name).clone()));
        all.iter().map(|(name, n)| format!("{n}{GLUE}{}", text::name(name))).collect::<Vec<_>>().join(", ")
    };
    page.row("layers", &format!("{}: {}", own.layers, numbers(&own.classes)));
    let without = if own.has_weights { "" } else { ", whose values are not in the file" };
    page.row("parameters", &format!("{}{without}", count(own.parameters)));
    page.row("MACs", &format!("{} multiply-accumulates a sample", count(own.macs)));
    if let Some(layers) = own.quantized_layers {
        page.row("quantized", &format!("{layers} layers by {}", numbers(&own.quantizers)));
    }
    own.origin.iter().for_each(|own| origin(own, page));
}

fn xmodel(own: &Xmodel, page: &mut Page) {
    page.row("operations", &count(own.operations as u64));
    if let Some(target) = &own.target {
        let id = own.fingerprint.as_ref().map_or(String::new(), |id| format!(", fingerprint {id}"));
        page.row("target", &format!("{}{id}", text::name(target)));
    }
    if own.subgraphs.is_empty() {
        return;
    }
    let mut devices: Vec<(&str, usize)> = Vec::new();
    for piece in &own.subgraphs {
        match devices.iter_mut().find(|(name, _)| *name == piece.device) {
            Some((_, n)) => *n += 1,
            None => devices.push((&piece.device, 1)),
        }
    }
    let devices: Vec<String> = devices.iter().map(|(name, n)| format!("{n} {}", text::name(name))).collect();
    page.row("subgraphs", &format!("{}: {}", own.subgraphs.len(), devices.join(", ")));
    page.row("holds", &format!("code {}, weights {}", bytes(own.code_bytes as u64), bytes(own.constant_bytes as u64)));
}

/// Dimensions for people: `28x28x1`.
fn shape(dims: &[usize]) -> String {
    if dims.is_empty() {
        return "()".into();
    }
    dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

fn port(label: &str, port: &Port, page: &mut Page) {
    let dims = if port.shape.is_empty() { String::new() } else { format!("{} ", shape(&port.shape)) };
    let value = |key: &str| port.quantizer.as_ref()?.get(key).filter(|v| !v.is_null());
    page.row(label, &format!("{}: {dims}{}, {}", text::name(&port.name), port.layout, port.dtype));
    if let (Some(position), Some(factor)) = (port.position, port.factor) {
        let of = &port.dtype;
        match label {
            "input" => page.row("", &format!("{of} = round(x * 2^{position}) = round(x * {factor}), saturated")),
            _ => page.row("", &format!("x = {of} * 2^{} = {of} * {}", -i32::from(position), 1.0 / factor)),
        }
    } else if let Some(step) = value("scale") {
        let zero = value("zero_point").map_or("0".to_owned(), Value::to_string);
        page.row("", &format!("x = (q - {zero}) * {step}"));
    } else if let Some(name) = ["data_format", "dtype"].iter().find_map(|key| value(key)?.as_str()) {
        page.row("", &format!("as {}", text::name(name)));
    }
}

fn metadata(own: &Metadata, page: &mut Page) {
    if let Some(preprocessing) = own.preprocessing.as_ref().filter(|p| !p.is_empty()) {
        let settings: Vec<String> =
            preprocessing.settings().iter().map(|(name, value)| format!("--{name} {value}")).collect();
        page.row("prepared by", &settings.join(" "));
    }
    for InputStatistics { name, samples, min, max, mean, deviation } in &own.inputs {
        let several = |values: &[f32]| values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(" ");
        let range: Vec<String> = min.iter().zip(max).map(|(a, b)| format!("{a:.4}..{b:.4}")).collect();
        page.row("calibrated", &format!("{}: {samples} samples, values {}", text::name(name), range.join(" ")));
        page.row("", &format!("mean {}, deviation {}", several(mean), several(deviation)));
    }
    own.notes.iter().for_each(|note| page.row("note", note));
}

fn origin(own: &Origin, page: &mut Page) {
    page.row("made by", &text::name(&own.tool));
    for input in &own.inputs {
        page.row("made of", &format!("{} ({}), SHA-256 {:.12}...", input.path, input.role, input.sha256));
    }
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    for (name, value) in own.options.iter().filter(|(_, value)| !empty(value)) {
        page.row("option", &format!("{name} = {value}"));
    }
}
