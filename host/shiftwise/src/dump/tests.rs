//! Dumps come back, and their differences are named.

use super::*;

fn tensor(name: &str, values: Values) -> DumpTensor {
    DumpTensor { name: name.into(), values }
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("shiftwise-dump-{name}-{}", std::process::id()))
}

#[test]
fn a_dump_comes_back_and_its_text_is_numpys() {
    let dir = folder("round");
    let dump = Dump {
        weights: vec![tensor("quant_block1/conv/kernel", Values::Int8(vec![-128, 0, 127]))],
        activations: vec![
            tensor("quant_conv", Values::Int8(vec![1, -1])),
            tensor("quant_sm", Values::Float(vec![0.015_625, 1e-5, -0.0, f32::NAN])),
        ],
    };
    write(&dir, &dump, true).unwrap();
    let text = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(text("dump_results_weights/quant_block1_conv_kernel.txt"), "-128\n0\n127\n");
    assert_eq!(text("dump_results_0/quant_sm_float.txt"), "0.015625\n1e-05\n-0.0\nnan\n");
    let back = read(&dir).unwrap();
    let same = compare(&dump, &back);
    assert!(same.is_equal() && same.tensors == 3 && same.values == 9, "{same}");
    assert!(same.only_first.is_empty() && same.only_second.is_empty(), "{same}");
    std::fs::write(dir.join("dump_results_0/quant_sm_float.bin"), b"12345").unwrap();
    assert!(read(&dir).unwrap_err().to_string().contains("other bytes than manifest.json says"));
    std::fs::remove_file(dir.join(MANIFEST)).unwrap();
    assert!(read(&dir).unwrap_err().to_string().contains("not whole floats"));
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(matches!(read(&dir), Err(Error::Io { .. })));
}

#[test]
fn names_of_files_fit_and_tell_types_with_a_manifest_only() {
    let long = "block/".repeat(60) + "conv";
    let name = file_name(&long, Type::Float);
    assert!(name.len() == 206 && name.starts_with("block_block_") && name.ends_with(FLOAT), "{name}");
    assert_ne!(name, file_name(&(long.clone() + "x"), Type::Float));
    assert_eq!(file_name("a\0b/c", Type::Int8), "a_b_c");
    let activations = vec![
        tensor(&long, Values::Float(vec![1.5])),
        tensor("a", Values::Int8(vec![1])),
        tensor("a_float", Values::Int8(vec![1, 2, 3, 4])),
    ];
    let dump = Dump { weights: Vec::new(), activations };
    let (dir, plain) = (folder("names"), folder("plain"));
    write(&dir, &dump, true).unwrap();
    assert_eq!(read(&dir).unwrap(), dump);
    // The names alone say floats; what is known beside them says otherwise.
    write(&plain, &dump, false).unwrap();
    std::fs::remove_file(plain.join(MANIFEST)).unwrap();
    let floats = |d: &Dump| d.activations.iter().filter(|t| Type::of(&t.values) == Type::Float).count();
    assert_eq!(floats(&read(&plain).unwrap()), 2);
    let (first, second) = read_both(&plain, &dir).unwrap();
    assert!((floats(&first), floats(&second)) == (1, 1) && compare(&first, &second).is_equal());
    let mixed = compare(&read(&plain).unwrap(), &dump);
    assert!(!mixed.is_equal(), "{mixed}");
    [dir, plain].iter().for_each(|d| std::fs::remove_dir_all(d).unwrap());
}

#[test]
fn stale_tensors_go_and_half_a_dump_is_refused() {
    let dir = folder("stale");
    let of = |name: &str| Dump { activations: vec![tensor(name, Values::Int8(vec![1]))], ..Dump::default() };
    write(&dir, &of("old"), true).unwrap();
    std::fs::write(dir.join("dump_results_0/mine.bin"), b"mine").unwrap();
    write(&dir, &of("new"), false).unwrap();
    let names = |d: &Dump| d.activations.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&read(&dir).unwrap()), ["new"]);
    assert!(!dir.join("dump_results_0/old.bin").exists() && !dir.join("dump_results_0/old.txt").exists());
    assert!(dir.join("dump_results_0/mine.bin").exists());
    let manifest = std::fs::read_to_string(dir.join(MANIFEST)).unwrap();
    std::fs::write(dir.join(MANIFEST), manifest.replace("\"complete\"", "\"incomplete\"")).unwrap();
    assert!(read(&dir).unwrap_err().to_string().contains("is incomplete"));
    std::fs::write(dir.join(MANIFEST), manifest.replace("int8", "float32")).unwrap();
    assert!(read(&dir).unwrap_err().to_string().contains("contradicts itself"));
    std::fs::write(dir.join(MANIFEST), manifest).unwrap();
    std::fs::remove_file(dir.join("dump_results_0/new.bin")).unwrap();
    assert!(matches!(read(&dir), Err(Error::Io { .. })));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_tensor_that_one_side_lacks_is_told() {
    let dump = |weights: &[&str]| Dump {
        weights: weights.iter().map(|n| tensor(n, Values::Int8(vec![1]))).collect(),
        activations: vec![tensor("quant_x\n", Values::Int8(vec![1]))],
    };
    let whole = |a: &[&str], b: &[&str]| compare(&dump(a), &dump(b)).is_whole();
    assert!(whole(&["quant_conv/kernel"], &["quant_conv/kernel"]));
    assert!(!whole(&["quant_conv/kernel"], &[]) && !whole(&[], &["quant_conv/kernel"]));
    // The vendor's own gaps.
    assert!(whole(&["quant_tanhc/kernel"], &[]));
    let other = Dump { activations: vec![tensor("quant_x\n", Values::Int8(vec![2]))], ..Dump::default() };
    let text = compare(&dump(&[]), &other).to_string();
    assert!(text.starts_with("dump_results_0/quant_x\\n  1 of 1"), "{text}");
}

#[test]
fn the_first_difference_is_named_and_extras_are_not_differences() {
    let a = Dump {
        activations: vec![
            tensor("b", Values::Int8(vec![1, 2, 3])),
            tensor("a", Values::Int8(vec![1, 2, 4])),
            tensor("c", Values::Int8(vec![7])),
        ],
        ..Dump::default()
    };
    let mut b = a.clone();
    b.activations.pop();
    b.activations.push(tensor("d", Values::Float(vec![])));
    let extras = compare(&a, &b);
    assert!(extras.is_equal(), "{extras}");
    assert_eq!((extras.only_first.len(), extras.only_second.len()), (1, 1));
    b.activations[0].values = Values::Int8(vec![1, 9, 8]);
    b.activations[1].values = Values::Int8(vec![1, 2]);
    let text = compare(&a, &b).to_string();
    assert!(text.starts_with("dump_results_0/b  2 of 3 differ, first at 1: 2 against 9\n"), "{text}");
    assert!(text.contains("dump_results_0/a  3 values against 2; 0 of 2 differ\n"), "{text}");
    assert!(!compare(&Dump::default(), &Dump::default()).is_equal());
}

#[test]
fn the_vendors_gaps() {
    let shown = ["quant_conv/kernel", "quant_fc/bias"];
    let lost = ["quant_tanhc/kernel", "quant_attention/bias", "quant_unit1/kernel", "quant_quant_c/kernel"];
    assert!(shown.iter().all(|n| dump_weight_is_shown(n)));
    assert!(!lost.iter().any(|n| dump_weight_is_shown(n)));
    assert_eq!(weight_name("quant_x/w0:0"), "quant_x/w");
}
