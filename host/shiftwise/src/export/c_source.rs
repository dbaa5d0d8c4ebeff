//! A deployable as C: a header that says what an application needs, and a source with the bytes.

use std::fmt::Write;

use shiftwise_core::arith::Round;
use shiftwise_core::model::{DType, Deployable, Region, TensorDesc};

/// The two files' texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CFiles {
    /// The header.
    pub(super) header: String,
    /// The source, which includes the header by its name.
    pub(super) source: String,
}

/// Bytes to a line of the array.
const COLUMNS: usize = 16;

/// A name as C may have it.
fn identifier(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name: String = name.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("model_{name}") }
}

/// Text that may stand in a comment.
fn comment(text: &str) -> String {
    let plain = |c: char| if c.is_control() || !c.is_ascii() { '?' } else { c };
    text.chars().map(plain).collect::<String>().replace("*/", "* /").replace("/*", "/ *")
}

/// The C files of a deployable. `stem` is the files' name without an ending; what they declare begins with it.
pub(super) fn write(model: &Deployable<'_>, bytes: &[u8], stem: &str) -> CFiles {
    let name = identifier(stem);
    let upper = name.to_ascii_uppercase();
    let facts = model.facts();
    let mut h = format!(
        "/* {}, compiled for {} by {}. */\n\n#ifndef {upper}_H\n#define {upper}_H\n\n#include <math.h>\n#include <stddef.h>\n\
         #include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n\
         /* Bytes of the deployable, for sw_open. */\n#define {upper}_BYTES {}u\n\
         /* Bytes of memory that it needs, aligned to {} bytes. */\n#define {upper}_ARENA_BYTES {}u\n\
         /* Inputs and outputs. */\n#define {upper}_INPUTS {}u\n#define {upper}_OUTPUTS {}u\n\n\
         /* The deployable, aligned to 16 bytes. */\nextern const uint8_t {name}_model[{upper}_BYTES];\n",
        comment(facts.name),
        comment(facts.target),
        comment(facts.tool),
        bytes.len(),
        alignment(model),
        arena(model),
        model.inputs().count(),
        model.outputs().count(),
    );
    for (k, (_, tensor)) in model.inputs().enumerate() {
        port(&mut h, &tensor, (&name, &format!("input_{k}")), true);
    }
    for (k, (_, tensor)) in model.outputs().enumerate() {
        port(&mut h, &tensor, (&name, &format!("output_{k}")), false);
    }
    let _ = write!(h, "\n#ifdef __cplusplus\n}}\n#endif\n\n#endif\n");
    let mut c = format!(
        "#include \"{stem}.h\"\n\n#if defined(__GNUC__)\n__attribute__((aligned(16)))\n#elif defined(_MSC_VER)\n\
         __declspec(align(16))\n#else\n_Alignas(16)\n#endif\nconst uint8_t {name}_model[{upper}_BYTES] = {{\n"
    );
    for line in bytes.chunks(COLUMNS) {
        let all: Vec<String> = line.iter().map(u8::to_string).collect();
        let _ = writeln!(c, "    {},", all.join(","));
    }
    c += "};\n";
    CFiles { header: h, source: c }
}

/// What the memory of a network is aligned to, in bytes, as the firmware has it: a cache line where a DPU shares it.
fn alignment(model: &Deployable<'_>) -> u64 {
    if model.fingerprint() == 0 { 16 } else { 64 }
}

/// Bytes of memory that a network needs.
fn arena(model: &Deployable<'_>) -> u64 {
    let regions = [Region::Workspace, Region::Inputs, Region::Outputs];
    regions.iter().map(|r| (model.region_bytes(*r) as u64).next_multiple_of(alignment(model))).sum()
}

/// What is said of an input or an output.
fn port(h: &mut String, tensor: &TensorDesc<'_>, (name, port): (&str, &str), is_input: bool) {
    let upper = format!("{name}_{port}").to_ascii_uppercase();
    let dims: Vec<String> = tensor.shape.dims().iter().map(ToString::to_string).collect();
    let elements: u64 = tensor.shape.dims().iter().map(|d| u64::from(*d)).product();
    let own = comment(tensor.name);
    let what = match tensor.dtype {
        DType::I8 => {
            format!("int8 at position {p}: q stands for q * 2^{n}", p = tensor.pos.0, n = -i32::from(tensor.pos.0))
        }
        DType::F32 => "float".to_owned(),
        DType::Scaled(scale) => {
            format!("int{}: q stands for (q - {}) * {:?}", 8 * scale.bytes(), scale.zero, scale.step())
        }
    };
    let _ = write!(
        h,
        "\n/* `{own}`, [{}], channels last, {what}. */\n#define {upper}_ELEMENTS {elements}u\n#define {upper}_SHAPE {{{}}}\n\
         #define {upper}_RANK {}u\n",
        dims.join(", "),
        dims.join(", "),
        dims.len(),
    );
    let (kind, scale, zero, ends) = match tensor.dtype {
        DType::F32 => return,
        DType::I8 => ("int8_t".to_owned(), tensor.pos.step(), 0, (-128, 127)),
        DType::Scaled(s) => {
            (format!("int{}_t", 8 * s.bytes()), s.step(), i32::from(s.zero), (i32::from(s.low), i32::from(s.high)))
        }
    };
    if tensor.dtype == DType::I8 {
        let _ = writeln!(h, "#define {upper}_POSITION {}", tensor.pos.0);
    }
    let _ = if is_input {
        let rounded = rounding(Round::HalfUp, &format!("x * {:?}f", 1.0 / scale));
        let moved = if zero == 0 { rounded } else { format!("{rounded} + {zero}.0f") };
        writeln!(
            h,
            "static inline {kind} {name}_quantize_{port}(float x)\n{{\n    float q = {moved};\n    \
             return ({kind})(q < {low}.0f ? {low}.0f : q > {high}.0f ? {high}.0f : q);\n}}",
            low = ends.0,
            high = ends.1,
        )
    } else {
        let q = if zero == 0 { "(float)q".to_owned() } else { format!("(float)(q - {zero})") };
        writeln!(h, "static inline float {name}_dequantize_{port}({kind} q)\n{{\n    return {q} * {scale:?}f;\n}}")
    };
}

/// A value rounded, as C has it.
fn rounding(round: Round, value: &str) -> String {
    match round {
        Round::HalfToEven => format!("rintf({value})"),
        Round::HalfUp => format!("floorf({value} + 0.5f)"),
        Round::HalfAwayFromZero => format!("roundf({value})"),
        Round::Floor => format!("floorf({value})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_c() {
        assert_eq!(
            (identifier("a-b.c"), identifier("8x"), identifier("")),
            ("a_b_c".into(), "model_8x".into(), "model_".into())
        );
        assert_eq!(comment("a */ b\n"), "a * / b?");
    }
}
