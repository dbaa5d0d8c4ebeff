//! Sums of products whose axes have letters.

use crate::ops::call::{Call, Results};
use crate::ops::moves::strides;
use crate::value::{Element, Value};

/// The axes of operands and of the result, by letter. Those that `...` stands for are letters of their own, from `\u{100}` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Equation {
    /// Of each operand.
    pub(crate) operands: Vec<Vec<char>>,
    /// Of the result.
    pub(crate) result: Vec<char>,
}

impl Equation {
    /// The equation for operands of these numbers of axes.
    ///
    /// Errors: the rest of a sentence about the node.
    pub(crate) fn read(text: &str, ranks: &[usize]) -> Result<Self, String> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let wrong = || format!("has the equation `{text}` for operands of {ranks:?} axes");
        let (left, right) = text.split_once("->").map_or((text.as_str(), None), |(l, r)| (l, Some(r)));
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(wrong());
        }
        let named = |term: &str| term.replace("...", "").chars().count();
        let hidden =
            |(term, rank): (&&str, &usize)| rank.checked_sub(named(term)).filter(|n| term.contains("...") || *n == 0);
        let hidden = terms.iter().zip(ranks).map(hidden).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        let most = hidden.iter().copied().max().unwrap_or(0);
        let letters = |term: &str, count: usize| -> Option<Vec<char>> {
            // Hidden axes are aligned at their end.
            let own: String = (most - count..most).filter_map(|i| char::from_u32(0x100 + i as u32)).collect();
            let all: Vec<char> = term.replacen("...", &own, 1).chars().collect();
            all.iter().all(|c| c.is_ascii_alphabetic() || *c >= '\u{100}').then_some(all)
        };
        let operands = terms.iter().zip(&hidden).map(|(term, n)| letters(term, *n)).collect::<Option<Vec<_>>>();
        let operands = operands.ok_or_else(wrong)?;
        let result = match right {
            Some(term) => letters(term, most).ok_or_else(wrong)?,
            None => {
                // Letters that stand once, in the order of the alphabet, behind the hidden ones.
                let all: Vec<char> = operands.iter().flatten().copied().collect();
                let mut once: Vec<char> =
                    all.iter().copied().filter(|c| all.iter().filter(|d| *d == c).count() == 1).collect();
                once.retain(char::is_ascii);
                once.sort_unstable();
                (0..most).filter_map(|i| char::from_u32(0x100 + i as u32)).chain(once).collect()
            }
        };
        let known = result.iter().all(|c| operands.iter().flatten().any(|d| d == c));
        let once = (0..result.len()).all(|i| !result[..i].contains(&result[i]));
        (known && once).then_some(Self { operands, result }).ok_or_else(wrong)
    }
}

/// Sums over all letters that the result does not have.
pub(crate) fn einsum(call: &Call<'_>) -> Results {
    let values = (0..call.inputs.len()).map(|k| call.input(k)).collect::<Result<Vec<_>, _>>()?;
    let ranks: Vec<usize> = values.iter().map(|v| v.shape.len()).collect();
    let equation = Equation::read(&call.text("equation", ""), &ranks)?;
    let summed = equation.operands.iter().flatten().filter(|c| !equation.result.contains(c));
    let mut letters = equation.result.clone();
    for c in summed {
        if !letters.contains(c) {
            letters.push(*c);
        }
    }
    let mut sizes = vec![1; letters.len()];
    // How far each operand goes when a letter does; axes of one element stay where they are.
    let mut steps = vec![vec![0; letters.len()]; values.len()];
    for (k, (value, own)) in values.iter().zip(&equation.operands).enumerate() {
        for ((c, size), step) in own.iter().zip(&value.shape).zip(strides(&value.shape)) {
            let at = array_index(&letters, *c)?;
            if *size != 1 {
                if sizes[at] != 1 && sizes[at] != *size {
                    return Err(format!("has axes `{c}` of {} and {size} elements", sizes[at]));
                }
                sizes[at] = *size;
                steps[k][at] += step;
            }
        }
    }
    let shape = sizes[..equation.result.len()].to_vec();
    let count = call.budget.elements(&shape, 32)?;
    let inner = &sizes[equation.result.len()..];
    let sums = inner.iter().fold(1u64, |n, d| n.saturating_mul(*d as u64));
    call.budget.work((count as u64).saturating_mul(sums) / 2)?;
    call.budget.bytes(sums.saturating_mul(8 * values.len() as u64))?;
    let data: Vec<Vec<f64>> = values.iter().map(|v| v.numbers()).collect();
    let outer: Vec<Vec<usize>> = steps.iter().map(|own| walk(&shape, own)).collect();
    let folded: Vec<Vec<usize>> = steps.iter().map(|own| walk(inner, &own[shape.len()..])).collect();
    let product =
        |i: usize, j: usize| -> f64 { (0..data.len()).map(|k| data[k][outer[k][i] + folded[k][j]]).product() };
    let out = (0..count).map(|i| (0..sums as usize).map(|j| product(i, j)).sum()).collect();
    Ok(vec![Value::real(Element::Double, shape, out).cast(values.first().map_or(Element::Float, |v| v.element))])
}

/// Where an operand's elements are as its axes of these sizes are walked through, a step of each apart.
fn walk(sizes: &[usize], steps: &[usize]) -> Vec<usize> {
    sizes.iter().zip(steps).fold(vec![0], |all, (size, step)| {
        all.iter().flat_map(|base| (0..*size).map(move |i| base + i * step)).collect()
    })
}

fn array_index(letters: &[char], c: char) -> Result<usize, String> {
    letters.iter().position(|own| *own == c).ok_or_else(|| format!("has no axis `{c}`"))
}

#[cfg(test)]
mod tests {
    use super::Equation;

    #[test]
    fn letters_stand_for_axes_and_hidden_ones_are_aligned_at_their_end() {
        let read = Equation::read("...ij, jk -> ...ik", &[4, 2]).unwrap();
        assert_eq!((read.operands[0].len(), &read.operands[1][..]), (4, &['j', 'k'][..]));
        assert_eq!(read.result[..2], read.operands[0][..2]);
        // Without a result its letters are those that stand once, in the order of the alphabet.
        assert_eq!(Equation::read("ba,ca", &[2, 2]).unwrap().result, ['b', 'c']);
        let aligned = Equation::read("...a,...a->...", &[3, 2]).unwrap();
        assert_eq!(aligned.operands[1][0], aligned.operands[0][1]);
        for (text, ranks) in
            [("ij,jk->il", &[2, 2][..]), ("ij->iij", &[2]), ("ij", &[3]), ("i,j", &[1]), ("i2->i", &[2])]
        {
            assert!(Equation::read(text, ranks).is_err(), "{text}");
        }
    }
}
