//! Fits the cycle model's constants to published measurements and says how well they fit.
//!
//! `calibrate` prints the report; `calibrate --write` also writes it to `tests/zoo/CYCLES.md`, and the constants to
//! `targets/timing/DPUCZDX8G.toml` and `targets/boards/*.toml`. `--frozen` reports on the constants as they are.
//!
//! Fitted are the constants of one core to the KV260 rows (DPU time = 1 / frames per second with many threads), by
//! Levenberg-Marquardt on the logarithms of predicted over measured time, one residual per architecture; then the memory
//! rate of each board with several cores, by a line search. Constants that mean something by themselves are not fitted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use nalgebra::{DMatrix, DVector};
use shiftwise_sim::{Costs, Prepared};
use shiftwise_tests::zoo::{self, Row};

/// A fitted constant: name in the cost table, access, and where the search starts.
type Constant = (&'static str, fn(&mut Costs) -> &mut f64, f64);

/// Clock of the DPU on the KV260.
const MHZ: u32 = 300;

/// Few, and each with a meaning. What is not here is documented (the width of the instruction port) or has no effect that
/// these measurements could tell.
const CONSTANTS: [Constant; 2] = [("port_bytes", |c| &mut c.port_bytes, 13.0), ("compute", |c| &mut c.compute, 100.0)];

/// What the measurements need not say, or cannot: data is usable 0.2 µs after its transfer, the way through the interconnect
/// (INF; 25 to 100 cycles fit equally well); a step is a cycle; arrays that share banks take turns at them; a driver's start
/// and interrupt take 50 to 100 µs, of which the least is taken, as another frame may be waiting (INF). Values of a fit are
/// no better than these when a network is left out.
const FIXED: [Constant; 4] = [
    ("latency", |c| &mut c.latency, 60.0),
    ("misc_step", |c| &mut c.misc_step, 1.0),
    ("contention", |c| &mut c.contention, 1.0),
    ("job_us", |c| &mut c.job_us, 50.0),
];

/// Networks of one family resemble each other: a fit to all others says more about a network of a new kind.
const FAMILIES: [&str; 4] = ["resnet", "mobilenet", "inception", "yolo"];

fn family(name: &str) -> &str {
    FAMILIES.into_iter().find(|f| name.contains(f)).unwrap_or(name)
}

struct Network {
    name: String,
    gops: f64,
    prepared: Prepared,
    /// Milliseconds on the KV260: the geometric mean of its rows.
    measured: Option<f64>,
}

fn costs(x: &DVector<f64>) -> Costs {
    let mut costs = Costs::default();
    FIXED.iter().for_each(|(_, field, x)| *field(&mut costs) = *x);
    CONSTANTS.iter().zip(x.iter()).for_each(|((_, field, _), x)| *field(&mut costs) = x.exp());
    costs
}

fn milliseconds(n: &Network, costs: &Costs) -> f64 {
    n.prepared.cycles(costs, MHZ, 1, 0).expect("compiled programs have matching tokens") / (f64::from(MHZ) * 1e3)
}

/// ln(predicted / measured) of each network.
fn residuals(networks: &[&Network], x: &DVector<f64>) -> DVector<f64> {
    let costs = costs(x);
    let one = |n: &&Network| n.measured.map_or(0.0, |m| (milliseconds(n, &costs) / m).ln());
    DVector::from_iterator(networks.len(), networks.iter().map(one))
}

/// Levenberg-Marquardt from `x`, with a Jacobian of finite differences.
fn fit(networks: &[&Network], mut x: DVector<f64>, steps: usize) -> DVector<f64> {
    let mut r = residuals(networks, &x);
    let mut damping = 1e-2;
    for _ in 0..steps {
        let mut jacobian = DMatrix::zeros(networks.len(), x.len());
        for k in 0..x.len() {
            const STEP: f64 = 0.02;
            let mut moved = x.clone();
            moved[k] += STEP;
            jacobian.set_column(k, &((residuals(networks, &moved) - &r) / STEP));
        }
        let (normal, gradient) = (jacobian.tr_mul(&jacobian), jacobian.tr_mul(&r));
        let mut better = false;
        for _ in 0..5 {
            // A little weight keeps constants that the data says nothing about where they started.
            let damped = &normal + DMatrix::identity(x.len(), x.len()) * damping;
            let Some(step) = damped.cholesky().map(|c| c.solve(&gradient)) else { break };
            let next = &x - step.map(|s| s.clamp(-1.0, 1.0));
            let new = residuals(networks, &next);
            if new.norm_squared() < r.norm_squared() {
                better = (r.norm_squared() - new.norm_squared()) > 1e-6 * r.norm_squared();
                (x, r) = (next, new);
                damping *= 0.3;
                break;
            }
            damping *= 4.0;
        }
        if !better {
            break;
        }
    }
    x
}

/// Spearman's rank correlation.
fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    let ranks = |v: &[f64]| -> Vec<f64> { v.iter().map(|x| v.iter().filter(|y| *y < x).count() as f64).collect() };
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let cross: f64 = a.iter().zip(&b).map(|(x, y)| (x - mean) * (y - mean)).sum();
    let square = |v: &[f64]| v.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    cross / (square(&a) * square(&b)).sqrt()
}

