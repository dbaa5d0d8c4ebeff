//! Whether tensors share memory.

use super::records::TensorDesc;

/// Whether two tensors have no byte in common.
pub(crate) fn apart(a: &TensorDesc<'_>, b: &TensorDesc<'_>) -> bool {
    let end = |t: &TensorDesc<'_>| u64::from(t.place.offset) + u64::from(t.bytes());
    a.place.region != b.place.region || end(a) <= b.place.offset.into() || end(b) <= a.place.offset.into()
}
