//! `shiftwise estimate` from outside.

use shiftwise_tests::command::{Folder, Ran};
use shiftwise_tests::zoo;

fn run(folder: &Folder, arguments: &str, code: i32) -> Ran {
    let ran = folder.run(arguments);
    assert_eq!(ran.code, Some(code), "{arguments}: {ran:?}");
    ran
}

#[test]
fn an_architecture_has_a_time_without_data_or_weights() {
    let folder = Folder::new("estimate");
    let text = std::fs::read(zoo::folder().join("mobilenet_v1_0_5_160.json")).unwrap();
    folder.write("net.json", &text);

    let json = run(&folder, "estimate net.json --board kv260 --trace t.json --json", 0).json();
    let number = |key: &str| json[key].as_f64().unwrap_or_else(|| panic!("{key}: {json}"));
    let (cycles, us) = (number("dpu_cycles"), number("dpu_latency_us"));
    assert!((number("gops") - 2.0 * number("macs") / 1e9).abs() < 1e-6 && (number("gops") - 0.153).abs() < 0.005);
    // What is beyond the cycles is the start of the one job, which no clock makes shorter.
    let start = us - cycles / 300.0;
    assert_eq!(number("subgraphs"), 1.0);
    assert!((10.0..=100.0).contains(&start), "{us} µs, {cycles} cycles at 300 MHz");
    // Measured: 1473 to 1492 frames per second.
    let fps = number("fps_one_core_busy");
    assert!((fps / 1480.0 - 1.0).abs() < 0.15, "{fps}");
    assert_eq!(number("fps_all_cores"), fps, "a board with one core");
    assert!(number("error_band_percent") > 0.0);
    let layers = json["layers"].as_array().unwrap();
    let on = |engine: &str| layers.iter().filter(|l| l["engine"] == engine).collect::<Vec<_>>();
    let sum: f64 = layers.iter().filter_map(|l| l["cycles"].as_f64()).sum();
    assert_eq!(sum, cycles);
    for l in on("conv").into_iter().chain(on("misc")) {
        let utilization = l["utilization"].as_f64().unwrap();
        assert!(
            (0.0..=1.0).contains(&utilization) && l["bytes"].as_u64().unwrap() > 0 && l["bound"].is_string(),
            "{l}"
        );
    }
    let [softmax] = &on("cpu")[..] else { panic!("{json}") };
    assert!(softmax["reason"].as_str().unwrap().contains("softmax") && softmax["cpu_us"].as_f64().unwrap() > 0.0);
    let trace = std::fs::read(folder.path.join("t.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_slice(&trace).unwrap();
    assert!(trace["traceEvents"].as_array().unwrap().len() > 1000);

    // Faster clocks and more cores give more frames; both cores together less than twice one.
    let fast =
        run(&folder, "estimate net.json --target DPUCZDX8G_ISA1_B4096 --clock 0.6GHz --cores 1 --json", 0).json();
    assert_eq!(fast["dpu_cycles"].as_f64(), Some(cycles));
    assert!((fast["dpu_latency_us"].as_f64().unwrap() - start - cycles / 600.0).abs() < 0.1);
    let both = run(&folder, "estimate net.json --board zcu104 --json", 0).json();
    let (one, all) = (both["fps_one_core_busy"].as_f64().unwrap(), both["fps_all_cores"].as_f64().unwrap());
    assert!(1.2 * one < all && all <= 2.001 * one, "{one} {all}");
    let small = run(&folder, "estimate net.json --target b512 --json", 0).json();
    assert!(small["dpu_cycles"].as_f64().unwrap() > 2.0 * cycles);

    let text = run(&folder, "estimate net.json --board kv260", 0).out;
    for part in ["bound", "cycles", "frames per second", "9 of 10", "on the CPU"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = run(&folder, "estimate net.json --target cpu", 0).out;
    assert!(text.contains("multiply-accumulates") && text.contains("RAM in use"), "{text}");
    assert!(run(&folder, "estimate net.json --board kv260 --clock fast", 2).err.contains("300MHz"));
    run(&folder, "estimate nowhere.json --board kv260", 2);
    // A model with weights of its own, float or quantized.
    assert!(
        run(&folder, "estimate digits_resnet.h5 --board kv260 --json", 0).json()["dpu_cycles"].as_u64() > Some(1000)
    );
}

#[test]
fn a_processor_takes_the_cycles_of_its_instructions_at_its_clock() {
    let folder = Folder::new("estimate_processor");
    folder.write("net.json", &std::fs::read(zoo::folder().join("mobilenet_v1_0_5_160.json")).unwrap());
    let of = |board: &str| run(&folder, &format!("estimate net.json --json --board {board}"), 0).json();
    let number = |json: &serde_json::Value, key: &str| json[key].as_f64().unwrap_or_else(|| panic!("{key}: {json}"));

    let (m4, twice, m7) = (of("nrf52840-dk"), of("nrf52840-dk --clock 128MHz"), of("nucleo-f767zi"));
    let instructions = number(&m4, "instructions");
    assert!((number(&m4, "latency_ms") - instructions * 1.5 / 64e3).abs() < 1e-6 * instructions);
    assert!((number(&m4, "fps") * number(&m4, "latency_ms") - 1000.0).abs() < 1e-6);
    assert_eq!(number(&twice, "latency_ms") * 2.0, number(&m4, "latency_ms"));
    // The M7 runs the code that was counted on the M4.
    assert_eq!(number(&m7, "instructions"), instructions);
    assert!(number(&m7, "error_band_percent") > 0.0);
    let fits = |json: &serde_json::Value| json["footprint"]["fits"].as_bool();
    // 0.8 million weights and maps of 80 x 80 x 32 bytes are too much for 256 KiB of RAM.
    assert_eq!((fits(&m4), fits(&m7)), (Some(false), Some(true)), "{m4} {m7}");

    // Nobody has counted on this core, and the file of a board that is wrong names the field.
    let pico = of("rpi-pico");
    assert!(pico.get("latency_ms").is_none() && pico["instructions"].is_null() && fits(&pico).is_some(), "{pico}");
    run(&folder, "estimate net.json --board rpi-pico --clock 100MHz --cores 2", 2);
    folder.write("mine.toml", b"name = 'x'\ntitle = 'X'\ncpu = 'y'\n[processor]\nclock = 3\n");
    let wrong = run(&folder, "estimate net.json --board mine.toml", 2).err;
    assert!(wrong.contains("mine.toml") && wrong.contains("`clock`"), "{wrong}");
}

#[test]
fn other_input_shapes_take_other_times() {
    let folder = Folder::new("estimate-shape");
    let text = std::fs::read_to_string(zoo::folder().join("squeezenet_1_1.json")).unwrap();
    folder.write("net.json", text.as_bytes());
    let cycles = |shape: &str| {
        let command = format!("estimate net.json --board kv260 --input-shape 1,{shape},{shape},3 --json");
        run(&folder, &command, 0).json()["dpu_cycles"].as_f64().unwrap()
    };
    let (small, large) = (cycles("224"), cycles("448"));
    assert!((2.5..6.0).contains(&(large / small)), "{small} {large}");
}

#[test]
fn a_fast_program_has_the_same_outputs_and_saves_less() {
    let folder = Folder::new("fast");
    run(&folder, "quantize digits_resnet.h5 --calib digits.npz:x_cal --output-dir q", 0);
    let mut outputs = Vec::new();
    let (mut cycles, mut saved) = (Vec::new(), Vec::new());
    for (name, how) in [("seen", ""), ("fast", "--fast")] {
        let json = run(&folder, &format!("compile q/quantized.h5 --board kv260 -o {name}.swm {how} --json"), 0).json();
        cycles.push(json["cycles"]["cycles"].as_u64().unwrap());
        saved.push(json["cycles"]["bytes_out"].as_u64().unwrap());
        run(&folder, &format!("simulate {name}.swm --data digits.npz:x_eval --samples 3 --output-dir {name}"), 0);
        outputs.push(std::fs::read(folder.path.join(name).join("output_0.npy")).unwrap());
    }
    assert_eq!(outputs[0], outputs[1]);
    assert!(cycles[1] <= cycles[0] && saved[1] < saved[0], "{cycles:?} {saved:?}");
    let estimate = run(&folder, "estimate q/quantized.h5 --board kv260 --json", 0).json();
    assert_eq!(estimate["dpu_cycles"].as_u64(), Some(cycles[1]), "an estimate is of the fast program");
}
