//! Words to instructions and back, and the text listing: one generic walk over a [`layout`](super::layout).
//!
//! The listing has the vendor's assembly shape: mnemonic, `waits` and `signals` as four binary digits (MISC, CONV, SAVE,
//! LOAD), then `name value` pairs with natural values (DOC):
//! `SAVE 1010 0010 bank_id 8 bank_addr 148 jump_write 64 …`. The parser takes the pairs in any order and gives fields
//! that are left out their default.

use core::fmt;
use core::str::FromStr;

use super::layout::{Field, InstLayout, IsaVersion, MAX_WORDS, Stored};
use super::{EngineSet, Inst, Kind, Line, MAX_FIELDS, Tokens};

/// A value that its field cannot hold, or a field that the ISA version lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EncodeError {
    /// Mnemonic.
    pub inst: &'static str,
    /// Field; empty if the ISA version has no such instruction.
    pub field: &'static str,
    /// Its value.
    pub value: i64,
    /// Smallest value that fits.
    pub low: i64,
    /// Largest value that fits.
    pub high: i64,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inst, field, value, low, high } = self;
        if field.is_empty() {
            return write!(f, "this ISA version has no {inst}");
        }
        write!(f, "{inst}: {field} {value} is outside {low}..={high}")
    }
}

impl core::error::Error for EncodeError {}

/// Words that are no instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DecodeError {
    /// No instruction has this operation code.
    Opcode {
        /// The code.
        opcode: u8,
    },
    /// The code ends inside the instruction.
    Truncated {
        /// Mnemonic.
        inst: &'static str,
    },
    /// Reserved bits are set.
    Reserved {
        /// Mnemonic.
        inst: &'static str,
        /// Word of the instruction.
        word: u8,
        /// The offending bits.
        bits: u32,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opcode { opcode } => write!(f, "no instruction has operation code {opcode:#x}"),
            Self::Truncated { inst } => write!(f, "the code ends inside {inst}"),
            Self::Reserved { inst, word, bits } => {
                write!(f, "{inst}: reserved bits {bits:#010x} of word {word} are set")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

/// The words of one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    words: [u32; MAX_WORDS],
    len: u8,
}

impl Words {
    /// The words, first in memory first.
    pub fn as_slice(&self) -> &[u32] {
        self.words.get(..usize::from(self.len)).unwrap_or(&self.words)
    }

    /// The bytes, little-endian.
    pub fn bytes(&self) -> impl Iterator<Item = u8> {
        self.words.into_iter().take(self.len.into()).flat_map(u32::to_le_bytes)
    }
}

/// The bits of a natural value in range.
fn stored(field: &Field, natural: i64) -> u32 {
    let value = match field.stored {
        Stored::Plain | Stored::Signed => natural,
        Stored::MinusOne => natural - 1,
    };
    value as u32 & field.mask()
}

fn natural(field: &Field, bits: u32) -> i64 {
    match field.stored {
        Stored::Plain => bits.into(),
        Stored::MinusOne => i64::from(bits) + 1,
        Stored::Signed => {
            let unused = 32 - u32::from(field.width);
            i64::from(((bits << unused) as i32) >> unused)
        }
    }
}

/// Whether every value of `inst` fits its field.
///
/// Errors: as [`encode`].
pub fn check(isa: IsaVersion, inst: &Inst) -> Result<&'static InstLayout, EncodeError> {
    let kind = inst.kind();
    let none = EncodeError { inst: kind.mnemonic(), field: "", value: 0, low: 0, high: 0 };
    let layout = isa.of(kind).ok_or(none)?;
    let values = inst.values();
    for field in layout.fields {
        let value = values.get(usize::from(field.index)).copied().unwrap_or(0);
        let (low, high) = field.range();
        if !(low..=high).contains(&value) {
            return Err(EncodeError { field: field.name, value, low, high, ..none });
        }
    }
    Ok(layout)
}

/// The words of `line`.
///
/// Errors: a value outside its field's range is an error that names the field; nothing is ever truncated.
pub fn encode(isa: IsaVersion, line: &Line) -> Result<Words, EncodeError> {
    let layout = check(isa, &line.inst)?;
    let mut words = Words { words: [0; MAX_WORDS], len: layout.words };
    let [first, ..] = &mut words.words;
    *first = u32::from(layout.kind.opcode()) << 28
        | u32::from(line.tokens.waits.bits()) << 24
        | u32::from(line.tokens.signals.bits()) << 20;
    let values = line.inst.values();
    for field in layout.fields {
        let value = values.get(usize::from(field.index)).copied().unwrap_or(0);
        if let Some(word) = words.words.get_mut(usize::from(field.word)) {
            *word |= stored(field, value) << field.lsb;
        }
    }
    Ok(words)
}

