//! Where each field lies: one const table per ISA version. Positions are the vendor's public ones (DOC).
//!
//! Words are 32-bit little-endian, bits count from the least significant. Every first word has the opcode in bits 31..28,
//! `waits` in 27..24 and `signals` in 23..20; the table holds the rest. Bits that no field covers are reserved and zero.
//! A row whose name the instruction lacks, a missing field and an overlap do not compile.

use super::Kind;

/// How a natural value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As it is.
    Plain,
    /// Minus one: sizes, strides and jumps are never zero. DEC
    MinusOne,
    /// Two's complement.
    Signed,
}

/// One field's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Index in the instruction's listing order.
    pub index: u8,
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

impl Field {
    /// Smallest and largest natural value.
    pub const fn range(&self) -> (i64, i64) {
        let top = (1i64 << self.width) - 1;
        match self.stored {
            Stored::Plain => (0, top),
            Stored::MinusOne => (1, top + 1),
            Stored::Signed => (-(top / 2) - 1, top / 2),
        }
    }

    /// The field's bits, moved down to bit 0.
    pub const fn mask(&self) -> u32 {
        (1u32 << self.width) - 1
    }
}

/// One instruction's encoding.
#[derive(Clone, Copy, Debug)]
pub struct InstLayout {
    /// Which instruction.
    pub kind: Kind,
    /// 32-bit words.
    pub words: u8,
    /// Its fields.
    pub fields: &'static [Field],
    /// Per word, the bits that have a meaning.
    pub used: [u32; MAX_WORDS],
}

/// The longest instruction.
pub const MAX_WORDS: usize = 6;

/// Versions of the instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum IsaVersion {
    /// DPUCZDX8G, ISA version 1.
    #[serde(rename = "DPUCZDX8G_ISA1")]
    Dpuczdx8gIsa1,
}

impl IsaVersion {
    /// All versions.
    pub const ALL: &'static [Self] = &[Self::Dpuczdx8gIsa1];

    /// The vendor's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dpuczdx8gIsa1 => "DPUCZDX8G_ISA1",
        }
    }

    /// The version that a target's fingerprint names: type code in bits 63..56, version in 55..48. DOC
    pub const fn of_fingerprint(fingerprint: u64) -> Option<Self> {
        match fingerprint >> 48 {
            0x0101 => Some(Self::Dpuczdx8gIsa1),
            _ => None,
        }
    }

    /// Its table.
    pub const fn layout(self) -> &'static [InstLayout] {
        match self {
            Self::Dpuczdx8gIsa1 => DPUCZDX8G_ISA1,
        }
    }

    /// The encoding of one kind.
    pub fn of(self, kind: Kind) -> Option<&'static InstLayout> {
        self.layout().iter().find(|l| l.kind == kind)
    }
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

