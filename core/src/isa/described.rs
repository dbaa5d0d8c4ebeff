//! Instruction sets that are listed and encoded, not executed: those of the sibling families and versions, as data.
//!
//! An instruction here is its form and its words; fields are read from the words when they are asked for. The listing has
//! the shape of [`codec`](super::codec). Fields of sizes, strides and counts are stored minus one: DEC for DPUCVDX8G,
//! whose published assembly text shows the natural values, INF for the other families. Of some instructions only
//! operation code and length are public: their bits are listed as `word0`, `word1` and so on.

use core::fmt;

use super::EngineSet;
use super::codec::DecodeError;
use super::codec::ListingError;
use super::layout::Stored;

mod table;

/// The longest instruction, in words.
pub const MAX_WORDS: usize = 9;

/// A field's place.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Name.
    pub name: &'static str,
    /// Word, from 0.
    pub word: u8,
    /// Least significant bit.
    pub lsb: u8,
    /// Bits.
    pub width: u8,
    /// Stored form.
    pub stored: Stored,
}

impl Slot {
    const fn mask(&self) -> u32 {
        (((1u64 << self.width) - 1) << self.lsb) as u32
    }

    const fn offset(&self) -> i64 {
        matches!(self.stored, Stored::MinusOne) as i64
    }

    /// Smallest and largest natural value.
    pub const fn range(&self) -> (i64, i64) {
        (self.offset(), (1i64 << self.width) - 1 + self.offset())
    }
}

/// An instruction's encoding.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Mnemonic.
    pub mnemonic: &'static str,
    /// The 4-bit operation code.
    pub opcode: u8,
    /// Words.
    pub words: u8,
    /// Its fields; of a form that isn't public, its bits.
    pub fields: &'static [Slot],
    /// Whether the fields are public.
    pub public: bool,
}

/// An instruction set.
#[derive(Clone, Copy, Debug)]
pub struct InstructionSet {
    /// The vendor's name, such as `DPUCVDX8G_ISA3`.
    pub name: &'static str,
    /// Bits 63..56 of its targets' fingerprints.
    pub type_code: u8,
    /// Bits 55..48 of them.
    pub version: u8,
    /// Its instructions.
    pub forms: &'static [Form],
}

/// One decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    form: &'static Form,
    words: [u32; MAX_WORDS],
}

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

impl Eq for Form {}

/// The fields of a form that isn't public: its words, without what every first word holds.
const fn bits<const N: usize>() -> [Slot; N] {
    const NAMES: [&str; MAX_WORDS] = ["word0", "word1", "word2", "word3", "word4", "word5", "word6", "word7", "word8"];
    let mut slots = [Slot { name: "", word: 0, lsb: 0, width: 20, stored: Stored::Plain }; N];
    let mut i = 0;
    while i < N {
        slots[i].name = NAMES[i];
        slots[i].word = i as u8;
        slots[i].width = if i == 0 { 20 } else { 32 };
        i += 1;
    }
    slots
}

/// The table's fields, checked: inside their instruction and apart from each other.
const fn checked(fields: &'static [Slot], words: u8) -> &'static [Slot] {
    let mut used = [0u32; MAX_WORDS];
    used[0] = 0xFFF << 20;
    let mut i = 0;
    while i < fields.len() {
        let f = &fields[i];
        assert!(f.word < words && f.lsb + f.width <= 32, "a field lies outside its instruction");
        assert!(used[f.word as usize] & f.mask() == 0, "two fields overlap");
        used[f.word as usize] |= f.mask();
        i += 1;
    }
    fields
}

macro_rules! sets {
    ($( $set:ident $code:literal $version:literal { $( $name:ident $opcode:literal $words:literal $kind:ident {
        $( $field:ident $word:literal [$lsb:literal + $width:literal] $stored:ident; )*
    } )* } )*) => {
        &[$( InstructionSet {
            name: stringify!($set),
            type_code: $code,
            version: $version,
            forms: &[$( Form {
                mnemonic: stringify!($name),
                opcode: $opcode,
                words: $words,
                fields: sets!(@$kind $words [$( ($field $word $lsb $width $stored) )*]),
                public: sets!(@is $kind),
            } ),*],
        } ),*]
    };
    (@raw $words:literal []) => {{
        const BITS: &[$crate::isa::described::Slot] = &$crate::isa::described::bits::<$words>();
        BITS
    }};
    (@public $words:literal [$( ($field:ident $word:literal $lsb:literal $width:literal $stored:ident) )*]) => {{
        const FIELDS: &[$crate::isa::described::Slot] = $crate::isa::described::checked(&[$( $crate::isa::described::Slot {
            name: stringify!($field),
            word: $word,
            lsb: $lsb,
            width: $width,
            stored: $crate::isa::layout::Stored::$stored,
        } ),*], $words);
        FIELDS
    }};
    (@is raw) => { false };
    (@is public) => { true };
}
use sets;

/// All instruction sets of this kind.
pub const fn all() -> &'static [InstructionSet] {
    table::SETS
}

