use shiftwise::compile::{self, DpuOptions};
use shiftwise::format::{self, LoadOptions};
use shiftwise::strategy::Strategy;
use shiftwise_core::model::Deployable;
use std::time::Instant;

fn main() {
    let strategy = Strategy::built_in("pof2s").unwrap();
    for path in std::env::args().skip(1) {
        let t = Instant::now();
        let options = LoadOptions { random_weights: Some(0), ..LoadOptions::default() };
        let graph = match format::load(std::path::Path::new(&path), &options) {
            Ok(g) => g,
            Err(e) => {
                println!("{path}: {e}");
                continue;
            }
        };
        let t1 = t.elapsed();
        let q = match shiftwise::quantize::without_data(graph, &strategy) {
            Ok(g) => g,
            Err(e) => {
                println!("{path}: {e}");
                continue;
            }
        };
        let t2 = t.elapsed();
        let int = match shiftwise::lower::lower(&q) {
            Ok(g) => g,
            Err(e) => {
                println!("{path}: {e}");
                continue;
            }
        };
        let t3 = t.elapsed();
        let target = shiftwise_targets::find("B4096").unwrap();
        let options = DpuOptions { observe: false, ..DpuOptions::default() };
        for (op, why) in int.ops.iter().zip(compile::placement(&int, &target).unwrap()) {
            if let Some(why) = why {
                println!("  {} {why}", op.layer);
            }
        }
        let t4 = t.elapsed();
        let program = match compile::dpu(&int, &target, &options) {
            Ok(g) => g,
            Err(e) => {
                println!("{path}: {e} {t1:?} {t2:?} {t3:?} {t4:?}");
                continue;
            }
        };
        let t5 = t.elapsed();
        let bytes = program.to_bytes(&[]).unwrap();
        let model = Deployable::parse(&bytes).unwrap();
        let mut sim = shiftwise_sim::SimDpu::new(target, 300, Default::default()).unwrap();
        shiftwise_sim::time(&model, &mut sim).unwrap();
        let t6 = t.elapsed();
        let r = sim.report(&model);
        println!(
            "{path}: {:.3} ms in {} out {} instr {} conv {} misc {} load {} save {} | {t1:?} {t2:?} {t3:?} {t4:?} {t5:?} {t6:?}",
            r.latency_us / 1e3,
            r.bytes_in,
            r.bytes_out,
            r.layers.iter().map(|l| l.instructions as u64).sum::<u64>(),
            r.engines.conv,
            r.engines.misc,
            r.engines.load,
            r.engines.save
        );
    }
}