const fn rows<const N: usize>(kind: Kind, rows: [(&'static str, u8, u8, u8, Stored); N]) -> [Field; N] {
    let names = kind.fields();
    assert!(names.len() == N, "a layout must place every field of its instruction exactly once");
    let mut fields = [Field { index: 0, name: "", word: 0, lsb: 0, width: 0, stored: Stored::Plain }; N];
    let mut seen = [false; N];
    let mut i = 0;
    while i < N {
        let (name, word, lsb, width, stored) = rows[i];
        let mut index = 0;
        while index < N && !same(names[index], name) {
            index += 1;
        }
        assert!(index < N, "a layout names a field that its instruction lacks");
        assert!(!seen[index], "a layout places a field twice");
        seen[index] = true;
        fields[i] = Field { index: index as u8, name, word, lsb, width, stored };
        i += 1;
    }
    fields
}

const fn used(fields: &[Field], words: u8) -> [u32; MAX_WORDS] {
    let mut used = [0; MAX_WORDS];
    used[0] = 0xFFF << 20;
    let mut i = 0;
    while i < fields.len() {
        let f = &fields[i];
        let bits = f.mask() << f.lsb;
        assert!(f.word < words && f.lsb + f.width <= 32 && f.width < 32, "a field lies outside its instruction");
        assert!(used[f.word as usize] & bits == 0, "two fields overlap");
        used[f.word as usize] |= bits;
        i += 1;
    }
    used
}

macro_rules! layout {
    ($( $kind:ident $words:literal { $( $name:ident $word:literal [$lsb:literal + $width:literal] $stored:ident; )* } )*) => {
        &[$({
            const FIELDS: &[Field] = &rows(Kind::$kind, [$( (stringify!($name), $word, $lsb, $width, Stored::$stored) ),*]);
            InstLayout { kind: Kind::$kind, words: $words, fields: FIELDS, used: used(FIELDS, $words) }
        }),*]
    };
}

#[rustfmt::skip]
const DPUCZDX8G_ISA1: &[InstLayout] = layout! {
    Load 5 {
        bank_addr 0 [0 + 12] Plain; bank_id 0 [14 + 6] Plain;
        jump_write 1 [0 + 10] MinusOne; jump_read 1 [10 + 16] MinusOne;
        length 2 [0 + 10] MinusOne; channel 2 [10 + 14] MinusOne; pad_idx 2 [27 + 5] MinusOne;
        reg_id 3 [0 + 3] Plain; const_value 3 [8 + 8] Plain; broadcast 3 [16 + 4] Plain;
        mode_avg 3 [20 + 2] Plain; pad_end 3 [22 + 5] Plain; pad_start 3 [27 + 5] Plain;
        ddr_addr 4 [0 + 29] Plain;
    }
    Save 5 {
        bank_addr 0 [0 + 12] Plain; bank_id 0 [14 + 6] Plain;
        jump_read 1 [0 + 10] MinusOne; jump_write 1 [10 + 16] MinusOne; hp_id 1 [29 + 2] Plain;
        length 2 [0 + 10] MinusOne; channel 2 [10 + 12] MinusOne;
        reg_id 3 [0 + 3] Plain; const_value 3 [8 + 8] Plain; const_en 3 [16 + 1] Plain;
        ddr_addr 4 [0 + 29] Plain;
    }
    ConvInit 4 {
        jump_read 0 [0 + 10] MinusOne; shift_cut 0 [10 + 6] Plain; act_type 0 [16 + 4] Plain;
        jump_read_endl 1 [0 + 10] MinusOne; shift_bias 1 [10 + 6] Plain; stride_out 1 [28 + 4] MinusOne;
        jump_write 2 [0 + 10] MinusOne; stride_offset_in 2 [10 + 3] Plain;
        valid_pixel_parallel 2 [13 + 3] MinusOne; kernel_h 2 [24 + 4] MinusOne; stride_h 2 [28 + 4] MinusOne;
        jump_write_endl 3 [0 + 10] MinusOne; stride_offset_out 3 [10 + 3] Plain; kernel_w 3 [24 + 4] MinusOne;
        stride_w 3 [28 + 4] MinusOne;
    }
    Conv 5 {
        bank_addr_in 0 [0 + 12] Plain; pad_top 0 [12 + 4] Plain; pad_left 0 [16 + 4] Plain;
        bank_addr_out 1 [0 + 12] Plain; pad_bottom 1 [12 + 4] Plain; pad_right 1 [16 + 4] Plain;
        channel_group 1 [24 + 8] MinusOne;
        bank_addr_weights 2 [0 + 12] Plain; bank_id_in 2 [12 + 6] Plain; length 2 [22 + 10] MinusOne;
        bank_addr_bias 3 [0 + 12] Plain; bank_id_out 3 [12 + 6] Plain; bank_addr_in_1 3 [18 + 12] Plain;
        bank_addr_in_2 4 [0 + 12] Plain; bank_addr_in_3 4 [12 + 12] Plain; channel_offset 4 [24 + 5] Plain;
    }
    AluInit 6 {
        kernel_w 0 [0 + 8] MinusOne; kernel_h 0 [8 + 8] MinusOne; exec_mode 0 [16 + 4] Plain;
        stride_offset_out 1 [0 + 8] Plain; stride_offset_in 1 [8 + 8] Plain; stride_w 1 [16 + 8] MinusOne;
        stride_h 1 [24 + 8] MinusOne;
        length 2 [0 + 11] MinusOne; channel_offset 2 [11 + 5] Plain; channel_group 2 [16 + 8] MinusOne;
        stride_out 2 [24 + 8] MinusOne;
        shift_prelu_n 3 [0 + 6] Plain; shift_cut 3 [6 + 6] Plain; shift_bias 3 [12 + 6] Plain;
        act_type 3 [18 + 4] Plain; shift_prelu_p 3 [22 + 6] Plain;
        jump_read_endl 4 [0 + 13] MinusOne; jump_read 4 [13 + 10] MinusOne; multi_factor 4 [23 + 8] Plain;
        jump_write_endl 5 [0 + 13] MinusOne; jump_write 5 [13 + 10] MinusOne;
        jump_read_weights 5 [23 + 9] MinusOne;
    }
    Alu 5 {
        bank_addr_out 0 [0 + 14] Plain; bank_id_out 0 [14 + 6] Plain;
        bank_addr_in 1 [0 + 14] Plain; bank_id_in 1 [14 + 6] Plain; valid_pixel_parallel 1 [20 + 3] MinusOne;
        pad_bottom 1 [23 + 8] Plain;
        bank_addr_in_1 2 [0 + 14] Plain; pad_right 2 [14 + 8] Plain; pad_left 2 [22 + 4] Plain;
        pad_top 2 [26 + 4] Plain;
        bank_addr_in_2 3 [0 + 14] Plain; bank_addr_weights 3 [14 + 14] Plain; kernel_d 3 [28 + 4] MinusOne;
        bank_addr_in_3 4 [0 + 14] Plain; bank_addr_bias 4 [14 + 14] Plain;
    }
    ElewInit 3 {
        share_pp 0 [13 + 1] Plain; bank_id_in 0 [14 + 6] Plain;
        bank_addr_in 1 [0 + 14] Plain; jump_read_endl 1 [14 + 13] MinusOne; id 1 [27 + 2] Plain;
        jump_bank 1 [29 + 3] MinusOne;
        jump_read 2 [0 + 12] MinusOne; shift_read 2 [12 + 4] Plain;
    }
    Elew 3 {
        length 0 [0 + 11] MinusOne; act_type 0 [11 + 1] Plain; elew_type 0 [12 + 2] Plain;
        bank_id_out 0 [14 + 6] Plain;
        bank_addr_out 1 [0 + 14] Plain; jump_write_endl 1 [14 + 13] MinusOne; num 1 [27 + 2] MinusOne;
        valid_pixel_parallel 1 [29 + 3] MinusOne;
        jump_write 2 [0 + 12] MinusOne; shift_write 2 [12 + 5] Signed; channel_group 2 [17 + 8] MinusOne;
    }
    PoolInit 2 {
        jump_read 0 [0 + 10] MinusOne; kernel_h 0 [10 + 3] MinusOne; kernel_w 0 [13 + 3] MinusOne;
        shift_cut 0 [16 + 4] Plain;
        pool_type 1 [0 + 2] Plain; stride_h 1 [2 + 3] MinusOne; stride_w 1 [5 + 3] MinusOne;
        stride_offset_in 1 [8 + 3] Plain; valid_pixel_parallel 1 [11 + 3] MinusOne;
        stride_offset_out 1 [14 + 3] Plain; stride_out 1 [17 + 4] MinusOne; jump_write 1 [21 + 10] MinusOne;
    }
    Pool 5 {
        bank_addr_in 0 [0 + 12] Plain; channel_group 0 [12 + 8] MinusOne;
        bank_id_in 1 [0 + 6] Plain; pad_bottom 1 [6 + 3] Plain; pad_right 1 [9 + 3] Plain;
        pad_top 1 [12 + 3] Plain; pad_left 1 [15 + 3] Plain; jump_write_endl 1 [18 + 12] MinusOne;
        bank_id_out 2 [0 + 6] Plain; length 2 [6 + 10] MinusOne; jump_read_endl 2 [16 + 12] MinusOne;
        bank_addr_out 3 [0 + 12] Plain; bank_addr_in_1 3 [12 + 12] Plain; downsample_kernel_w 3 [24 + 8] Plain;
        bank_addr_in_2 4 [0 + 12] Plain; bank_addr_in_3 4 [12 + 12] Plain; downsample_kernel_h 4 [24 + 8] Plain;
    }
    DwInit 3 {
        jump_read_endl 0 [0 + 10] MinusOne; jump_read 0 [10 + 10] MinusOne;
        jump_write_endl 1 [0 + 10] MinusOne; kernel_h 1 [10 + 4] MinusOne; kernel_w 1 [14 + 4] MinusOne;
        stride_h 1 [18 + 4] MinusOne; stride_w 1 [22 + 4] MinusOne; valid_pixel_parallel 1 [26 + 3] MinusOne;
        stride_offset_in 1 [29 + 3] Plain;
        shift_cut 2 [0 + 6] Plain; shift_bias 2 [6 + 6] Plain; stride_offset_out 2 [12 + 3] Plain;
        stride_out 2 [15 + 4] MinusOne; jump_write 2 [19 + 10] MinusOne;
    }
    DptWise 5 {
        bank_addr_in 0 [0 + 12] Plain; channel_group 0 [12 + 8] MinusOne;
        bank_addr_out 1 [0 + 12] Plain; pad_bottom 1 [16 + 4] Plain; pad_top 1 [20 + 4] Plain;
        pad_right 1 [24 + 4] Plain; pad_left 1 [28 + 4] Plain;
        bank_addr_weights 2 [0 + 12] Plain; bank_id_in 2 [12 + 6] Plain; length 2 [18 + 10] MinusOne;
        act_type 2 [28 + 4] Plain;
        bank_addr_bias 3 [0 + 12] Plain; bank_id_out 3 [12 + 6] Plain; bank_addr_in_1 3 [18 + 12] Plain;
        bank_addr_in_2 4 [0 + 12] Plain; bank_addr_in_3 4 [12 + 12] Plain; channel_offset 4 [24 + 5] Plain;
    }
    End 1 {}
};