/// The first instruction of `code` and its length in words.
pub fn decode(isa: IsaVersion, code: &[u8]) -> Result<(Line, usize), DecodeError> {
    let word = |index: usize| match code.get(4 * index..4 * index + 4) {
        Some(&[a, b, c, d]) => Some(u32::from_le_bytes([a, b, c, d])),
        _ => None,
    };
    let head = word(0).ok_or(DecodeError::Truncated { inst: "an instruction" })?;
    let opcode = (head >> 28) as u8;
    let layout: &InstLayout =
        isa.layout().iter().find(|l| l.kind.opcode() == opcode).ok_or(DecodeError::Opcode { opcode })?;
    let inst = layout.kind.mnemonic();
    let mut words = [0; MAX_WORDS];
    for ((slot, used), index) in words.iter_mut().zip(layout.used).zip(0..layout.words) {
        *slot = word(index.into()).ok_or(DecodeError::Truncated { inst })?;
        if *slot & !used != 0 {
            return Err(DecodeError::Reserved { inst, word: index, bits: *slot & !used });
        }
    }
    let mut values = [0; MAX_FIELDS];
    for field in layout.fields {
        let word = words.get(usize::from(field.word)).copied().unwrap_or(0);
        if let Some(slot) = values.get_mut(usize::from(field.index)) {
            *slot = natural(field, word >> field.lsb & field.mask());
        }
    }
    let tokens =
        Tokens { waits: EngineSet::from_bits((head >> 24) as u8), signals: EngineSet::from_bits((head >> 20) as u8) };
    Ok((Line { tokens, inst: layout.kind.with_values(&values) }, layout.words.into()))
}

/// The instructions of `code`, up to and including END, or to the end of the bytes.
///
/// Yields the byte offset with each line; after an error it ends.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    isa: IsaVersion,
    code: &'a [u8],
    at: usize,
    done: bool,
}

/// Walks `code`.
pub fn program(isa: IsaVersion, code: &[u8]) -> Program<'_> {
    Program { isa, code, at: 0, done: false }
}

impl Iterator for Program<'_> {
    type Item = (usize, Result<Line, DecodeError>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.code.get(self.at..).filter(|rest| !rest.is_empty() && !self.done)?;
        let at = self.at;
        Some((
            at,
            match decode(self.isa, rest) {
                Ok((line, words)) => {
                    self.at += 4 * words;
                    self.done = line.inst.kind() == Kind::End;
                    Ok(line)
                }
                Err(error) => {
                    self.done = true;
                    Err(error)
                }
            },
        ))
    }
}

impl fmt::Display for Inst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().mnemonic())?;
        self.fields().try_for_each(|(name, value)| write!(f, " {name} {value}"))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tokens { waits, signals } = self.tokens;
        write!(f, "{} {:04b} {:04b}", self.inst.kind().mnemonic(), waits.bits(), signals.bits())?;
        self.inst.fields().try_for_each(|(name, value)| write!(f, " {name} {value}"))
    }
}

/// Text that is no listing line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingError {
    /// The mnemonic is unknown.
    Mnemonic,
    /// A token mask is not four binary digits.
    Tokens,
    /// The instruction has no field at this place of the line (counted in words from 0).
    Field(usize),
    /// The value at this place of the line is missing or no number.
    Value(usize),
}

impl fmt::Display for ListingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mnemonic => f.write_str("unknown mnemonic"),
            Self::Tokens => f.write_str("a token mask must be four binary digits"),
            Self::Field(at) => write!(f, "word {at} is no field of this instruction"),
            Self::Value(at) => write!(f, "word {at} is no number"),
        }
    }
}

impl core::error::Error for ListingError {}

impl FromStr for Line {
    type Err = ListingError;

    fn from_str(text: &str) -> Result<Self, ListingError> {
        let mut words = text.split_ascii_whitespace();
        let mnemonic = words.next().unwrap_or("");
        let kind = *Kind::ALL.iter().find(|k| k.mnemonic() == mnemonic).ok_or(ListingError::Mnemonic)?;
        let mut mask = || {
            let bits = words.next().filter(|w| w.len() == 4).and_then(|w| u8::from_str_radix(w, 2).ok());
            bits.map(EngineSet::from_bits).ok_or(ListingError::Tokens)
        };
        let tokens = Tokens { waits: mask()?, signals: mask()? };
        let mut values = kind.blank().values();
        let mut at = 3;
        while let Some(name) = words.next() {
            let index = kind.fields().iter().position(|f| *f == name).ok_or(ListingError::Field(at))?;
            let value = words.next().and_then(|w| w.parse::<i32>().ok()).ok_or(ListingError::Value(at + 1))?;
            if let Some(slot) = values.get_mut(index) {
                *slot = value.into();
            }
            at += 2;
        }
        Ok(Self { tokens, inst: kind.with_values(&values) })
    }
}

