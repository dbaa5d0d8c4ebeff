//! A network that is ready to run.

use shiftwise_core::arith::Round;
use shiftwise_core::fix::{FixPos, FixSpec, dequantize, quantize};
use shiftwise_core::model::{DType, Deployable, TensorDesc, TensorId};
use shiftwise_core::run::{Dpu, Memory, NoDpu, Observer, RunError, run_with, step_with};

use crate::error::Error;
use crate::kernels::Fast;
use crate::memory::{Loaded, load};

/// A checked deployable with its memory and its device.
///
/// The deployable stays where it is, in flash; what the network changes lies in one slice. The order of calls is free
/// but for one thing: a run may use the memory of inputs for something else, so that each run wants its inputs anew.
#[derive(Debug)]
pub struct Network<'m, D = NoDpu> {
    pub(crate) deployable: Deployable<'m>,
    pub(crate) memory: Memory<'m>,
    pub(crate) scratch: &'m mut [u8],
    pub(crate) dpu: D,
}

impl<'m> Network<'m> {
    /// A network whose layers all run on the CPU.
    ///
    /// `file` begins with the deployable and may be longer. `arena` has at least [`arena_bytes`] bytes; with
    /// [`scratch_bytes`] more the kernels are as fast as they can be.
    ///
    /// Errors: [`Error::Parse`], [`Error::Target`] if it holds code for a DPU, [`Error::Memory`].
    ///
    /// [`arena_bytes`]: crate::memory::arena_bytes
    /// [`scratch_bytes`]: crate::kernels::scratch_bytes
    pub fn new(file: &'m [u8], arena: &'m mut [u8]) -> Result<Self, Error> {
        Self::with_dpu(file, arena, NoDpu, 0)
    }
}

impl<'m, D: Dpu> Network<'m, D> {
    /// A network some of whose layers run on `dpu`, which is the target with this fingerprint.
    ///
    /// Deployables without DPU code run as well. Errors: as for [`Network::new`].
    pub fn with_dpu(file: &'m [u8], arena: &'m mut [u8], dpu: D, fingerprint: u64) -> Result<Self, Error> {
        let Loaded { deployable, memory, scratch } = load(file, arena, |own| own == 0 || own == fingerprint)?;
        Ok(Self { deployable, memory, scratch, dpu })
    }

    /// The deployable: names, facts, every tensor.
    pub fn deployable(&self) -> &Deployable<'m> {
        &self.deployable
    }

    /// The device.
    pub fn dpu(&mut self) -> &mut D {
        &mut self.dpu
    }

    /// Input `index`, to be looked at and written.
    pub fn input(&mut self, index: usize) -> Result<Input<'_>, Error> {
        let missing = Error::Index(index);
        let (id, tensor) = self.deployable.inputs().nth(index).ok_or(missing)?;
        let bytes = self.memory.tensor_mut(&tensor).ok_or(missing)?;
        Ok(Input { id, tensor, bytes })
    }

    /// Output `index`, as the last run has left it.
    pub fn output(&self, index: usize) -> Result<Output<'_>, Error> {
        let missing = Error::Index(index);
        let (id, tensor) = self.deployable.outputs().nth(index).ok_or(missing)?;
        let bytes = self.memory.tensor(&tensor).ok_or(missing)?;
        Ok(Output { id, tensor, bytes })
    }

    /// Runs the network once; `observer` sees each step and each tensor, `&mut ()` looks at nothing.
    ///
    /// Errors: those of the device, or of a deployable whose steps overlap in memory.
    pub fn run(&mut self, observer: &mut impl Observer) -> Result<(), RunError<D::Error>> {
        let mut kernels = Fast::new(self.scratch);
        run_with(&self.deployable, &mut self.dpu, &mut kernels, &mut self.memory, observer)
    }

    /// A run that stops after each layer, for schedulers whose tasks have to give way: what lies between two calls of
    /// [`Slices::step`] may take as long as it likes. Dropped before its end, it leaves outputs that mean nothing.
    ///
    /// ```
    /// # use shiftwise_firmware::{error::Error, network::Network};
    /// # fn run(network: &mut Network<'_>, mut give_way: impl FnMut()) -> Result<(), Error> {
    /// let mut slices = network.slices();
    /// while slices.step(&mut ())? {
    ///     give_way();
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn slices(&mut self) -> Slices<'_, 'm, D> {
        Slices { network: self, done: 0 }
    }
}

