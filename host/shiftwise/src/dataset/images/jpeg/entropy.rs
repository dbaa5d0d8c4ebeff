//! Huffman codes, and the scans that are written in them.

use crate::dataset::images::jpeg::{CUT, Component, Frame, ZIGZAG, damaged};

/// Bits of a code that are looked up at once.
const FAST: u32 = 9;

/// A table of codes of up to 16 bits.
#[derive(Clone, Debug)]
pub(super) struct Huffman {
    /// Length and symbol by the first [`FAST`] bits; length 0 for codes that are longer.
    fast: Vec<(u8, u8)>,
    /// By length: the first code, how many there are, and where their symbols begin.
    lengths: [(u32, u32, usize); 17],
    symbols: Vec<u8>,
}

impl Huffman {
    /// The table at the beginning of `bytes`, and its length.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let counts = bytes.first_chunk::<16>()?;
        let total: usize = counts.iter().map(|n| usize::from(*n)).sum();
        let symbols = bytes.get(16..16 + total).filter(|_| total <= 256)?.to_vec();
        let (mut code, mut at) = (0u32, 0usize);
        let mut lengths = [(0, 0, 0); 17];
        let mut fast = vec![(0, 0); 1 << FAST];
        for (length, count) in (1u32..).zip(counts.iter().map(|n| u32::from(*n))) {
            if code + count > 1 << length {
                return None;
            }
            *lengths.get_mut(length as usize)? = (code, count, at);
            for (code, symbol) in (code..code + count).zip(symbols.get(at..)?).filter(|_| length <= FAST) {
                let first = (code << (FAST - length)) as usize;
                fast.get_mut(first..first + (1 << (FAST - length)))?.fill((length as u8, *symbol));
            }
            at += count as usize;
            code = (code + count) << 1;
        }
        Some((Self { fast, lengths, symbols }, 16 + total))
    }
}

/// Bits of a scan up to the next marker.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    fn fill(&mut self) {
        while self.count <= 48 {
            let byte = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xFF), Some(0)) => {
                    self.at += 1;
                    0xFF
                }
                (Some(0xFF), _) | (None, _) => return,
                (Some(byte), _) => *byte,
            };
            self.at += 1;
            self.held = self.held << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    /// The next `n` bits, at most 16, with zeros for those that are not there.
    fn peek(&mut self, n: u32) -> u32 {
        if self.count < n {
            self.fill();
        }
        let aligned = if self.count >= n { self.held >> (self.count - n) } else { self.held << (n - self.count) };
        aligned as u32 & ((1 << n) - 1)
    }

    fn skip(&mut self, n: u32) -> Result<(), String> {
        self.count = self.count.checked_sub(n).ok_or(CUT)?;
        Ok(())
    }

    fn take(&mut self, n: u32) -> Result<i32, String> {
        let value = self.peek(n);
        self.skip(n)?;
        Ok(value as i32)
    }

    fn symbol(&mut self, table: &Huffman) -> Result<u8, String> {
        let next = self.peek(16);
        if let Some((length @ 1.., symbol)) = table.fast.get((next >> (16 - FAST)) as usize) {
            self.skip((*length).into())?;
            return Ok(*symbol);
        }
        for length in FAST + 1..=16 {
            let (first, count, at) = table.lengths[length as usize];
            let code = next >> (16 - length);
            if code >= first && code - first < count {
                self.skip(length)?;
                return table.symbols.get(at + (code - first) as usize).copied().ok_or_else(|| CUT.into());
            }
        }
        damaged("a code that is in no table")
    }

    /// A signed number of `n` bits.
    fn number(&mut self, n: u8) -> Result<i32, String> {
        if n == 0 {
            return Ok(0);
        }
        if n > 15 {
            return damaged("a number that is too long");
        }
        let value = self.take(n.into())?;
        Ok(if value < 1 << (n - 1) { value - (1 << n) + 1 } else { value })
    }

    /// Goes on behind a restart marker.
    fn restart(&mut self) -> Result<(), String> {
        self.fill();
        (self.held, self.count) = (0, 0);
        while self.bytes.get(self.at..self.at + 2) == Some(&[0xFF, 0xFF]) {
            self.at += 1;
        }
        match self.bytes.get(self.at..self.at + 2) {
            Some([0xFF, 0xD0..=0xD7]) => self.at += 2,
            Some(_) => return damaged("a restart marker is missing"),
            None => return Err(CUT.into()),
        }
        Ok(())
    }
}

