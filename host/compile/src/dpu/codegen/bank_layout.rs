//! Where a map, or the part of it under a tile, lies in a feature-map group.

use crate::dpu::tile::Machine;

/// Rows go around the banks of a group, `pack` of them to a bank; in a bank, the groups of a pixel, then the pixels of a
/// row, then its packed rows, then the next turn around the banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// First bank of the group.
    pub bank: u32,
    /// Address of the first row's first pixel.
    pub at: u32,
    /// Addresses from pixel to pixel.
    pub groups: u32,
    /// Addresses from a row to the next that shares its bank.
    pub row: u32,
    /// Rows that share a bank.
    pub pack: u32,
    /// Row and column of the map that lie first.
    pub origin: [i64; 2],
}

/// Where a row begins, as instructions want it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Bank.
    pub bank: u32,
    /// Address of a pixel of the first row packed into the bank, before the bank's first address perhaps.
    pub at: i64,
    /// Which of the packed rows it is.
    pub packed: u32,
}

impl Spot {
    /// From pixel (0, 0) on, `columns` wide.
    pub(crate) fn tile(bank: u32, at: u32, columns: u32, groups: u32, origin: [i64; 2]) -> Self {
        Self { bank, at, groups, row: columns * groups, pack: 1, origin }
    }

    /// From channel group `first` on.
    pub(crate) fn later_group(self, first: u32) -> Self {
        Self { at: self.at + first, ..self }
    }

    /// The same place, its rows and columns counted from (y, x) on.
    pub(crate) fn counted_from(self, [y, x]: [u32; 2]) -> Self {
        let [first, left] = self.origin;
        Self { origin: [first - i64::from(y), left - i64::from(x)], ..self }
    }

    /// Where pixel (y, x) lies; both may be in the padding.
    pub(crate) fn start(&self, m: &Machine, y: i64, x: i64) -> Start {
        let (pp, pack) = (i64::from(m.pp), i64::from(self.pack));
        let row = y - self.origin[0];
        let q = row.div_euclid(pack);
        let at = i64::from(self.at)
            + q.div_euclid(pp) * i64::from(self.turn())
            + (x - self.origin[1]) * i64::from(self.groups);
        Start { bank: self.bank + q.rem_euclid(pp) as u32, at, packed: row.rem_euclid(pack) as u32 }
    }

    /// Bank and address of pixel (y, x).
    pub(crate) fn pixel(&self, m: &Machine, y: u32, x: u32) -> (u32, u32) {
        let start = self.start(m, y.into(), x.into());
        (start.bank, (start.at + i64::from(start.packed * self.row)).rem_euclid(m.depth.into()) as u32)
    }

    /// Addresses from one turn around the banks to the next.
    pub(crate) fn turn(&self) -> u32 {
        self.pack * self.row
    }

    /// Addresses that a map takes in every bank.
    pub(crate) fn addresses(m: &Machine, [rows, columns, groups]: [u32; 3], pack: u32) -> u32 {
        rows.div_ceil(pack).div_ceil(m.pp) * pack * columns * groups
    }
}
