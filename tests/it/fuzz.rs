//! The fuzzers' targets on their corpus, and on damaged copies of it: without a fuzzer, in every run of the tests.

use proptest::prelude::*;
use shiftwise_tests::agreement::Verdict;
use shiftwise_tests::cases::cases;
use shiftwise_tests::fuzz::{TARGETS, compare_graph, compare_network, corpus, pictures_with_checksums, with_checksum};
use shiftwise_tests::odd::choices_of;

use crate::format::mutate;

/// Every file of a target's corpus.
fn files(target: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(corpus(target)).unwrap_or_else(|e| panic!("{target}: {e}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn the_corpus_is_read() {
    for target in TARGETS {
        let files = files(target.name);
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        files.iter().for_each(|bytes| (target.run)(bytes));
    }
    // `cargo xtask fuzz` takes the folders for the targets.
    let folders = std::fs::read_dir(corpus("..").join("corpus")).unwrap().count();
    assert_eq!(folders, TARGETS.len(), "a corpus without a target");
}

#[test]
fn damaged_copies_of_the_corpus_are_read() {
    for target in TARGETS {
        for bytes in files(target.name) {
            mutate(&bytes, 40, |copy| {
                (target.run)(&copy);
                false
            });
        }
    }
}

/// What is put around the bytes belongs to them.
#[test]
fn checksums_are_made_good() {
    for picture in files("images") {
        assert_eq!(pictures_with_checksums(&picture), picture);
        if picture.starts_with(b"\x89PNG") {
            let mut damaged = picture.clone();
            damaged[29] ^= 1;
            assert_eq!(pictures_with_checksums(&damaged), picture, "the checksum of the first chunk");
        }
    }
    for file in files("deployable") {
        assert_eq!(with_checksum(file.clone()), file);
    }
}

/// A comparison says something only where networks are not refused.
#[test]
fn most_odd_networks_are_computed() {
    for (what, compare) in [("graphs", compare_graph as fn(&[u8]) -> _), ("networks", compare_network)] {
        let mut reasons = Vec::new();
        for seed in 0..200 {
            match compare(&choices_of(seed, 250)).unwrap_or_else(|why| panic!("seed {seed}: {why}")) {
                Verdict::Agree => {}
                Verdict::Refused(why) => reasons.push(why),
            }
        }
        assert!(reasons.len() < 100, "{} of 200 odd {what} were refused: {reasons:#?}", reasons.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(100)))]

    #[test]
    fn odd_graphs_are_computed_alike(seed: u64, len in 20usize..400) {
        run("graph", &choices_of(seed, len));
    }

    #[test]
    fn odd_networks_are_computed_alike(seed: u64, len in 20usize..400) {
        run("network", &choices_of(seed, len));
    }
}

fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|t| t.name == name).unwrap();
    (target.run)(bytes);
}