/// A component's part in a scan.
struct Part<'t> {
    index: usize,
    dc: Option<&'t Huffman>,
    ac: Option<&'t Huffman>,
    /// The last block's first coefficient.
    last: i32,
}

/// One pass over some components, some coefficients, and some of their bits.
pub(super) struct Scan<'t> {
    parts: Vec<Part<'t>>,
    progressive: bool,
    /// First and last coefficient.
    band: [usize; 2],
    /// Whether upper bits were there before, and how many lower bits are left out.
    refines: bool,
    low: u32,
    restart: usize,
}

type Tables<'t> = &'t [Option<Huffman>; 4];

impl<'t> Scan<'t> {
    pub(super) fn parse(
        bytes: &[u8],
        frame: &Frame,
        (dc, ac): (Tables<'t>, Tables<'t>),
        restart: usize,
    ) -> Result<Self, String> {
        let Some((count, rest)) = bytes.split_first() else { return damaged("the header of a scan") };
        let (parts, rest) = rest.split_at_checked(2 * usize::from(*count)).ok_or(CUT)?;
        let [first, last, bits, ..] = rest else { return damaged("the header of a scan") };
        let mut found: Vec<Part<'t>> = Vec::new();
        for [id, tables] in parts.as_chunks::<2>().0 {
            let index = frame.components.iter().position(|c| c.id == *id);
            let Some(index) = index.filter(|i| found.iter().all(|p| p.index != *i)) else {
                return damaged("a scan of a component that is not there");
            };
            let table = |all: Tables<'t>, n: u8| all.get(usize::from(n)).and_then(Option::as_ref);
            found.push(Part { index, dc: table(dc, tables >> 4), ac: table(ac, tables & 15), last: 0 });
        }
        let progressive = frame.progressive;
        let band = if progressive { [usize::from(*first), usize::from(*last)] } else { [0, 63] };
        let (refines, low) = if progressive { (bits >> 4 != 0, u32::from(bits & 15)) } else { (false, 0) };
        let whole = !progressive || (band[0] == 0) == (band[1] == 0) && band[0] <= band[1] && band[1] < 64 && low < 14;
        if found.is_empty() || !whole || (band[0] > 0 && found.len() > 1) {
            return damaged("the header of a scan");
        }
        Ok(Self { parts: found, progressive, band, refines, low, restart })
    }

    pub(super) fn components(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|p| p.index)
    }

    /// How many coefficients of a block it visits.
    pub(super) fn width(&self) -> usize {
        self.band[1] - self.band[0] + 1
    }

    /// Reads the scan's data from `at` on; returns where it ends.
    pub(super) fn run(mut self, bytes: &[u8], at: usize, frame: &mut Frame) -> Result<usize, String> {
        let mut bits = Bits { bytes, at, held: 0, count: 0 };
        let alone = self.parts.len() == 1;
        // A component alone has no padding beyond its own blocks, and no groups.
        let units = match self.parts.first() {
            Some(part) if alone => frame.components[part.index].size.map(|n| n.div_ceil(8)),
            _ => [0, 1].map(|axis| [frame.width, frame.height][axis].div_ceil(8 * frame.most[axis])),
        };
        // Blocks for which nothing but refinements is to come.
        let mut empty = 0u32;
        for unit in 0..units[0] * units[1] {
            if self.restart > 0 && unit > 0 && unit.is_multiple_of(self.restart) {
                bits.restart()?;
                empty = 0;
                self.parts.iter_mut().for_each(|p| p.last = 0);
            }
            let [x, y] = [unit % units[0], unit / units[0]];
            for at in 0..self.parts.len() {
                let component = &mut frame.components[self.parts[at].index];
                let [across, down] = if alone { [1, 1] } else { component.sampling };
                for inner in 0..across * down {
                    let [bx, by] = [x * across + inner % across, y * down + inner / across];
                    self.block(&mut bits, at, component, by * component.blocks[0] + bx, &mut empty)?;
                }
            }
        }
        Ok(bits.at)
    }

    fn block(
        &mut self,
        bits: &mut Bits<'_>,
        part: usize,
        component: &mut Component,
        block: usize,
        empty: &mut u32,
    ) -> Result<(), String> {
        let (low, band) = (self.low, self.band);
        let part = &mut self.parts[part];
        let Some(block) = component.coefficients.get_mut(block) else { return damaged("a block outside") };
        if band[0] == 0 && self.refines {
            block[0] |= (bits.take(1)? as i16) << low;
        } else if band[0] == 0 {
            let Some(table) = part.dc else { return damaged("a Huffman table is missing") };
            let length = bits.symbol(table)?;
            part.last = part.last.wrapping_add(bits.number(length)?);
            block[0] = part.last.wrapping_shl(low) as i16;
        }
        if band[1] == 0 {
            return Ok(());
        }
        let Some(table) = part.ac else { return damaged("a Huffman table is missing") };
        let band = [band[0].max(1), band[1]];
        if self.refines {
            refine(bits, table, block, band, low, empty)
        } else {
            first(bits, table, block, band, if self.progressive { Some(empty) } else { None }, low)
        }
    }
}