/// Mean absolute, worst, and 90th-percentile of errors in percent.
fn spread(errors: &[f64]) -> (f64, f64, f64) {
    let mut sorted: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * 9).div_ceil(10).saturating_sub(1);
    let mean = sorted.iter().sum::<f64>() / sorted.len().max(1) as f64;
    (mean, sorted.last().copied().unwrap_or(0.0), sorted.get(at).copied().unwrap_or(0.0))
}

fn geometric_mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let logs: Vec<f64> = values.map(f64::ln).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

fn fps_of(rows: &[Row], architecture: &str, board: &str) -> Option<f64> {
    let of = |r: &&Row| r.architecture == architecture && r.board == board;
    geometric_mean(rows.iter().filter(of).filter_map(|r| r.fps_multi.or(r.fps_single)))
}

fn main() {
    let (write, frozen) = (flag("--write"), flag("--frozen"));
    let rows = zoo::rows();
    let target = shiftwise_targets::find("B4096").expect("a shipped target");
    let mut names: Vec<&str> = rows.iter().map(|r| r.architecture.as_str()).collect();
    names.dedup();
    let mut networks = Vec::new();
    for name in names {
        match zoo::prepare(name, &target) {
            Ok((macs, prepared)) => networks.push(Network {
                name: name.into(),
                gops: 2.0 * macs as f64 / 1e9,
                prepared,
                measured: fps_of(&rows, name, "kv260").map(|fps| 1e3 / fps),
            }),
            Err(e) => eprintln!("{name} is left out: {e}"),
        }
        eprintln!("{name} is compiled");
    }
    let all: Vec<&Network> = networks.iter().filter(|n| n.measured.is_some()).collect();
    let start = DVector::from_iterator(CONSTANTS.len(), CONSTANTS.iter().map(|(_, _, x)| x.ln()));
    let timing = shiftwise_targets::timing::of(&target).expect("a shipped table");
    let shipped = CONSTANTS.iter().map(|(name, _, x)| timing.costs.get(*name).unwrap_or(x).ln());
    let x = if frozen { DVector::from_iterator(CONSTANTS.len(), shipped) } else { fit(&all, start, 12) };
    let best = costs(&x);

    let mut text = String::from(HEAD);
    let _ = writeln!(
        text,
        "| network | GOP | published GOP | measured ms | predicted ms | error | left out | family left out |"
    );
    let _ = writeln!(text, "|---|---|---|---|---|---|---|---|");
    let (mut errors, mut left_out, mut family_out, mut large) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut measured, mut predicted) = (Vec::new(), Vec::new());
    for (i, n) in all.iter().enumerate() {
        let fit_to = |wanted: &dyn Fn(usize, &Network) -> bool| {
            let others = all.iter().enumerate().filter(|(j, o)| wanted(*j, o)).map(|(_, o)| *o);
            costs(&fit(&others.collect::<Vec<&Network>>(), x.clone(), 3))
        };
        let without = fit_to(&|j, _| j != i);
        let without_family = fit_to(&|_, o| family(&o.name) != family(&n.name));
        let m = n.measured.unwrap_or(f64::NAN);
        let [p, q, f] = [&best, &without, &without_family].map(|costs| milliseconds(n, costs));
        let percent = |p: f64| 100.0 * (p / m - 1.0);
        let published = rows.iter().find(|r| r.architecture == n.name).map_or(0.0, |r| r.gops);
        let _ = writeln!(
            text,
            "| {} | {:.2} | {published} | {m:.3} | {p:.3} | {:+.1} % | {:+.1} % | {:+.1} % |",
            n.name,
            n.gops,
            percent(p),
            percent(q),
            percent(f)
        );
        errors.push(percent(p));
        left_out.push(percent(q));
        family_out.push(percent(f));
        if n.gops > 1.0 {
            large.push(percent(p));
        }
        measured.push(m);
        predicted.push(p);
    }
    let (mean, worst, _) = spread(&errors);
    let (cross_mean, cross_worst, _) = spread(&left_out);
    let (family_mean, family_worst, band) = spread(&family_out);
    let _ = writeln!(
        text,
        "\n{} networks: mean absolute error {mean:.1} %, worst {worst:.1} % (above 1 GOP {:.1} %), rank correlation {:.3}.\n\
         Left out of the fit: mean absolute error {cross_mean:.1} %, worst {cross_worst:.1} %. With its whole family left \
         out: mean absolute error {family_mean:.1} %, worst {family_worst:.1} %, nine of ten within {band:.1} %: the error \
         band that estimates state.\n",
        errors.len(),
        spread(&large).1,
        rank_correlation(&measured, &predicted),
    );
    let _ = writeln!(text, "| constant | value | |\n|---|---|---|");
    let meanings = [
        "bytes per cycle of one of two data ports, 16 wide",
        "cycles of fill and drain per CONV, ALU, ELEW",
        "cycles from the end of a transfer to its use: not fitted",
        "cycles of one step of the ALU and element-wise arrays: not fitted",
        "cycles lost per cycle in which both arrays compute, as they share banks: not fitted",
        "microseconds from a job's end to the next one's start, driver and interrupt: not fitted",
    ];
    for ((name, field, _), meaning) in CONSTANTS.iter().chain(&FIXED).zip(meanings) {
        let _ = writeln!(text, "| `{name}` | {:.2} | {meaning} |", *field(&mut best.clone()));
    }
    where_time_goes(&all, &best, &mut text);
    let rates = boards(&rows, &networks, &best, frozen, &mut text);
    println!("{text}");
    if write {
        save(&text, &best, band, &rates);
    }
}

