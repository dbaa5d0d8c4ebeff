//! What a network is compiled for and simulated on: a DPU at a clock, by itself or on a board.

use shiftwise_core::target::Target;
use shiftwise_graph::error::Error;
use shiftwise_sim::{Costs, SimDpu};
use shiftwise_targets::{Board, Timing};

/// A DPU at a clock, and what surrounds it.
#[derive(Clone, Debug)]
pub struct Device {
    /// The DPU.
    pub target: Target,
    /// Clock of its general logic.
    pub clock_mhz: u32,
    /// DPUs that share the memory.
    pub cores: u32,
    /// Bytes that the memory gives all cores together, in 10^6 per second; 0 if unknown.
    pub ddr_mb_per_s: u32,
    /// The cycle model's constants; `None` where no measurement says.
    pub timing: Option<Timing>,
}

impl Device {
    /// One core alone, at its own clock if none is given.
    pub fn new(target: Target, clock_mhz: Option<u32>) -> Self {
        let timing = shiftwise_targets::timing::of(&target);
        let clock_mhz = clock_mhz.unwrap_or(target.clock_mhz);
        Self { target, clock_mhz, cores: 1, ddr_mb_per_s: 0, timing }
    }

    /// A DPU by name, fingerprint or `arch.json`, at its own clock, or that of a board.
    ///
    /// Errors: [`Error::Target`].
    pub fn named(name: &str) -> Result<Self, Error> {
        match (find_target(name), Self::of_board(name)) {
            (Ok(target), _) => Ok(Self::new(target, None)),
            (Err(_), Ok(Some(device))) => Ok(device),
            (Err(unknown), Ok(None) | Err(_)) => Err(unknown),
        }
    }

    /// A board's DPU; `None` if it has none.
    ///
    /// Errors: [`Error::Target`].
    pub fn of_board(name: &str) -> Result<Option<Self>, Error> {
        let board = find_board(name)?;
        let on_board = |dpu: &String| {
            let (clock_mhz, cores, ddr_mb_per_s) = (board.clock_mhz, board.cores, board.ddr_mb_per_s);
            Ok(Self { clock_mhz, cores, ddr_mb_per_s, ..Self::new(find_target(dpu)?, None) })
        };
        board.dpu.as_ref().map(on_board).transpose()
    }

    /// The cycle model's constants.
    ///
    /// Errors: [`Error::Target`] if the target's description names others.
    pub fn costs(&self) -> Result<Costs, Error> {
        let Some(timing) = &self.timing else { return Ok(Costs::default()) };
        let costs = serde_json::to_value(&timing.costs).and_then(serde_json::from_value::<Costs>);
        costs.map_err(|e| Error::Target(format!("{}: constants of the cycle model: {e}", self.target.name)))
    }

    /// A simulator.
    ///
    /// Errors: [`Error::Target`] if the simulator can't hold the DPU.
    pub fn simulator(&self) -> Result<SimDpu, Error> {
        SimDpu::new(self.target.clone(), self.clock_mhz, self.costs()?).map_err(|e| Error::Target(e.to_string()))
    }
}

/// A clock in MHz: `300`, `300MHz`, `0.3GHz`.
///
/// Errors: what is expected, as a clause.
pub fn clock(text: &str) -> Result<u32, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (number, scale) = match lower.strip_suffix("ghz") {
        Some(number) => (number, 1000.0),
        None => (lower.strip_suffix("mhz").unwrap_or(&lower), 1.0),
    };
    let mhz = number.trim().parse::<f64>().map_or(0.0, |n| n * scale);
    if (1.0..=10_000.0).contains(&mhz) {
        Ok(mhz.round() as u32)
    } else {
        Err("a clock between 1 and 10000 MHz is expected, such as 300MHz".into())
    }
}

/// A board by its name, with or without the `qemu:` of its emulator.
///
/// Errors: [`Error::Target`].
pub fn find_board(name: &str) -> Result<Board, Error> {
    let plain = name.strip_prefix("qemu:").unwrap_or(name);
    shiftwise_targets::find_board(plain).map_err(|e| Error::Target(e.to_string()))
}

/// The target that a file names.
///
/// Errors: [`Error::Target`].
pub fn named_target(name: &str) -> Result<Target, Error> {
    shiftwise_targets::named(name).map_err(|e| Error::Target(e.to_string()))
}

/// The target of a name, fingerprint or `arch.json`.
///
/// Errors: [`Error::Target`].
pub fn find_target(name: &str) -> Result<Target, Error> {
    shiftwise_targets::find(name).map_err(|e| Error::Target(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_has_a_unit_or_is_in_mhz() {
        assert_eq!(["300", " 300MHz", "0.3ghz"].map(clock), [Ok(300), Ok(300), Ok(300)]);
        assert!(["", "0", "fast", "11GHz"].iter().all(|text| clock(text).is_err()));
    }

    #[test]
    fn a_board_gives_its_dpu_its_own_clock() {
        let boards = shiftwise_targets::boards();
        assert!(boards.iter().any(|b| b.dpu.is_some()) && boards.iter().any(|b| b.dpu.is_none()));
        for board in boards {
            let device = Device::of_board(&format!("qemu:{}", board.name)).unwrap();
            assert_eq!(
                device.map(|d| (d.target.name.to_string(), d.clock_mhz, d.cores)),
                board.dpu.map(|dpu| { (find_target(&dpu).unwrap().name.to_string(), board.clock_mhz, board.cores) })
            );
        }
    }

    #[test]
    fn a_board_stands_for_its_dpu_and_one_without_is_no_target() {
        let of = |device: Device| (device.target.name.to_string(), device.clock_mhz, device.cores);
        assert_eq!(of(Device::named("kv260").unwrap()), of(Device::of_board("kv260").unwrap().unwrap()));
        assert!(Device::named("mps2-an386").is_err());
    }

    #[test]
    fn constants_of_every_target_are_those_of_the_cycle_model() {
        for target in shiftwise_targets::targets() {
            Device::new(target, None).costs().unwrap();
        }
    }
}
