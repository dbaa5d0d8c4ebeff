//! The architectures of `zoo/` are those that were measured, and the cycle model stays what its report says.

use std::collections::BTreeMap;

use shiftwise_tests::zoo;

/// Operations of a network file by this formula: output pixels × kernel × channels, as published tables count.
fn operations(name: &str) -> f64 {
    let target = shiftwise_targets::find("B4096").unwrap();
    let (macs, _) = zoo::prepare(name, &target).unwrap_or_else(|e| panic!("{name}: {e}"));
    2.0 * macs as f64 / 1e9
}

#[test]
fn architectures_have_the_published_operations() {
    let mut published: BTreeMap<String, f64> = BTreeMap::new();
    for row in zoo::rows() {
        // Rows of one architecture may count the classifier or not: the nearest to the first stands for all.
        published.entry(row.architecture).or_insert(row.gops);
    }
    assert!(published.len() >= 16, "{published:?}");
    // The two largest take as long as all others together.
    for (name, gops) in published.iter().filter(|(n, _)| !n.starts_with("vgg") && !n.contains("152")) {
        let own = operations(name);
        assert!((own / gops - 1.0).abs() < 0.03, "{name}: {own} instead of {gops}");
    }
}

#[test]
fn the_report_holds_what_is_promised() {
    let text = std::fs::read_to_string(zoo::folder().join("CYCLES.md")).unwrap();
    let kv260 = text.split("\n## ").nth(1).unwrap();
    let rows: Vec<Vec<&str>> =
        kv260.lines().filter(|l| l.ends_with("% |")).map(|l| l.split('|').map(str::trim).collect()).collect();
    assert!(rows.len() >= 16);
    let number = |text: &str| text.trim_end_matches(" %").parse::<f64>().unwrap();
    let errors: Vec<(f64, f64)> = rows.iter().map(|r| (number(r[2]), number(r[6]).abs())).collect();
    let mean = errors.iter().map(|(_, e)| e).sum::<f64>() / errors.len() as f64;
    assert!(mean <= 10.0, "{mean}");
    assert!(errors.iter().all(|(gop, e)| *gop < 1.0 || *e <= 15.0), "{errors:?}");
    // The report is of the constants that are shipped.
    let timing = shiftwise_targets::timing::of(&shiftwise_targets::find("B4096").unwrap()).unwrap();
    for (name, value) in &timing.costs {
        let row = text.lines().find(|l| l.starts_with(&format!("| `{name}` |"))).unwrap();
        let shown = number(row.split('|').nth(2).unwrap().trim());
        assert!((shown - value).abs() < 0.006, "{name}: {shown} in the report, {value} shipped");
    }
}

#[test]
fn small_networks_take_the_time_that_was_measured() {
    let target = shiftwise_targets::find("B4096").unwrap();
    let timing = shiftwise_targets::timing::of(&target).unwrap();
    let costs = serde_json::from_value(serde_json::to_value(&timing.costs).unwrap()).unwrap();
    for name in ["mobilenet_v1_1_0_224", "squeezenet_1_1", "mobilenet_v2_1_0_224"] {
        let (_, prepared) = zoo::prepare(name, &target).unwrap();
        let ms = prepared.cycles(&costs, 300, 1, 0).unwrap() / 300e3;
        let rows = zoo::rows();
        let measured = rows.iter().filter(|r| r.architecture == name && r.board == "kv260");
        for row in measured {
            let fps = row.fps_multi.unwrap();
            let error = ms * fps / 1e3 - 1.0;
            assert!(error.abs() < 0.15, "{name} {}: {ms} ms, {fps} fps", row.published);
        }
    }
}
