//! Schedules: THE table of how the rate of learning goes down.

/// A schedule: a row of [`SCHEDULES`].
#[derive(Debug)]
struct Row {
    name: &'static str,
    /// What it is written as.
    form: &'static str,
    /// How many numbers it takes.
    numbers: usize,
    /// The rate's factor at a place.
    factor: fn(&[f64], &Place) -> f64,
}

/// Where training is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Steps made before this one, without those of warming up.
    pub step: u64,
    /// Steps in all, likewise.
    pub steps: u64,
    /// Epochs made before this one.
    pub epoch: u64,
}

/// Every schedule.
#[rustfmt::skip]
const SCHEDULES: &[Row] = &[
    Row { name: "constant", form: "constant", numbers: 0, factor: |_, _| 1.0 },
    Row { name: "cosine", form: "cosine", numbers: 0, factor: |_, at| {
        0.5 * (1.0 + (std::f64::consts::PI * at.step as f64 / at.steps.max(1) as f64).cos())
    } },
    Row { name: "step", form: "step:EPOCHS:FACTOR", numbers: 2, factor: |numbers, at| {
        let [every, factor] = numbers else { return 1.0 };
        factor.powf((at.epoch as f64 / every.max(1.0)).floor())
    } },
    Row { name: "exponential", form: "exponential:FACTOR", numbers: 1, factor: |numbers, at| {
        numbers.first().map_or(1.0, |factor| factor.powf(at.epoch as f64))
    } },
];

/// How the rate changes.
#[derive(Clone, Debug)]
pub struct Schedule {
    row: &'static Row,
    numbers: Vec<f64>,
    /// Steps at the beginning in which the rate rises from nothing.
    pub warmup: u64,
}

/// As users write it, without the warming up.
impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.row.name)?;
        self.numbers.iter().try_for_each(|number| write!(f, ":{number}"))
    }
}

impl Schedule {
    /// A schedule from what users write. Errors: the forms that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let numbers: Option<Vec<f64>> = parts.map(|part| part.parse().ok().filter(|n: &f64| n.is_finite())).collect();
        let row = SCHEDULES.iter().find(|row| row.name == name);
        match (row, numbers) {
            (Some(row), Some(numbers)) if numbers.len() == row.numbers => Ok(Self { row, numbers, warmup: 0 }),
            _ => {
                let forms: Vec<&str> = SCHEDULES.iter().map(|row| row.form).collect();
                Err(format!("one of {} is expected", forms.join(", ")))
            }
        }
    }

    /// The schedule with so many steps at the beginning in which the rate rises.
    #[must_use]
    pub fn warming_up(self, warmup: u64) -> Self {
        Self { warmup, ..self }
    }

    /// The factor of the rate in step `step` (from 0) of `steps`, in epoch `epoch` (from 0).
    pub fn factor(&self, step: u64, steps: u64, epoch: u64) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / (self.warmup + 1) as f64;
        }
        let place = Place { step: step - self.warmup, steps: steps.saturating_sub(self.warmup), epoch };
        (self.row.factor)(&self.numbers, &place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_their_schedule() {
        let of = |text: &str, step, epoch| Schedule::parse(text).unwrap().factor(step, 100, epoch);
        assert_eq!(of("constant", 50, 3), 1.0);
        assert!((of("cosine", 50, 0) - 0.5).abs() < 1e-12 && of("cosine", 0, 0) == 1.0);
        assert_eq!(of("step:2:0.1", 0, 3), 0.1);
        assert_eq!(of("exponential:0.5", 0, 3), 0.125);
        let warm = Schedule { warmup: 3, ..Schedule::parse("constant").unwrap() };
        assert_eq!([0, 1, 2, 3].map(|step| warm.factor(step, 10, 0)), [0.25, 0.5, 0.75, 1.0]);
        assert_eq!(Schedule::parse("step:2:0.1").unwrap().to_string(), "step:2:0.1");
        assert!(Schedule::parse("step:2").is_err() && Schedule::parse("linear").unwrap_err().contains("cosine"));
    }
}