impl InstructionSet {
    /// The set with this name, in any case.
    pub fn named(name: &str) -> Option<&'static Self> {
        all().iter().find(|s| s.name.eq_ignore_ascii_case(name))
    }

    /// The names of all sets.
    pub fn all_names() -> impl Iterator<Item = &'static str> {
        all().iter().map(|s| s.name)
    }

    /// The set of a target's fingerprint. DOC
    pub fn of_fingerprint(fingerprint: u64) -> Option<&'static Self> {
        let code = |s: &&Self| u64::from(s.type_code) << 8 | u64::from(s.version) == fingerprint >> 48;
        all().iter().find(code)
    }

    /// The first instruction of `code` and its length in words.
    ///
    /// Errors: an unknown operation code, an instruction that is cut short, reserved bits that are set.
    pub fn decode(&'static self, code: &[u8]) -> Result<(Item, usize), DecodeError> {
        let word = |index: usize| match code.get(4 * index..4 * index + 4) {
            Some(&[a, b, c, d]) => Some(u32::from_le_bytes([a, b, c, d])),
            _ => None,
        };
        let head = word(0).ok_or(DecodeError::Truncated { inst: "an instruction" })?;
        let opcode = (head >> 28) as u8;
        let form = self.forms.iter().find(|f| f.opcode == opcode).ok_or(DecodeError::Opcode { opcode })?;
        let mut words = [0; MAX_WORDS];
        for (slot, index) in words.iter_mut().zip(0..form.words) {
            *slot = word(index.into()).ok_or(DecodeError::Truncated { inst: form.mnemonic })?;
            let fields = form.fields.iter().filter(|f| f.word == index);
            let used = fields.fold(if index == 0 { 0xFFF << 20 } else { 0 }, |used, f| used | f.mask());
            if *slot & !used != 0 {
                return Err(DecodeError::Reserved { inst: form.mnemonic, word: index, bits: *slot & !used });
            }
        }
        Ok((Item { form, words }, form.words.into()))
    }

    /// The instructions of `code`, up to and including END, or to the end of the bytes; ends after an error. Yields the
    /// byte offset with each.
    pub fn program(&'static self, code: &[u8]) -> impl Iterator<Item = (usize, Result<Item, DecodeError>)> {
        let mut at = 0;
        let mut done = false;
        core::iter::from_fn(move || {
            let rest = code.get(at..).filter(|rest| !rest.is_empty() && !done)?;
            let start = at;
            let next = self.decode(rest);
            match &next {
                Ok((item, words)) => {
                    at += 4 * words;
                    done = item.form.mnemonic == "END";
                }
                Err(_) => done = true,
            }
            Some((start, next.map(|(item, _)| item)))
        })
    }

    /// An instruction of a listing line. Fields that are left out are zero bits.
    ///
    /// Errors: as for the executed set; a value outside its field's range is [`ListingError::Value`].
    pub fn parse(&'static self, text: &str) -> Result<Item, ListingError> {
        let mut words = text.split_ascii_whitespace();
        let mnemonic = words.next().unwrap_or("");
        let form = self.forms.iter().find(|f| f.mnemonic == mnemonic).ok_or(ListingError::Mnemonic)?;
        let mut mask = || {
            let bits = words.next().filter(|w| w.len() == 4).and_then(|w| u8::from_str_radix(w, 2).ok());
            bits.map(u32::from).ok_or(ListingError::Tokens)
        };
        let mut item = Item { form, words: [0; MAX_WORDS] };
        let head = u32::from(form.opcode) << 28 | mask()? << 24 | mask()? << 20;
        if let Some(first) = item.words.first_mut() {
            *first = head;
        }
        let mut at = 3;
        while let Some(name) = words.next() {
            let field = form.fields.iter().find(|f| f.name == name).ok_or(ListingError::Field(at))?;
            let (low, high) = field.range();
            let value = words.next().and_then(|w| w.parse::<i64>().ok()).filter(|v| (low..=high).contains(v));
            let value = value.ok_or(ListingError::Value(at + 1))? - field.offset();
            if let Some(word) = item.words.get_mut(usize::from(field.word)) {
                *word = *word & !field.mask() | (value as u32) << field.lsb;
            }
            at += 2;
        }
        Ok(item)
    }
}