/// Coefficients of which nothing is known yet. Only progressive scans have runs of empty blocks.
fn first(
    bits: &mut Bits<'_>,
    table: &Huffman,
    block: &mut [i16; 64],
    band: [usize; 2],
    mut empty: Option<&mut u32>,
    low: u32,
) -> Result<(), String> {
    if let Some(empty) = empty.as_deref_mut().filter(|n| **n > 0) {
        *empty -= 1;
        return Ok(());
    }
    let mut k = band[0];
    while k <= band[1] {
        let symbol = bits.symbol(table)?;
        let (run, length) = (symbol >> 4, symbol & 15);
        match (length, run, empty.as_deref_mut()) {
            (0, 15, _) => k += 16,
            (0, _, Some(empty)) => {
                *empty = (1 << run) - 1 + bits.take(run.into())? as u32;
                return Ok(());
            }
            (0, ..) => return Ok(()),
            _ => {
                k += usize::from(run);
                let Some(at) = ZIGZAG.get(k).filter(|_| k <= band[1]) else { return damaged("a run past its block") };
                block[*at] = bits.number(length)?.wrapping_shl(low) as i16;
                k += 1;
            }
        }
    }
    Ok(())
}

/// One more bit of coefficients that are known, and those that were zero up to now.
fn refine(
    bits: &mut Bits<'_>,
    table: &Huffman,
    block: &mut [i16; 64],
    band: [usize; 2],
    low: u32,
    empty: &mut u32,
) -> Result<(), String> {
    let step = 1i16 << low;
    let mut k = band[0];
    while *empty == 0 && k <= band[1] {
        let symbol = bits.symbol(table)?;
        let (run, new) = match (symbol & 15, symbol >> 4) {
            (0, 15) => (15, 0),
            (0, run) => {
                *empty = (1 << run) + bits.take(run.into())? as u32;
                break;
            }
            (1, run) => (run, if bits.take(1)? == 1 { step } else { -step }),
            _ => return damaged("a refinement of more than a bit"),
        };
        k = known(bits, block, [k, band[1]], step, Some(run))?;
        if let Some(at) = ZIGZAG.get(k).filter(|_| new != 0 && k <= band[1]) {
            block[*at] = new;
        }
        k += 1;
    }
    if *empty > 0 {
        known(bits, block, [k, band[1]], step, None)?;
        *empty -= 1;
    }
    Ok(())
}

/// Reads the bit of each known coefficient, up to the unknown one behind `zeros` others, or to the end. Returns where.
fn known(
    bits: &mut Bits<'_>,
    block: &mut [i16; 64],
    [from, to]: [usize; 2],
    step: i16,
    mut zeros: Option<u8>,
) -> Result<usize, String> {
    for k in from..=to {
        let value = &mut block[ZIGZAG[k]];
        if *value != 0 {
            if bits.take(1)? == 1 && *value & step == 0 {
                *value = value.wrapping_add(if *value >= 0 { step } else { -step });
            }
        } else if let Some(zeros) = &mut zeros {
            if *zeros == 0 {
                return Ok(k);
            }
            *zeros -= 1;
        }
    }
    Ok(to + 1)
}
