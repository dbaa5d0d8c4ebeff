//! The instruction set: one table, `for_each_inst!` in `isa/table.rs`, gives the structs, the [`Inst`] enum, the engines, the listing and
//! the reference page (`ISA.md`). Bit positions are a second table, [`layout`], one per ISA version; [`codec`] walks it.
//!
//! An [`Inst`] holds natural values: true lengths, true strides, addresses as they are. The stored form (plain, minus
//! one, signed) is the layout's business. Field names and positions are the vendor's public ones; the marks in the
//! text say how sure a meaning is: DOC stated by the vendor, DEC decoded from vendor-compiled programs, INF inferred,
//! UNK unknown, OURS our own convention where nothing is known.
//!
//! # Feature maps in banks
//! A feature-map group has PP banks (`VB0` = banks 0..PP, `VB1` = banks PP..2·PP). A bank is `depth` addresses of ICP
//! bytes; address arithmetic is modulo `depth`. A pixel of C channels takes G = ceil(C/ICP) consecutive addresses, a
//! row consecutive pixels of one bank. With stride packing `s`, `s` consecutive rows share a bank.
//!
//! Row `i` of a window that starts in bank `bank_id_in` of the group with first bank B lies so:
//! `p = stride_offset_in + i`; `q = (bank_id_in − B) + p / s`; bank `B + q mod PP`; row address
//! `A[q / PP] + (p mod s) · jump_read_endl`, where `A = [bank_addr_in, bank_addr_in_1, bank_addr_in_2, bank_addr_in_3]`
//! and `s = stride_h`. Pixel `j` and channel group `g` of it: `+ j · jump_read + g`. DEC.

pub mod codec;
pub mod described;
pub mod layout;
mod table;

use serde::{Deserialize, Serialize};

/// The four engines; each executes its instructions in program order, all four at once. The discriminants are the
/// bit positions in the token masks. DEC
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Engine {
    /// Memory to banks.
    Load = 0,
    /// Banks to memory, and END.
    Save = 1,
    /// Dense convolution.
    Conv = 2,
    /// Depthwise convolution, pooling, element-wise operations.
    Misc = 3,
}

impl Engine {
    /// All engines, in bit order.
    pub const ALL: [Self; 4] = [Self::Load, Self::Save, Self::Conv, Self::Misc];

    /// Its name in listings and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "LOAD",
            Self::Save => "SAVE",
            Self::Conv => "CONV",
            Self::Misc => "MISC",
        }
    }
}

/// A set of engines: one of the 4-bit token masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EngineSet(u8);

impl EngineSet {
    /// No engine.
    pub const NONE: Self = Self(0);

    /// The set of these engines.
    pub const fn of(engines: &[Engine]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < engines.len() {
            bits |= 1 << engines[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// The set of a 4-bit mask; higher bits are dropped.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 15)
    }

    /// The 4-bit mask.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether `engine` is in it.
    pub const fn contains(self, engine: Engine) -> bool {
        self.0 >> engine as u8 & 1 == 1
    }

    /// With `engine` added.
    pub const fn with(self, engine: Engine) -> Self {
        Self(self.0 | 1 << engine as u8)
    }

    /// The engines in it, in bit order.
    pub fn iter(self) -> impl Iterator<Item = Engine> {
        Engine::ALL.into_iter().filter(move |e| self.contains(*e))
    }
}

/// Which engines' tokens an instruction consumes before it starts and produces when it is done.
///
/// There is one counter per ordered pair of engines. An instruction of engine b with engine a in `waits` consumes one
/// token of (a → b); when it completes it adds one to (b → x) for every x in `signals`. The counter of each engine with
/// itself starts at one, all others at zero. DEC
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Tokens {
    /// Engines it waits for (the vendor's `dpdon`).
    pub waits: EngineSet,
    /// Engines it signals (the vendor's `dpdby`).
    pub signals: EngineSet,
}

/// One line of a program: an instruction and its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// What it waits for and signals.
    pub tokens: Tokens,
    /// What it does.
    pub inst: Inst,
}

/// What an activation code (`act_type`) means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Activation {
    /// Code 0: identity. DEC
    None,
    /// Code 1: max(x, 0). DEC
    Relu,
    /// Code 3: x < 0 becomes x · 26/256, rounded once together with the shift. INF
    LeakyRelu,
    /// Codes 8..=15: clamp to 0..=6 where the output has position `code − 11`, i.e. −3..=4. OURS: the vendor's code is
    /// probably 4, but where the hardware takes the position from is UNK, so code 4 is not executed. For positions
    /// above 4 the limit 6·2^pos is beyond 127 and [`Activation::Relu`] is the same function.
    Relu6 {
        /// Fraction bits of the output.
        pos: i8,
    },
}

impl Activation {
    /// The meaning of a code; `None` for codes whose meaning is unknown or not executed.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::None),
            1 => Some(Self::Relu),
            3 => Some(Self::LeakyRelu),
            8..=15 => Some(Self::Relu6 { pos: code as i8 - 11 }),
            _ => None,
        }
    }

    /// Its code; `None` for a ReLU6 of a position outside −3..=4.
    pub const fn code(self) -> Option<u32> {
        match self {
            Self::None => Some(0),
            Self::Relu => Some(1),
            Self::LeakyRelu => Some(3),
            Self::Relu6 { pos } if pos >= -3 && pos <= 4 => Some((pos + 11) as u32),
            Self::Relu6 { .. } => None,
        }
    }

    /// ReLU6 for an output of position `pos`: plain ReLU where saturation at 127 already is below six.
    pub const fn relu6(pos: i8) -> Self {
        if pos > 4 { Self::Relu } else { Self::Relu6 { pos } }
    }
}

