//! Races in small programs.

use shiftwise_core::isa::Line;

use crate::{Race, check_order};

/// Checks a listing for B512: four rows, eight lanes.
fn check(text: &str) -> Result<(), Race> {
    let target = shiftwise_targets::find("B512").unwrap();
    let lines: Vec<Line> = text.lines().map(|l| l.trim().parse().unwrap()).collect();
    check_order(&target, &lines, &[0, 4096, 4096, 4096])
}

/// A copy through bank 1, with these tokens of LOAD and SAVE.
fn copy(load: &str, save: &str) -> Result<(), Race> {
    check(&format!(
        "LOAD {load} bank_id 1 bank_addr 5 length 4 channel 8 jump_read 8 reg_id 2
         SAVE {save} bank_id 1 bank_addr 5 length 4 channel 8 jump_write 8 reg_id 3
         END 0010 0010"
    ))
}

#[test]
fn a_token_makes_the_difference() {
    assert_eq!(copy("0001 0011", "0011 0010"), Ok(()));
    let race = copy("0001 0001", "0010 0010").unwrap_err().to_string();
    assert_eq!(race, "no token orders instruction 0 LOAD and instruction 1 SAVE, which both use address 5 of bank 1");
}

#[test]
fn memory_counts_too() {
    let program = |load: &str, save: &str| {
        check(&format!(
            "SAVE {save} bank_id 1 length 2 channel 8 jump_write 8 reg_id 1 ddr_addr 64
             LOAD {load} bank_id 9 length 2 channel 8 jump_read 8 reg_id 1 ddr_addr 72
             END 0010 0010"
        ))
    };
    assert_eq!(program("0011 0001", "0010 0011"), Ok(()));
    let race = program("0001 0001", "0010 0010").unwrap_err().to_string();
    assert!(race.contains("LOAD") && race.contains("SAVE") && race.ends_with("byte 72 of base register 1"), "{race}");
}

#[test]
fn saves_without_their_own_token_may_overlap_and_compute_arrays_may_not() {
    let saves = |second: &str| {
        check(&format!(
            "SAVE 0010 0000 bank_id 1 length 2 channel 8 jump_write 8 reg_id 3
             SAVE 0000 0010 bank_id 1 length 2 channel 8 jump_write 8 reg_id 3 ddr_addr {second}
             END 0010 0010"
        ))
    };
    assert_eq!(saves("16"), Ok(()));
    assert!(saves("8").is_err());
    // One ALU after the other on one array: the second may read what the first wrote.
    let alu = "ALUINIT 1000 1000 exec_mode 3
               ALU 0000 0000 bank_id_in 0 bank_id_out 4
               ALU 0000 0000 bank_id_in 4 bank_id_out 0
               END 0010 0010";
    assert_eq!(check(alu), Ok(()));
}

#[test]
fn a_chain_of_tokens_orders_what_no_single_one_does() {
    // LOAD, then CONV, then SAVE: LOAD's data is saved in the end, ordered through CONV only.
    let program = |conv: &str| {
        check(&format!(
            "LOAD 0001 0101 bank_id 1 length 4 channel 8 reg_id 2
             CONVINIT 0100 0100
             CONV {conv} bank_id_in 0 bank_id_out 6
             SAVE 0110 0010 bank_id 1 length 4 channel 8 reg_id 3
             END 0010 0010"
        ))
    };
    assert_eq!(program("0101 0110"), Ok(()));
    assert!(program("0100 0110").is_err());
}