/// How sure a field's meaning is: the mark in its text, else that of its instruction.
fn mark(kind: Kind, doc: &str) -> &'static str {
    // The first that the text has; a text with several says itself which part each is for.
    let marks = ["UNK", "OURS", "INF", "DEC", "DOC"];
    let own = marks.into_iter().find(|m| doc.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == *m));
    own.unwrap_or(match kind {
        // Seen in vendor programs, whose results come out right.
        Kind::Load | Kind::Save | Kind::ConvInit | Kind::Conv | Kind::AluInit | Kind::Alu | Kind::End => "DEC",
        Kind::ElewInit | Kind::Elew | Kind::PoolInit | Kind::Pool | Kind::DwInit | Kind::DptWise => "INF",
    })
}

/// The text of a field without a mark at its end, which has a column of its own.
fn unmarked(doc: &str) -> &str {
    ["UNK", "OURS", "INF", "DEC", "DOC"]
        .into_iter()
        .find_map(|m| doc.trim_end().strip_suffix(m))
        .map_or(doc, str::trim_end)
}

/// Writes the reference page of the instruction set, `ISA.md`, from the tables.
pub fn reference(isa: IsaVersion, out: &mut impl fmt::Write) -> fmt::Result {
    writeln!(out, "# Instructions of {}\n", isa.name())?;
    writeln!(
        out,
        "Generated from `for_each_inst!` in `src/isa/table.rs` and the layout in `src/isa/layout.rs`; a test keeps it current.\n\
         Words are 32-bit little-endian. Every first word holds the operation code in bits 31..28, `waits` (dpdon) in\n\
         27..24 and `signals` (dpdby) in 23..20, one bit per engine: LOAD 0, SAVE 1, CONV 2, MISC 3. Bits that are not\n\
         listed are reserved and zero. Marks: DOC stated by the vendor, DEC decoded from vendor-compiled programs, INF\n\
         inferred, UNK unknown, OURS our own convention. No real silicon has run programs that rely on INF or OURS.\n\n\
         ## Rows and banks\n\n\
         Row i of a window that starts in bank `bank_id_in` of a feature-map group with first bank B and PP banks:\n\
         p = stride_offset_in + i; q = (bank_id_in − B) + p / stride_h; bank B + q mod PP; row address\n\
         A\\[q / PP\\] + (p mod stride_h)·jump_read_endl with A = bank_addr_in, bank_addr_in_1, _2, _3; pixel j and channel\n\
         group g: + j·jump_read + g, modulo the depth. DEC"
    )?;
    for layout in isa.layout() {
        let kind = layout.kind;
        let engine = kind.engine().name();
        writeln!(out, "\n## {} ({:#x}, {engine}, {} words)\n", kind.mnemonic(), kind.opcode(), layout.words)?;
        for line in kind.doc().lines() {
            writeln!(out, "{}", line.strip_prefix(' ').unwrap_or(line))?;
        }
        if kind.fields().is_empty() {
            continue;
        }
        writeln!(out, "\n| field | word | bits | values | meaning | mark |\n|---|---|---|---|---|---|")?;
        for (index, (name, doc)) in kind.fields().iter().zip(kind.field_docs()).enumerate() {
            if let Some(f) = layout.fields.iter().find(|f| usize::from(f.index) == index) {
                let (low, high) = f.range();
                let (top, form) = (f.lsb + f.width - 1, if f.stored == Stored::MinusOne { ", minus 1" } else { "" });
                let (doc, mark) = (unmarked(doc), mark(kind, doc));
                writeln!(out, "| `{name}` | {} | {top}..{} | {low}..{high}{form} |{doc} | {mark} |", f.word, f.lsb)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::super::{Conv, ElewInit, Load, Save};
    use super::*;

    const ISA: IsaVersion = IsaVersion::Dpuczdx8gIsa1;

    fn any_line() -> impl Strategy<Value = Line> {
        (0..Kind::ALL.len(), any::<u8>(), any::<u8>(), prop::array::uniform24(any::<u32>())).prop_map(
            |(kind, waits, signals, raw)| {
                let kind = Kind::ALL[kind];
                let mut values = [0; MAX_FIELDS];
                for f in ISA.of(kind).unwrap().fields {
                    let (low, high) = f.range();
                    values[usize::from(f.index)] = low + i64::from(raw[usize::from(f.index)]) % (high - low + 1);
                }
                let tokens = Tokens { waits: EngineSet::from_bits(waits), signals: EngineSet::from_bits(signals) };
                Line { tokens, inst: kind.with_values(&values) }
            },
        )
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(line in any_line()) {
            let words = encode(ISA, &line).unwrap();
            let bytes: Vec<u8> = words.bytes().collect();
            prop_assert_eq!(decode(ISA, &bytes).unwrap(), (line, words.as_slice().len()));
        }

        #[test]
        fn the_listing_parses_back(line in any_line()) {
            prop_assert_eq!(line.to_string().parse::<Line>().unwrap(), line);
        }

        #[test]
        fn random_words_decode_to_what_encodes_back_or_fail(words in prop::array::uniform6(any::<u32>())) {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            if let Ok((line, len)) = decode(ISA, &bytes) {
                let again = encode(ISA, &line).unwrap();
                prop_assert_eq!(again.as_slice(), &words[..len]);
            }
        }
    }

    #[test]
    fn defaults_are_what_zero_words_mean() {
        for kind in Kind::ALL {
            let words = encode(ISA, &Line { tokens: Tokens::default(), inst: kind.blank() }).unwrap();
            assert_eq!(words.as_slice()[0], u32::from(kind.opcode()) << 28);
            assert!(words.as_slice()[1..].iter().all(|w| *w == 0), "{}", kind.mnemonic());
        }
    }

    #[test]
    fn a_save_of_the_vendors_encoding() {
        // Positions by hand from the public table: bank_id at 14, jump_read and jump_write minus one at 0 and 10 of word 1.
        let text =
            "SAVE 1010 0010 bank_id 8 bank_addr 148 jump_write 64 jump_read 4 length 2 channel 64 reg_id 3 ddr_addr 0";
        let line: Line = text.parse().unwrap();
        let want = [4 << 28 | 0b1010 << 24 | 0b0010 << 20 | 8 << 14 | 148, 63 << 10 | 3, 63 << 10 | 1, 3, 0];
        assert_eq!(encode(ISA, &line).unwrap().as_slice(), want);
        assert!(line.to_string().starts_with(text), "{line}");
    }

    #[test]
    fn values_that_do_not_fit_name_the_field() {
        let line = |inst: Inst| encode(ISA, &Line { tokens: Tokens::default(), inst });
        let error = line(Load { length: 1025, ..Load::default() }.into()).unwrap_err();
        assert_eq!(error, EncodeError { inst: "LOAD", field: "length", value: 1025, low: 1, high: 1024 });
        assert_eq!(error.to_string(), "LOAD: length 1025 is outside 1..=1024");
        assert_eq!(line(Save { jump_read: 0, ..Save::default() }.into()).unwrap_err().field, "jump_read");
        assert_eq!(line(Conv { pad_left: 16, ..Conv::default() }.into()).unwrap_err().field, "pad_left");
        assert_eq!(line(ElewInit { shift_read: 16, ..ElewInit::default() }.into()).unwrap_err().field, "shift_read");
    }

    #[test]
    fn bad_words_are_errors() {
        assert_eq!(decode(ISA, &[0, 0, 0, 0x30]), Err(DecodeError::Opcode { opcode: 3 }));
        assert_eq!(decode(ISA, &[0, 0, 0, 0x80]), Err(DecodeError::Truncated { inst: "CONV" }));
        assert_eq!(decode(ISA, &[5, 0, 0, 0x70]), Err(DecodeError::Reserved { inst: "END", word: 0, bits: 5 }));
        assert_eq!("NOP 0000 0000".parse::<Line>(), Err(ListingError::Mnemonic));
        assert_eq!("END 0000 000".parse::<Line>(), Err(ListingError::Tokens));
        assert_eq!("END 0000 0000 x 1".parse::<Line>(), Err(ListingError::Field(3)));
        assert_eq!("SAVE 0000 0000 length".parse::<Line>(), Err(ListingError::Value(4)));
    }

    /// `UPDATE_EXPECT=1 cargo test -p shiftwise-core` rewrites the page.
    #[test]
    fn the_reference_page_is_current() {
        let mut page = String::new();
        reference(ISA, &mut page).unwrap();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ISA.md");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap_or_default() == page, "ISA.md is out of date; UPDATE_EXPECT=1");
    }
}
