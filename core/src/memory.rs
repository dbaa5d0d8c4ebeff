//! The four memory regions that a deployable runs in, and borrows of single tensors of them.

use crate::model::{Region, TensorDesc};

/// The four regions, as the caller's slices.
#[derive(Debug)]
pub struct Memory<'a> {
    /// Weights and biases.
    pub constants: &'a [u8],
    /// Intermediate tensors.
    pub workspace: &'a mut [u8],
    /// Network inputs.
    pub inputs: &'a mut [u8],
    /// Network outputs.
    pub outputs: &'a mut [u8],
}

impl Memory<'_> {
    /// `len` bytes of `region` from `offset`; `None` outside it.
    pub fn read(&self, region: Region, offset: usize, len: usize) -> Option<&[u8]> {
        let bytes = match region {
            Region::Constants => self.constants,
            Region::Workspace => self.workspace,
            Region::Inputs => self.inputs,
            Region::Outputs => self.outputs,
        };
        bytes.get(offset..offset.checked_add(len)?)
    }

    /// `len` writable bytes of `region` from `offset`; `None` outside it or for the constants.
    pub fn write(&mut self, region: Region, offset: usize, len: usize) -> Option<&mut [u8]> {
        let bytes = match region {
            Region::Constants => return None,
            Region::Workspace => &mut *self.workspace,
            Region::Inputs => &mut *self.inputs,
            Region::Outputs => &mut *self.outputs,
        };
        bytes.get_mut(offset..offset.checked_add(len)?)
    }

    /// All of a region; `None` for the constants.
    pub(crate) fn region_mut(&mut self, region: Region) -> Option<&mut [u8]> {
        match region {
            Region::Constants => None,
            Region::Workspace => Some(self.workspace),
            Region::Inputs => Some(self.inputs),
            Region::Outputs => Some(self.outputs),
        }
    }

    /// The bytes of a tensor.
    pub fn tensor(&self, t: &TensorDesc<'_>) -> Option<&[u8]> {
        self.read(t.place.region, t.place.offset as usize, t.bytes() as usize)
    }

    /// The writable bytes of a tensor.
    pub fn tensor_mut(&mut self, t: &TensorDesc<'_>) -> Option<&mut [u8]> {
        self.write(t.place.region, t.place.offset as usize, t.bytes() as usize)
    }

    /// The writable bytes of `output`, and all other memory to read meanwhile; `None` if the tensor lies outside.
    pub fn split(&mut self, output: &TensorDesc<'_>) -> Option<(&mut [u8], Rest<'_>)> {
        let Memory { constants, workspace, inputs, outputs } = self;
        let (region, start) = (output.place.region, output.place.offset as usize);
        let (whole, mut parts): (&mut [u8], [&[u8]; 4]) = match region {
            Region::Constants => return None,
            Region::Workspace => (workspace, [constants, &[], inputs, outputs]),
            Region::Inputs => (inputs, [constants, workspace, &[], outputs]),
            Region::Outputs => (outputs, [constants, workspace, inputs, &[]]),
        };
        let (before, rest) = whole.split_at_mut_checked(start)?;
        let (bytes, after) = rest.split_at_mut_checked(output.bytes() as usize)?;
        *parts.get_mut(region as usize)? = before;
        Some((bytes, Rest { parts, region, start: start + output.bytes() as usize, after }))
    }

    /// An input tensor to read and an output tensor to write at once; `None` if they overlap or lie outside.
    pub fn pair(&mut self, input: &TensorDesc<'_>, output: &TensorDesc<'_>) -> Option<(&[u8], &mut [u8])> {
        let (to, rest) = self.split(output)?;
        Some((rest.tensor(input)?, to))
    }
}

/// All memory but the bytes of one tensor, see [`Memory::split`].
#[derive(Clone, Copy, Debug)]
pub struct Rest<'a> {
    /// Each region from its beginning; `region` ends where the tensor begins.
    parts: [&'a [u8]; 4],
    region: Region,
    /// `region` from `start`, the tensor's end.
    after: &'a [u8],
    start: usize,
}

impl<'a> Rest<'a> {
    /// The bytes of a tensor; `None` if it lies outside or overlaps the one that is left out.
    pub fn tensor(&self, t: &TensorDesc<'_>) -> Option<&'a [u8]> {
        let (region, offset, len) = (t.place.region, t.place.offset as usize, t.bytes() as usize);
        let (part, from) = match offset.checked_sub(self.start) {
            Some(from) if region == self.region => (self.after, from),
            _ => (*self.parts.get(region as usize)?, offset),
        };
        part.get(from..from.checked_add(len)?)
    }
}