/// A run of a network, layer by layer; [`Network::slices`] begins one.
#[derive(Debug)]
pub struct Slices<'n, 'm, D = NoDpu> {
    network: &'n mut Network<'m, D>,
    /// Steps that have run.
    done: u16,
}

impl<D: Dpu> Slices<'_, '_, D> {
    /// Runs the next step, and says whether there are more. `observer` sees what it would see in [`Network::run`]. After
    /// the last step nothing happens any more.
    ///
    /// Errors: those of [`Network::run`]; then the run has to begin anew.
    pub fn step(&mut self, observer: &mut impl Observer) -> Result<bool, RunError<D::Error>> {
        let Network { deployable, memory, scratch, dpu } = &mut *self.network;
        if self.done == 0 {
            for (id, tensor) in deployable.inputs() {
                if let Some(bytes) = memory.tensor(&tensor) {
                    observer.tensor(id, &tensor, bytes);
                }
            }
        }
        if let Some(step) = deployable.steps().nth(self.done.into()) {
            step_with(deployable, (self.done, &step), dpu, &mut Fast::new(scratch), memory, observer)?;
            self.done = self.done.saturating_add(1);
        }
        Ok(self.done < deployable.step_count())
    }
}

/// An input of a network: its facts, and its memory to write.
///
/// Elements are in the order of [`TensorDesc::shape`], row-major, channels last. An integer q stands for
/// q · 2^(-position).
#[derive(Debug)]
pub struct Input<'a> {
    id: TensorId,
    tensor: TensorDesc<'a>,
    bytes: &'a mut [u8],
}

impl Input<'_> {
    /// Its number among all tensors.
    pub fn id(&self) -> TensorId {
        self.id
    }

    /// Name, shape, element type, position.
    pub fn tensor(&self) -> &TensorDesc<'_> {
        &self.tensor
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.bytes.len() / self.tensor.dtype.bytes() as usize
    }

    /// The memory itself, in the tensor's element type, little-endian.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// Real values as the network was calibrated with them: each times 2^position, rounded half up, saturated to int8,
    /// NaN as 0, which is what the host does. A network with a float input takes them as they are.
    ///
    /// Errors: [`Error::Length`].
    pub fn set_f32(&mut self, values: &[f32]) -> Result<(), Error> {
        self.fits(values.len())?;
        match self.tensor.dtype {
            DType::I8 => {
                let pos = self.tensor.pos;
                self.bytes.iter_mut().zip(values).for_each(|(to, x)| *to = quantized(*x, pos));
            }
            DType::F32 => {
                let (words, _) = self.bytes.as_chunks_mut();
                words.iter_mut().zip(values).for_each(|(to, x)| *to = x.to_le_bytes());
            }
            DType::Scaled(_) => self.set_elements(values.iter().copied()),
        }
        Ok(())
    }

    /// Integers of the input's position.
    ///
    /// Errors: [`Error::Length`]; [`Error::Type`] if the input is in floats.
    pub fn set_i8(&mut self, values: &[i8]) -> Result<(), Error> {
        self.fits(values.len())?;
        if self.tensor.dtype != DType::I8 {
            return Err(Error::Type);
        }
        self.bytes.iter_mut().zip(values).for_each(|(to, q)| *to = *q as u8);
        Ok(())
    }

    /// Raw samples of a camera or converter: each stands for `sample * scale + offset`, computed in f32 with two
    /// roundings, and then as in [`Self::set_f32`]. Pixels of a network trained on 0 to 1 have scale 1/255, offset 0.
    ///
    /// Errors: [`Error::Length`].
    pub fn set_u8(&mut self, samples: &[u8], scale: f32, offset: f32) -> Result<(), Error> {
        self.fits(samples.len())?;
        let value = |sample: u8| f32::from(sample) * scale + offset;
        match self.tensor.dtype {
            DType::I8 => {
                // There are only so many samples.
                let mut table = [0; 256];
                let pos = self.tensor.pos;
                (0..=u8::MAX).zip(&mut table).for_each(|(sample, to)| *to = quantized(value(sample), pos));
                let look = |sample: &u8| table.get(usize::from(*sample)).copied().unwrap_or(0);
                self.bytes.iter_mut().zip(samples).for_each(|(to, sample)| *to = look(sample));
            }
            DType::F32 => {
                let (words, _) = self.bytes.as_chunks_mut();
                words.iter_mut().zip(samples).for_each(|(to, sample)| *to = value(*sample).to_le_bytes());
            }
            DType::Scaled(_) => self.set_elements(samples.iter().map(|sample| value(*sample))),
        }
        Ok(())
    }

    fn set_elements(&mut self, values: impl Iterator<Item = f32>) {
        let elements = self.bytes.chunks_exact_mut(self.tensor.dtype.bytes() as usize);
        elements.zip(values).for_each(|(to, x)| to.iter_mut().zip(self.tensor.element(x)).for_each(|(to, b)| *to = b));
    }

    fn fits(&self, given: usize) -> Result<(), Error> {
        match self.elements() {
            needed if needed == given => Ok(()),
            needed => Err(Error::Length { needed, given }),
        }
    }
}