/// What each part of a network's work would take by itself, beside what it takes together.
fn where_time_goes(networks: &[&Network], costs: &Costs, text: &mut String) {
    let _ = writeln!(
        text,
        "\n### Where the time goes\n\nMilliseconds that each part of the work would take by itself on the KV260. Transfers \
         hide behind computation where they can, so the whole is less than the sum.\n\n\
         | network | CONV steps | ALU and ELEW steps | fill and drain | weights | maps in | maps out | jobs | whole |\n\
         |---|---|---|---|---|---|---|---|---|"
    );
    for n in networks {
        let t = n.prepared.totals();
        let ms = |cycles: f64| cycles / (f64::from(MHZ) * 1e3);
        let moved = |bytes: u64| ms(bytes as f64 / (2.0 * costs.port_bytes));
        let parts = [
            ms(t.conv_steps as f64),
            ms(t.misc_steps as f64 * costs.misc_step),
            ms(t.computations as f64 * costs.compute),
            moved(t.bytes_constants),
            moved(t.bytes_in - t.bytes_constants),
            moved(t.bytes_out),
            t.jobs as f64 * costs.job_us / 1e3,
            milliseconds(n, costs),
        ];
        let cells: String = parts.iter().map(|ms| format!(" {ms:.2} |")).collect();
        let _ = writeln!(text, "| {} |{cells}", n.name);
    }
}