impl Item {
    /// Its form.
    pub const fn form(&self) -> &'static Form {
        self.form
    }

    /// The engines that it waits for and those that it signals.
    pub fn tokens(&self) -> (EngineSet, EngineSet) {
        let head = self.words.first().copied().unwrap_or(0);
        (EngineSet::from_bits((head >> 24) as u8), EngineSet::from_bits((head >> 20) as u8))
    }

    /// Its fields: name and natural value.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, i64)> {
        self.form.fields.iter().map(|f| {
            let word = self.words.get(usize::from(f.word)).copied().unwrap_or(0);
            (f.name, i64::from((word & f.mask()) >> f.lsb) + f.offset())
        })
    }

    /// Its bytes, little-endian.
    pub fn bytes(&self) -> impl Iterator<Item = u8> {
        self.words.into_iter().take(self.form.words.into()).flat_map(u32::to_le_bytes)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (waits, signals) = self.tokens();
        write!(f, "{} {:04b} {:04b}", self.form.mnemonic, waits.bits(), signals.bits())?;
        self.fields().try_for_each(|(name, value)| write!(f, " {name} {value}"))
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_goes_through_text_and_words() {
        for (set, form) in all().iter().flat_map(|s| s.forms.iter().map(move |f| (s, f))) {
            for ones in [false, true] {
                let mut words = [0; MAX_WORDS];
                words[0] = u32::from(form.opcode) << 28 | if ones { 0xFF << 20 } else { 0 };
                if ones {
                    form.fields.iter().for_each(|f| words[usize::from(f.word)] |= f.mask());
                }
                let item = Item { form, words };
                let bytes: Vec<u8> = item.bytes().collect();
                assert_eq!(set.decode(&bytes), Ok((item, form.words.into())), "{} {}", set.name, form.mnemonic);
                assert_eq!(set.parse(&item.to_string()), Ok(item), "{item}");
            }
        }
    }

    #[test]
    fn sets_have_one_form_per_code_and_one_fingerprint_each() {
        for (k, set) in all().iter().enumerate() {
            for (i, form) in set.forms.iter().enumerate() {
                assert!(!set.forms[..i].iter().any(|f| f.opcode == form.opcode || f.mnemonic == form.mnemonic));
            }
            let fingerprint = u64::from(set.type_code) << 56 | u64::from(set.version) << 48;
            assert_eq!(
                all().iter().position(|s| core::ptr::eq(s, InstructionSet::of_fingerprint(fingerprint).unwrap())),
                Some(k)
            );
        }
        assert!(InstructionSet::of_fingerprint(0x0101 << 48).is_none(), "the executed set has its own table");
    }

    #[test]
    fn a_line_of_the_vendors_text() {
        // The vendor's assembly text of DPUCVDX8G ISA2 has this form and these natural values.
        let text =
            "SAVE 1010 0010 bank_id 8 bank_addr 148 jump_write 64 jump_read 4 length 2 channel 64 reg_id 3 ddr_addr 0";
        let set = InstructionSet::named("dpucvdx8g_isa2").unwrap();
        let words: Vec<u8> = set.parse(text).unwrap().bytes().collect();
        let want = [4 << 28 | 0b1010 << 24 | 0b0010 << 20 | 8 << 14 | 148, 63, 3 << 24 | 1 << 14 | 63, 3 << 29];
        assert_eq!(words, want.iter().flat_map(|w: &u32| w.to_le_bytes()).collect::<Vec<u8>>());
        assert_eq!(set.parse("SAVE 1010 0010 channel 4097"), Err(ListingError::Value(4)));
        assert_eq!(set.parse("SAVE 1010 0010 hp_id 1"), Err(ListingError::Field(3)));
    }

    proptest! {
        #[test]
        fn random_words_decode_to_what_encodes_back_or_fail(which in 0..9usize, words in prop::array::uniform9(any::<u32>())) {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            if let Ok((item, len)) = all()[which].decode(&bytes) {
                prop_assert_eq!(item.bytes().collect::<Vec<u8>>(), &bytes[..4 * len]);
            }
        }
    }
}
