//! The page of what each DPU does, made of the compiler's table of limits.

use std::fmt::Write as _;

use shiftwise_compile::limits::{Row, rows};
use shiftwise_compile::reason::Reason;
use shiftwise_core::target::Target;

/// What each engine does, as the user's layers are called.
const ENGINES: &[(&str, &str)] = &[
    ("CONV", "Conv2D, Conv2DTranspose, Dense, with ReLU, ReLU6 or LeakyReLU of slope 26/256"),
    ("ALU, depthwise", "DepthwiseConv2D and BatchNormalization that nothing is folded into, with the same activations"),
    ("ALU, pooling", "MaxPooling2D, AveragePooling2D, GlobalAveragePooling2D, hard sigmoid"),
    ("ELEW", "Add, Multiply, with ReLU or ReLU6"),
];

/// A family of targets and its members: those whose names are alike up to the last part.
fn families() -> Vec<(String, Vec<Target>)> {
    let mut all: Vec<(String, Vec<Target>)> = Vec::new();
    for target in shiftwise_targets::targets() {
        let name = target.name.as_str();
        let family = name.rsplit_once('_').map_or(name, |(family, _)| family).to_owned();
        match all.iter_mut().find(|(own, _)| *own == family) {
            Some((_, members)) => members.push(target),
            None => all.push((family, vec![target])),
        }
    }
    all
}

fn range(limit: Option<(i64, i64)>) -> String {
    match limit {
        None => "within the window".into(),
        Some((min, max)) if max >= i64::from(i32::MAX) => format!("{min} …"),
        Some((min, max)) => format!("{min} … {max}"),
    }
}

/// The page, in Markdown.
pub fn page() -> String {
    let mut out = String::from(
        "# What runs on which DPU\n\nMade by `cargo xtask docs` of the compiler's table of limits, which also decides where a layer \
         is placed: `shiftwise inspect MODEL --target TARGET` says it of a network.\n\n| engine | layers |\n|---|---|\n",
    );
    for (engine, layers) in ENGINES {
        let _ = writeln!(out, "| {engine} | {layers} |");
    }
    out += "\nConcatenate, Flatten, Reshape, ZeroPadding2D, UpSampling2D of nearest pixels and permutations of rows and columns are \
            done by addresses and copies. What is in no row runs on the CPU.\n";
    for (family, members) in families() {
        let _ = write!(out, "\n## {family}\n\n| engine | number | ");
        let tables: Vec<Vec<Row>> = members.iter().map(rows).collect();
        let size = |t: &Target| t.name.as_str().rsplit('_').next().unwrap_or_default().to_owned();
        let names: Vec<String> = members.iter().map(size).collect();
        let _ = writeln!(out, "{} | otherwise |\n|---|---|{}---|", names.join(" | "), "---|".repeat(names.len()));
        let first = tables.first().map_or(&[][..], Vec::as_slice);
        for (i, row) in first.iter().enumerate() {
            let limits: Vec<String> = tables.iter().map(|table| range(table.get(i).and_then(|r| r.limit))).collect();
            let _ = writeln!(out, "| {} | {} | {} | {} |", row.engine, row.what, limits.join(" | "), row.remedy);
        }
    }
    let _ = write!(
        out,
        "\n## Reasons\n\nThe codes of reasons for which a layer is on the CPU, as `inspect --json` has them:\n\n"
    );
    let _ = writeln!(out, "{}.", Reason::CODES.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", "));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_EXPECT=1` rewrites it.
    #[test]
    fn the_page_of_supported_layers_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/SUPPORTED.md");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == page(), "docs/SUPPORTED.md is out of date: UPDATE_EXPECT=1 rewrites it");
    }
}