/// Boards with several cores: their memory rate, and how well it explains their rows; then the others.
fn boards(rows: &[Row], networks: &[Network], best: &Costs, frozen: bool, text: &mut String) -> BTreeMap<String, u32> {
    let mut rates = BTreeMap::new();
    for name in ["zcu102", "zcu104", "ultra96"] {
        let board = shiftwise_targets::find_board(name).expect("a shipped board");
        let dpu = shiftwise_targets::find(board.dpu.as_deref().unwrap_or_default()).expect("its target");
        let own = |n: &Network| (dpu.peak_ops_per_cycle() != 4096).then(|| zoo::prepare(&n.name, &dpu));
        let mut list = Vec::new();
        for n in networks {
            let of = |r: &&Row| r.architecture == n.name && r.board == name;
            let fps = geometric_mean(rows.iter().filter(of).filter_map(|r| r.fps_multi.or(r.fps_single)));
            let Some(fps) = fps else { continue };
            match own(n) {
                None => list.push((n, None, fps)),
                Some(Ok((_, prepared))) => list.push((n, Some(prepared), fps)),
                Some(Err(e)) => eprintln!("{} is left out: {e}", n.name),
            }
        }
        let fps = |p: &Prepared, rate: u32| {
            let cycles = p.cycles(best, board.clock_mhz, board.cores, rate).expect("tokens match");
            f64::from(board.clock_mhz) * 1e6 / cycles * f64::from(board.cores)
        };
        let errors = |rate: u32| -> Vec<f64> {
            list.iter().map(|(n, own, m)| (m / fps(own.as_ref().unwrap_or(&n.prepared), rate)).ln()).collect()
        };
        let square = |rate: u32| errors(rate).iter().map(|e| e * e).sum::<f64>();
        let rate = if board.cores > 1 && !frozen {
            (10..=32).map(|k| k * 500).min_by(|a, b| square(*a).total_cmp(&square(*b))).unwrap_or(0)
        } else {
            board.ddr_mb_per_s
        };
        rates.insert(name.to_owned(), rate);
        let _ = writeln!(
            text,
            "\n## {}: {} × {} at {} MHz, memory {rate} MB/s\n\n| network | measured fps | predicted fps | time error |\n|---|---|---|---|",
            board.title, board.cores, dpu.name, board.clock_mhz
        );
        let errors: Vec<f64> = errors(rate).iter().map(|e| 100.0 * (e.exp() - 1.0)).collect();
        for ((n, own, m), e) in list.iter().zip(&errors) {
            let p = fps(own.as_ref().unwrap_or(&n.prepared), rate);
            let _ = writeln!(text, "| {} | {m:.1} | {p:.1} | {e:+.1} % |", n.name);
        }
        let (mean, worst, _) = spread(&errors);
        let _ = writeln!(text, "\nMean absolute error {mean:.1} %, worst {worst:.1} %.");
    }
    rates
}

fn flag(name: &str) -> bool {
    std::env::args().any(|a| a == name)
}

const HEAD: &str = "\
# The cycle model against published measurements

Written by `cargo run --release -p shiftwise-tests --bin calibrate -- --write`. Architectures are those of this folder, rows
those of `rows.csv` (releases 2.5 and 3.0 of the vendor's tools; the Ultra96 of 1.0, an older DPU). A row's DPU time is 1 /
frames per second with many threads. Several rows of one architecture are one geometric mean. Operations are counted by us;
the published figure stands beside them. `left out`: the error of a fit to all other networks; `family left out`: to all
networks of other families (ResNets, MobileNets with SSD, Inceptions, YOLOs).

## KV260: one DPUCZDX8G_ISA1_B4096 at 300 MHz

";

fn save(text: &str, best: &Costs, band: f64, rates: &BTreeMap<String, u32>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    std::fs::write(zoo::folder().join("CYCLES.md"), text).expect("CYCLES.md");
    let mut table = String::from(
        "# What instructions of a DPUCZDX8G cost, in cycles of its general-logic clock. Fitted to published measurements by\n\
         # `cargo run --release -p shiftwise-tests --bin calibrate -- --write`; tests/zoo/CYCLES.md says how well. INF\n",
    );
    let _ = writeln!(table, "error_band_percent = {band:.1}\n\n[costs]");
    for (name, field, _) in CONSTANTS.iter().chain(&FIXED) {
        let _ = writeln!(table, "{name} = {:.3}", *field(&mut best.clone()));
    }
    std::fs::write(root.join("targets/timing/DPUCZDX8G.toml"), table).expect("the timing table");
    for (name, rate) in rates.iter().filter(|(n, _)| n.starts_with("zcu")) {
        let path = root.join(format!("targets/boards/{name}.toml"));
        let old = std::fs::read_to_string(&path).expect("the board");
        let lines = old.lines().map(|l| match l.split_once('=') {
            Some(("ddr_mb_per_s ", _)) => format!("ddr_mb_per_s = {rate}\n"),
            _ => format!("{l}\n"),
        });
        std::fs::write(&path, lines.collect::<String>()).expect("the board");
    }
}