/// Values of `exec_mode` in ALUINIT. The numbers are the vendor's list (DOC); 3 and 7 are confirmed (DEC).
pub mod alu_mode {
    /// Depthwise convolution.
    pub const DWCONV: u32 = 0;
    /// Average pooling.
    pub const AVG_POOL: u32 = 2;
    /// Max pooling.
    pub const MAX_POOL: u32 = 3;
    /// Depthwise convolution without bias.
    pub const DWCONV_NO_BIAS: u32 = 6;
    /// Hard sigmoid.
    pub const HSIGMOID: u32 = 7;
}

/// Values of `elew_type` in ELEW. DOC
pub mod elew_type {
    /// Sum.
    pub const ADD: u32 = 0;
    /// Product.
    pub const MUL: u32 = 1;
}

/// Values of `pool_type` in POOLINIT, in the order of the vendor's list. INF
pub mod pool_type {
    /// Largest value.
    pub const MAX: u32 = 0;
    /// Average.
    pub const AVERAGE: u32 = 1;
}

/// Upper bound of the number of fields of an instruction.
pub const MAX_FIELDS: usize = 24;

macro_rules! define {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident, $mnemonic:literal, $opcode:literal, $engine:ident {
            $( $(#[doc = $field_doc:literal])* $field:ident: $type:ty = $default:literal, )*
        }
    )*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub struct $name { $( $(#[doc = $field_doc])* pub $field: $type, )* }

            impl $name {
                /// Its fields' names, in listing order.
                pub const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];
            }

            impl Default for $name {
                /// What an instruction of zero words decodes to: sizes and strides 1, the rest 0.
                fn default() -> Self {
                    Self { $( $field: $default, )* }
                }
            }

            impl From<$name> for Inst {
                fn from(inst: $name) -> Self {
                    Self::$name(inst)
                }
            }
        )*

        /// An instruction with natural values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Inst { $( $(#[doc = $doc])* $name($name), )* }

        /// The kinds of instructions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        pub enum Kind { $( #[doc = $mnemonic] $name, )* }

        impl Kind {
            /// All kinds, in table order.
            pub const ALL: &'static [Self] = &[$( Self::$name ),*];

            /// The mnemonic in listings.
            pub const fn mnemonic(self) -> &'static str {
                match self { $( Self::$name => $mnemonic, )* }
            }

            /// The 4-bit operation code.
            pub const fn opcode(self) -> u8 {
                match self { $( Self::$name => $opcode, )* }
            }

            /// The engine that executes it.
            pub const fn engine(self) -> Engine {
                match self { $( Self::$name => Engine::$engine, )* }
            }

            /// Its fields' names, in listing order.
            pub const fn fields(self) -> &'static [&'static str] {
                match self { $( Self::$name => $name::FIELDS, )* }
            }

            /// What it does, as written in the table; lines are separated by `\n`.
            pub const fn doc(self) -> &'static str {
                match self { $( Self::$name => concat!($($doc, "\n"),*), )* }
            }

            /// What each field means, in listing order.
            pub const fn field_docs(self) -> &'static [&'static str] {
                match self { $( Self::$name => &[$(concat!($($field_doc),*)),*], )* }
            }

            /// The instruction with default fields.
            pub fn blank(self) -> Inst {
                match self { $( Self::$name => Inst::$name(Default::default()), )* }
            }

            /// The instruction with these natural values, in listing order.
            fn with_values(self, values: &Values) -> Inst {
                match self { $(
                    Self::$name => {
                        #[allow(unused_mut, unused_variables)]
                        let mut values = values.iter();
                        // Layouts are at most 29 bits wide, so every natural value fits the field's type.
                        Inst::$name($name { $( $field: values.next().map_or($default, |v| *v as $type), )* })
                    }
                )* }
            }
        }

        impl Inst {
            /// Its kind.
            pub const fn kind(&self) -> Kind {
                match self { $( Self::$name(_) => Kind::$name, )* }
            }

            /// Its natural values, in listing order; unused places are 0.
            fn values(&self) -> Values {
                let mut values = [0; MAX_FIELDS];
                match self { $(
                    #[allow(unused_variables)]
                    Self::$name(inst) => {
                        for (slot, value) in values.iter_mut().zip([$( i64::from(inst.$field) ),*] as [i64; $name::FIELDS.len()]) {
                            *slot = value;
                        }
                    }
                )* }
                values
            }
        }
    };
}

/// Natural values of an instruction's fields, in listing order.
type Values = [i64; MAX_FIELDS];

table::for_each_inst!(define);

impl Inst {
    /// The engine that executes it.
    pub const fn engine(&self) -> Engine {
        self.kind().engine()
    }

    /// Its fields: name and natural value, in listing order.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, i64)> {
        self.kind().fields().iter().copied().zip(self.values())
    }
}