/// The rule of the host's engines: scaled and rounded half up in f32, saturated.
fn quantized(x: f32, pos: FixPos) -> u8 {
    quantize(x, FixSpec::int8(pos.0), Round::HalfUp) as u8
}

/// An output of a network.
///
/// Elements are in the order of [`TensorDesc::shape`], row-major, channels last.
#[derive(Clone, Debug)]
pub struct Output<'a> {
    id: TensorId,
    tensor: TensorDesc<'a>,
    bytes: &'a [u8],
}

impl<'a> Output<'a> {
    /// Its number among all tensors.
    pub fn id(&self) -> TensorId {
        self.id
    }

    /// Name, shape, element type, position.
    pub fn tensor(&self) -> &TensorDesc<'a> {
        &self.tensor
    }

    /// The memory itself, in the tensor's element type, little-endian.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Integers of the output's position; [`Error::Type`] if the output is in floats.
    pub fn i8s(&self) -> Result<impl ExactSizeIterator<Item = i8> + use<'a>, Error> {
        match self.tensor.dtype {
            DType::I8 => Ok(self.bytes.iter().map(|byte| *byte as i8)),
            DType::F32 | DType::Scaled(_) => Err(Error::Type),
        }
    }

    /// Real values, whatever the element type.
    pub fn f32s(&self) -> impl Iterator<Item = f32> + use<'a> {
        let (dtype, pos) = (self.tensor.dtype, self.tensor.pos);
        self.bytes.chunks_exact(dtype.bytes() as usize).map(move |element| match (dtype, element) {
            (DType::Scaled(scale), [q]) => scale.dequantize((*q as i8).into()),
            (DType::Scaled(scale), [a, b]) => scale.dequantize(i16::from_le_bytes([*a, *b])),
            (_, [q]) => dequantize((*q as i8).into(), pos),
            (_, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
            _ => 0.0,
        })
    }

    /// Index of the largest element, the first of equals; `None` if there are none. NaN is never the largest.
    pub fn argmax(&self) -> Option<usize> {
        let larger = |best: Option<(usize, f32)>, (i, x): (usize, f32)| match best {
            Some((_, largest)) if x <= largest || x.is_nan() => best,
            None if x.is_nan() => None,
            _ => Some((i, x)),
        };
        self.f32s().enumerate().fold(None, larger).map(|(i, _)| i)
    }
}
