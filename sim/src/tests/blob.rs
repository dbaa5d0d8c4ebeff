//! A deployable of one DPU job for tests. The product's writer is in the host crate, which this one must not use.

use serde::Serialize;
use shiftwise_core::model::*;

fn table(records: &[impl Serialize]) -> Vec<u8> {
    let (mut head, mut tail) = ((records.len() as u32).to_le_bytes().to_vec(), Vec::new());
    for record in records {
        head.extend(((4 + 4 * records.len() + tail.len()) as u32).to_le_bytes());
        tail.extend(postcard::to_stdvec(record).unwrap());
    }
    head.extend(tail);
    head
}

/// A blob whose one step runs `code`.
pub(crate) fn write(
    fingerprint: u64,
    facts: &Facts<'_>,
    tensors: &[TensorDesc<'_>],
    layers: &[LayerSpan<'_>],
    constants: &[u8],
    code: &[u8],
) -> Vec<u8> {
    let outputs = [1, 0];
    let job = DpuJob { name: "job", offset: 0, bytes: code.len() as u32, outputs: TensorList(&outputs) };
    let facts = postcard::to_stdvec(facts).unwrap();
    let (tensors, steps, layers) = (table(tensors), table(&[Step::Dpu(job)]), table(layers));
    let sections: [(&[u8], usize); SECTIONS] =
        [(&facts, 1), (&tensors, 1), (&steps, 1), (&layers, 1), (&[], 1), (constants, CONST_ALIGN), (code, CODE_ALIGN)];
    let (mut body, mut entries) = (vec![0; HEADER_BYTES], Vec::new());
    for (bytes, align) in sections {
        body.resize(body.len().next_multiple_of(align), 0);
        entries.extend([body.len() as u32, bytes.len() as u32].map(u32::to_le_bytes).concat());
        body.extend_from_slice(bytes);
    }
    let mut head = MAGIC.to_vec();
    head.extend(FORMAT_VERSION.to_le_bytes());
    head.extend((SECTIONS as u16).to_le_bytes());
    head.extend(fingerprint.to_le_bytes());
    head.extend((body.len() as u32 + 4).to_le_bytes());
    head.extend([0; 4]);
    head.extend(entries);
    body.splice(..HEADER_BYTES, head);
    let crc = crc32(&body);
    body.extend(crc.to_le_bytes());
    body
}
