//! Subscripts: `x[1:, ..., 0]`.

/// One element of a subscript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `start:stop:step`.
    Range(Option<i64>, Option<i64>, i64),
    /// One index; the axis goes.
    Index(i64),
    /// All axes that are not mentioned.
    Ellipsis,
    /// A new axis of 1.
    NewAxis,
}

/// A subscript on a shape: (start, count, step) of each axis, and the shape of the result.
pub type Subscript = (Vec<(usize, usize, isize)>, Vec<usize>);

/// The subscript that these elements are on a shape.
///
/// Errors: more elements than axes, an index beyond an axis, two ellipses.
pub fn subscript(parts: &[Part], shape: &[usize]) -> Result<Subscript, String> {
    let named = parts.iter().filter(|p| matches!(p, Part::Range(..) | Part::Index(_))).count();
    let hidden =
        shape.len().checked_sub(named).ok_or_else(|| format!("{named} subscripts of a tensor of shape {shape:?}"))?;
    let all = Part::Range(None, None, 1);
    let mut expanded = Vec::new();
    for part in parts {
        match part {
            Part::Ellipsis => expanded.extend(std::iter::repeat_n(all, hidden)),
            part => expanded.push(*part),
        }
    }
    let used = expanded.iter().filter(|p| !matches!(p, Part::NewAxis)).count();
    expanded.extend(std::iter::repeat_n(all, shape.len().saturating_sub(used)));
    let (mut at, mut out) = (Vec::new(), Vec::new());
    for part in expanded {
        let size = shape.get(at.len()).copied().unwrap_or(1) as i64;
        match part {
            Part::NewAxis => out.push(1),
            Part::Ellipsis => return Err("two ellipses in one subscript".into()),
            Part::Index(i) => {
                let index = if i < 0 { i.saturating_add(size) } else { i };
                if !(0..size).contains(&index) {
                    return Err(format!("subscript {i} of {size} elements"));
                }
                at.push((index as usize, 1, 1));
            }
            Part::Range(start, stop, step) => {
                let clamp =
                    |i: i64, low: i64, high: i64| (if i < 0 { i.saturating_add(size) } else { i }).clamp(low, high);
                let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
                let from = start.map_or(if step > 0 { low } else { high }, |i| clamp(i, low, high));
                let to = stop.map_or(if step > 0 { high } else { low }, |i| clamp(i, low, high));
                let distance = if step > 0 { to - from } else { from - to };
                let count = (distance.max(0) as u64).div_ceil(step.unsigned_abs()) as usize;
                at.push((from.max(0) as usize, count, step as isize));
                out.push(count);
            }
        }
    }
    if at.len() == shape.len() { Ok((at, out)) } else { Err("two ellipses in one subscript".into()) }
}
