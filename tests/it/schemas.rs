//! The JSON Schemas of what commands report: kept under `docs/schema`, one for every command, and true of real answers.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use shiftwise::reports::{COMMANDS, schema};
use shiftwise_tests::command::Folder;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema")
}

/// `UPDATE_EXPECT=1` rewrites the files.
#[test]
fn every_report_has_its_schema_in_the_repository() {
    let mut known = vec!["README.md".to_owned()];
    for command in COMMANDS {
        let text = format!("{:#}\n", schema(command).unwrap());
        let file = folder().join(format!("{command}.json"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&file, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(kept == text, "docs/schema/{command}.json is out of date: UPDATE_EXPECT=1 rewrites it");
        known.push(format!("{command}.json"));
    }
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name), "docs/schema/{name} belongs to no command");
    }
}

/// The commands as the program's own help lists them, in groups: two blanks, a name, blanks, a sentence.
#[test]
fn every_command_has_a_schema() {
    let help = Folder::new("schema-commands").run("--help").out;
    let lines = help.lines().take_while(|l| *l != "Options:").filter(|l| l.starts_with("  "));
    let commands: Vec<&str> = lines.filter_map(|l| l.split_whitespace().next()).collect();
    assert!(commands.len() > 10, "{help}");
    let missing: Vec<_> = commands.iter().filter(|c| !COMMANDS.contains(c)).collect();
    assert!(missing.is_empty(), "{missing:?} have no row in the table of reports");
    let stray: Vec<_> = COMMANDS.iter().filter(|c| **c != "error" && !commands.contains(c)).collect();
    assert!(stray.is_empty(), "{stray:?} are no commands");
}

/// What a value breaks of a schema, of the keywords that schemas of types use; an unknown keyword is an error too.
/// `open`: keys that are not listed belong to another part of the same object.
fn broken(schema: &Value, root: &Value, value: &Value, at: &str, open: bool) -> Option<String> {
    let Value::Object(schema) = schema else {
        return (*schema != Value::Bool(true)).then(|| format!("{at}: nothing is allowed here"));
    };
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(name.strip_prefix('#').unwrap()).unwrap();
        return broken(target, root, value, at, open);
    }
    for kinds in ["anyOf", "oneOf"].iter().filter_map(|key| schema.get(*key)).map(|k| k.as_array().unwrap()) {
        let all: Vec<String> = kinds
            .iter()
            .map_while(|kind| broken(kind, root, value, at, open || schema.contains_key("properties")))
            .collect();
        if all.len() == kinds.len() {
            return Some(all.join(" and "));
        }
    }
    if let Some(kind) = schema.get("type") {
        let kinds: Vec<&str> = kind
            .as_array()
            .map_or(vec![kind], |all| all.iter().collect())
            .iter()
            .map(|k| k.as_str().unwrap())
            .collect();
        let own = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if !(kinds.contains(&own) || own == "integer" && kinds.contains(&"number")) {
            return Some(format!("{at}: {own}, expected {kinds:?}"));
        }
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        return Some(format!("{at}: {value} is none of {allowed:?}"));
    }
    match value {
        Value::Object(map) => in_object(schema, root, map, at, open),
        Value::Array(items) => {
            let of = |i: usize| schema.get("prefixItems").and_then(|p| p.get(i)).or(schema.get("items"));
            items.iter().enumerate().find_map(|(i, v)| broken(of(i)?, root, v, &format!("{at}[{i}]"), false))
        }
        _ => None,
    }
}

fn in_object(
    schema: &Map<String, Value>,
    root: &Value,
    map: &Map<String, Value>,
    at: &str,
    open: bool,
) -> Option<String> {
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    if let Some(missing) = required.filter_map(Value::as_str).find(|key| !map.contains_key(*key)) {
        return Some(format!("{at}: `{missing}` is missing"));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    map.iter().find_map(|(key, value)| {
        let at = format!("{at}.{key}");
        match properties.and_then(|p| p.get(key)).or(schema.get("additionalProperties")) {
            Some(own) => broken(own, root, value, &at, false),
            // The kinds of a flattened value list their own.
            None if open || schema.contains_key("anyOf") || schema.contains_key("oneOf") => None,
            None if properties.is_some() => Some(format!("{at}: not in the schema")),
            None => None,
        }
    })
}

#[test]
fn answers_are_what_the_schemas_say() {
    let folder = Folder::new("schema-answers");
    for command in [
        "quantize digits_lenet.h5 --calib digits.npz:x_cal --output-dir q --target DPUCZDX8G_ISA1_B512",
        "evaluate q/quantized.h5 --data digits.npz:x_eval --labels digits.npz:y_eval --baseline digits_lenet.h5",
        "dump q/quantized.h5 --data digits.npz:x_eval --output-dir dump",
        "dump q/quantized.h5 --data digits.npz:x_cal --output-dir other",
        "compare dump other",
        "compile q/quantized.h5 --target DPUCZDX8G_ISA1_B512 -o b512.swm --listing b512.txt",
        "compile q/quantized.h5 --target cpu --board mps2-an386 -o mcu.swm",
        "estimate digits_lenet.h5 --board kv260",
        "estimate digits_lenet.h5 --board mps2-an386",
        "inspect digits_resnet.h5",
        "inspect digits_resnet.h5 --target B512",
        "analyze digits_lenet.h5 --calib digits.npz:x_cal --samples 4",
        "tune digits_lenet.h5 --calib digits.npz:x_cal --data digits.npz:x_eval --trials 2",
        "diff q/quantized.h5 q/quantized.h5",
        "report digits_lenet.h5 --calib digits.npz:x_cal --target B512",
        "diff b512.swm mcu.swm",
        "simulate b512.swm --data digits.npz:x_eval --golden dump --output-dir sim",
        "simulate mcu.swm --data digits.npz:x_cal --samples 100 --output-dir sim_cpu",
        "evaluate q/quantized.h5 --data digits.npz:x_cal --labels sim_cpu/output_0.npy --metric mae",
        "verify digits_lenet.h5 --calib digits.npz:x_cal --data digits.npz:x_eval --target B512 -o proof.json",
        "targets",
        "targets B4096",
        "targets kv260",
        "targets DPUCVDX8G_ISA3_C32B1",
        "strategy dump pof2s --verbose 2 -o strategy.json",
        "strategy check strategy.json",
        "disasm b512.swm",
        "disasm b512.swm --check",
        "quantize nothing.h5",
    ] {
        let ran = folder.run(&format!("{command} --json"));
        let answer: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{command}: {e}: {ran:?}"));
        let name = if ran.code == Some(2) { "error" } else { command.split(' ').next().unwrap() };
        assert!(name != "error" || command.contains("nothing"), "{command}: {ran:?}");
        let schema = schema(name).unwrap();
        assert_eq!(broken(&schema, &schema, &answer, name, false), None, "{command}");
    }
}
