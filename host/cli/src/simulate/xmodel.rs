//! `shiftwise simulate FILE.xmodel`: a vendor-compiled program, and its comparison with the graph that it came from.

use std::path::PathBuf;

use shiftwise::device::Device;
use shiftwise::dump;
use shiftwise::vendor_program::Program;
use shiftwise::vendor_simulation::{self, Agreement, Compared, Options, Reference};
use shiftwise_formats as format;
use shiftwise_formats::files::Set;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_xmodel as xmodel;

use crate::data;
use crate::outcome::{Outcome, pretty, to_json};
use crate::screen::{Screen, count};
use crate::simulate::Args;

fn say(compared: &Compared, what: &str, screen: &Screen) {
    if let Some(first) = &compared.first {
        screen.say(format!("first difference: {first}"));
    }
    if let Some(why) = &compared.why {
        screen.lines(why);
    }
    let Agreement { tensors, values, differing_tensors, .. } = compared.agreement();
    screen.say(format!("{what}: {tensors} tensors, {} values, {differing_tensors} tensors differ", count(values)));
}

pub(super) fn run(args: &Args, bytes: &[u8], screen: &Screen) -> Result<Outcome, Error> {
    let path = args.model.as_path();
    let model = xmodel::read(path, bytes)?;
    let target = vendor_simulation::target_of(path, &model)?;
    let files = [&args.model].into_iter().chain(&args.golden).chain(&args.graph).map(PathBuf::as_path);
    data::keep(files, &args.trace.iter().chain([&args.output_dir]).map(PathBuf::as_path).collect::<Vec<_>>())?;
    let types = || vendor_simulation::types(&model);
    let golden = args.golden.as_deref().map(|dir| dump::read_with(dir, &types())).transpose()?;
    let custom = args.custom.layers()?;
    let reference = args.graph.as_deref().map(|p| Reference::open(p, &custom)).transpose()?;
    let device = Device::new(target, args.clock);
    let mut sim = device.simulator()?;
    let program = Program::new(&model, &device.target, args.functional, custom.clone())?;
    for (name, kind) in vendor_simulation::given(&program) {
        screen.note(format!("`{name}` ({kind}) can't be computed here: its values are read from --data"));
    }
    let samples = args.preprocess.open(&args.data, &vendor_simulation::inputs(&program))?;
    let n = args.samples.clamp(1, samples.len().max(1));

    let mut progress = screen.progress("simulating", "samples", n);
    let options = Options {
        samples: n,
        functional: args.functional,
        graph: reference.as_ref(),
        golden: golden.as_ref(),
        custom: &custom,
    };
    let about = (&options, args.graph.as_deref().unwrap_or(path));
    let ran = vendor_simulation::simulate(&program, &mut sim, &samples, about, |done| progress.set(done))?;
    drop(progress);
    if let Some(cycles) = &ran.cycles {
        crate::simulate::say_cycles(&cycles.report, screen);
    }
    if let (Some(path), Some(trace)) = (&args.trace, &ran.trace) {
        format::write_file(path, trace.as_bytes())?;
    }
    ran.only_in_graph.iter().for_each(|name| screen.detail(format!("only in the graph: {name}")));
    let mut set = Set::new(&args.output_dir, dump::MANIFEST)?;
    dump::add(&mut set, &ran.dump, true)?;
    for (k, (shape, values)) in ran.outputs.iter().enumerate() {
        shiftwise::outputs::add_output(&mut set, k, shape.clone(), values.clone())?;
    }
    if let Some(cycles) = &ran.cycles {
        set.add(crate::simulate::CYCLES, pretty(&to_json(cycles)?).as_bytes())?;
    }
    set.commit(serde_json::Map::new())?;
    ran.disagreements.iter().for_each(|d| screen.say(d));
    ran.graph.iter().for_each(|c| say(c, "the graph", screen));
    ran.golden.iter().for_each(|c| say(c, "the dump", screen));
    Outcome::of(ran.report(args.output_dir.clone(), n), ran.agrees())
}
