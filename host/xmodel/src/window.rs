//! Sliding windows as the vendor's attributes say them.

use shiftwise_core::shape::Window;

use crate::XOp;

/// Two attributes in the file's order, width first, as (vertical, horizontal).
pub(crate) fn pair(xop: &XOp, name: &str, default: Option<u16>) -> Result<[u16; 2], String> {
    let small = |v: &i64| u16::try_from(*v).ok().filter(|v| *v > 0);
    match (xop.attrs.ints(name), default) {
        (Some([w, h]), _) => {
            small(h).zip(small(w)).map(Into::into).ok_or_else(|| format!("{name} {w}, {h} is out of range"))
        }
        (None, Some(default)) => Ok([default; 2]),
        (other, _) => Err(format!("{name} is {other:?}; width and height are expected")),
    }
}

/// The sliding window of an operation from `input` to `output`, both (vertical, horizontal). Padding behind the input
/// is what the output's size needs; for a transposed convolution padding is what is cropped.
pub(crate) fn window(xop: &XOp, input: [usize; 2], output: [usize; 2], transposed: bool) -> Result<Window, String> {
    let (kernel, stride) = (pair(xop, "kernel", None)?, pair(xop, "stride", Some(1))?);
    let dilation = pair(xop, "dilation", Some(1))?;
    let pads = match xop.attrs.ints("pad") {
        None | Some([]) => [0; 4],
        Some(&[left, right, top, bottom]) => [left, right, top, bottom],
        Some(other) => return Err(format!("pad {other:?}; left, right, top and bottom are expected")),
    };
    let mut w = Window { kernel, stride, dilation, ..Window::POINT };
    for axis in 0..2 {
        let (before, after) = if axis == 0 { (pads[2], pads[3]) } else { (pads[0], pads[1]) };
        let (Ok(before), Ok(_)) = (u16::try_from(before), u16::try_from(after)) else {
            return Err(format!("pad {pads:?} is out of range"));
        };
        let too_large = || format!("a map of {} pixels is too large", input[axis]);
        let (i, o) = (u32::try_from(input[axis]).map_err(|_| too_large())?, output[axis]);
        if i == 0 || o == 0 || i > 1 << 24 || o > 1 << 24 {
            return Err(too_large());
        }
        let (extent, step) = (w.extent(axis) as usize, usize::from(stride[axis]));
        if transposed {
            // DEC for no padding, INF else: the attribute is what is left of k − 1 taps.
            let full = (input[axis] - 1) * step + extent;
            w.pad_before[axis] = before;
            w.pad_after[axis] = small(full.saturating_sub(o + usize::from(before)))?;
            continue;
        }
        w.pad_before[axis] = match xop.attrs.text("pad_mode") {
            Some("SAME") if pads == [0; 4] => Window::same_padding(i, kernel[axis], stride[axis], dilation[axis]).0,
            _ => before,
        };
        let needed = (o - 1) * step + extent;
        w.pad_after[axis] = small(needed.saturating_sub(input[axis] + usize::from(w.pad_before[axis])))?;
        // A window may leave the last pixels out; it must not leave out a whole step.
        if w.outputs(axis, i) as usize != o {
            return Err(format!(
                "{} pixels under a kernel of {} give {} outputs, not {o}",
                i,
                kernel[axis],
                w.outputs(axis, i)
            ));
        }
    }
    Ok(w)
}

fn small(v: usize) -> Result<u16, String> {
    u16::try_from(v).map_err(|_| format!("a padding of {v} is too large"))
}
