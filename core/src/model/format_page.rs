//! `FORMAT.md` against the code: the numbers in it and the tags of every enum.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::*;

fn page() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("FORMAT.md");
    std::fs::read_to_string(path).unwrap()
}

/// The variants that decode from tag 0, 1, … with zeros behind, by name.
fn tags<T: serde::de::DeserializeOwned + core::fmt::Debug>() -> Vec<String> {
    let name = |debug: String| debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or("").to_string();
    (0u8..).map_while(|tag| Some(name(format!("{:?}", value::<T>(tag)?)))).collect()
}

fn value<T: serde::de::DeserializeOwned>(tag: u8) -> Option<T> {
    let mut bytes = [0; 64];
    bytes[0] = tag;
    postcard::from_bytes(&bytes).ok()
}

fn check(name: &str, tags: &[String]) {
    let page = page();
    let row = page.lines().find(|l| l.starts_with(&format!("| `{name}` | 0 "))).unwrap_or_else(|| panic!("{name}"));
    let listed = |(tag, variant): (usize, &String)| row.contains(&format!("{tag} `{variant}`"));
    assert!(tags.iter().enumerate().all(listed), "{name}: {tags:?} are not the tags of: {row}");
    assert!(!row.contains(&format!(" {} `", tags.len())), "{name} has only {} variants: {row}", tags.len());
}

#[test]
fn every_enum_has_the_tags_of_the_page() {
    check("Region", &tags::<Region>());
    check("DType", &tags::<DType>());
    check("Role", &tags::<Role>());
    check("Act", &tags::<Act>());
    check("PoolKind", &tags::<PoolKind>());
    check("FloatOp", &tags::<FloatOp>());
    check("ScaledPoolKind", &tags::<ScaledPoolKind>());
    check("FloatPoolKind", &tags::<FloatPoolKind>());
    check("RowFunction", &tags::<RowFunction>());
    check("Function", &tags::<Function>());
    check("Combine", &tags::<Combine>());
    let ops: Vec<String> = (0u8..)
        .map_while(|tag| {
            let mut bytes = [0; 64];
            bytes[0] = tag;
            let op = postcard::from_bytes::<CpuOp<'_>>(&bytes).ok()?;
            Some(format!("{op:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap_or("").to_string())
        })
        .collect();
    assert!(ops.len() > 5);
    check("CpuOp", &ops);
    let scaled = |tag: u8| {
        let mut bytes = [0; 64];
        bytes[0] = tag;
        let op = postcard::from_bytes::<ScaledOp<'_>>(&bytes).ok()?;
        Some(format!("{op:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap_or("").to_string())
    };
    check("ScaledOp", &(0u8..).map_while(scaled).collect::<Vec<_>>());
    assert!(matches!(postcard::from_bytes(&[0; 64]), Ok(Step::Dpu(_))));
    assert!(page().contains("| `Step` | 0 `Dpu` (`DpuJob`), 1 `Cpu` (`CpuOp`) |"));
}

#[test]
fn the_numbers_of_the_page_are_those_of_the_code() {
    let page = page();
    assert!(page.contains(&format!("# The deployable, format version {FORMAT_VERSION}\n")));
    assert!(page.contains(&format!("magic, `{}`", core::str::from_utf8(&MAGIC).unwrap())));
    assert!(page.contains(&format!("number of sections, {SECTIONS} |")));
    assert!(page.contains(&format!("| 24..{HEADER_BYTES} | {SECTIONS} × ")));
    assert!(page.contains(&format!("| constants | {CONST_ALIGN} |")));
    assert!(page.contains(&format!("| code | {CODE_ALIGN} if not empty |")));
    assert_eq!(postcard::from_bytes::<Act>(&[0x02, 0xD8, 0x04]), Ok(Act::ReluMax(300)));
}
