//! The C interface. All of its `unsafe` is here: it turns the caller's pointers into what `shiftwise-firmware` takes.
//!
//! Contract of every function, on top of its own words: pointers are null (then the answer is 64) or point to as many
//! elements as are named, which nothing else changes during the call; a network is used by one thread at a time; file
//! and arena stay where they are, untouched by others, as long as the network is used.
#![cfg_attr(target_os = "none", no_std)]
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

use core::ffi::c_char;
use core::mem::{align_of, offset_of, size_of};
use core::ptr;
use core::slice::{from_raw_parts, from_raw_parts_mut};

use shiftwise_firmware::error::Error;
use shiftwise_firmware::memory;
use shiftwise_firmware::monitor::{Drift, Expected, Monitor, OCTAVES, Sketch};
use shiftwise_firmware::network::Network;
use shiftwise_firmware::self_test::{Progress, SelfTest};
use shiftwise_firmware::tensor::{DType, TensorDesc, TensorId};

/// Error number of a null or misaligned pointer, or of storage that holds no network.
pub const SW_ERROR_HANDLE: u8 = 64;
/// Version of this interface: a library with another number does not fit this header.
pub const SW_VERSION: u32 = 2;
/// An element type: signed 8-bit integers, q stands for q * 2^-position.
pub const SW_INT8: u8 = 0;
/// An element type: 32-bit floats.
pub const SW_FLOAT32: u8 = 1;
/// An element type: signed 8-bit integers with a step of any size; sw_set_f32 and sw_get_f32 convert them.
pub const SW_SCALED8: u8 = 2;
/// An element type: the same of 16 bits.
pub const SW_SCALED16: u8 = 3;

/// What a tensor has held is what is expected of it.
pub const SW_DRIFT_INSIDE: u8 = 0;
/// Nothing was seen.
pub const SW_DRIFT_UNSEEN: u8 = 1;
/// Too many values lie at -128 or 127: more than 1/256, and four times as many as expected.
pub const SW_DRIFT_CLIPPED: u8 = 2;
/// Values are four times as large as expected, or larger; one in 1024 is left aside.
pub const SW_DRIFT_WIDE: u8 = 3;
/// Values are a fourth of what is expected, or smaller.
pub const SW_DRIFT_NARROW: u8 = 4;

/// Storage of one network, to be placed anywhere; the contents are not for the user.
#[repr(C)]
#[derive(Debug)]
pub struct sw_network {
    opaque: [u64; 64],
}

/// Facts about a tensor.
#[repr(C)]
#[derive(Debug)]
pub struct sw_tensor {
    /// Its number among all tensors of the network, which is that of its sketch.
    pub number: usize,
    /// The name: not terminated, lies in the deployable.
    pub name: *const c_char,
    /// Bytes of the name.
    pub name_bytes: usize,
    /// Sizes of the dimensions, channels last; 1 beyond the rank.
    pub dims: [u32; 4],
    /// Number of dimensions.
    pub rank: u8,
    /// SW_INT8, SW_FLOAT32, SW_SCALED8 or SW_SCALED16.
    pub type_: u8,
    /// Fraction bits of integers.
    pub position: i8,
    /// Number of elements.
    pub elements: usize,
    /// The tensor's memory, which may be read and, for inputs, written in place; null for a tensor inside the network,
    /// whose memory holds others as well.
    pub data: *mut u8,
}

/// What one int8 tensor has held over many runs. Counters stop at their largest number.
#[repr(C)]
#[derive(Debug)]
pub struct sw_sketch {
    /// Times that the tensor was seen.
    pub runs: u32,
    /// Values at -128.
    pub low: u32,
    /// Values at 127.
    pub high: u32,
    /// Smallest value; above `max` as long as nothing was seen.
    pub min: i8,
    /// Largest value.
    pub max: i8,
    /// Number of values by magnitude: zeros, 1, 2..3, 4..7, and so on, 64..127, 128.
    pub octaves: [u32; 9],
}

/// What a tensor holds on data like that of calibration.
#[repr(C)]
#[derive(Debug)]
pub struct sw_expected {
    /// Share of values at -128 or 127, in 1/65536.
    pub saturated: u16,
    /// The octave that has, with those below it, all but one in 1024 of the values: 0 to 8.
    pub reach: u8,
}

/// Says that the storage holds a network.
const MAGIC: u32 = 0x5357_4e31;

#[repr(C)]
struct State {
    magic: u32,
    network: Network<'static>,
    test: SelfTest,
    /// The caller's sketches, which the caller reads between the calls.
    sketches: *mut Sketch,
    watched: usize,
}

const _: () = {
    assert!(size_of::<State>() <= size_of::<sw_network>() && align_of::<State>() <= align_of::<sw_network>());
    // One type with two names.
    assert!(size_of::<Sketch>() == size_of::<sw_sketch>() && align_of::<Sketch>() == align_of::<sw_sketch>());
    assert!(SW_DRIFT_INSIDE == Drift::Inside as u8 && SW_DRIFT_UNSEEN == Drift::Unseen as u8);
    assert!(SW_DRIFT_CLIPPED == Drift::Clipped as u8 && SW_DRIFT_WIDE == Drift::Wide as u8);
    assert!(SW_DRIFT_NARROW == Drift::Narrow as u8);
    assert!(offset_of!(Sketch, min) == offset_of!(sw_sketch, min));
    assert!(offset_of!(Sketch, octaves) == offset_of!(sw_sketch, octaves) && OCTAVES == 9);
};

/// 0, or the number of the error.
fn number(result: Result<(), Error>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => error.code(),
    }
}

/// The network in the storage, if there is one.
unsafe fn open<'a>(network: *mut sw_network) -> Option<&'a mut State> {
    let state = network.cast::<State>();
    if state.is_null() || !state.is_aligned() {
        return None;
    }
    // SAFETY: the caller's storage is as large and aligned as asserted above; only the number is read before it is known
    // that `sw_open` has written the rest.
    unsafe { if (&raw const (*state).magic).read() == MAGIC { Some(&mut *state) } else { None } }
}

/// Elements behind a pointer; none at all are fine at any pointer but null.
unsafe fn elements<'a, T>(first: *const T, count: usize) -> Option<&'a [T]> {
    // SAFETY: not null and aligned; by contract there are `count` elements.
    (!first.is_null() && first.is_aligned()).then(|| unsafe { from_raw_parts(first, count) })
}

/// Elements to be written behind a pointer.
unsafe fn elements_mut<'a, T>(first: *mut T, count: usize) -> Option<&'a mut [T]> {
    // SAFETY: not null and aligned; by contract there are `count` elements that nothing else refers to.
    (!first.is_null() && first.is_aligned()).then(|| unsafe { from_raw_parts_mut(first, count) })
}

/// What fills the sketches that `sw_watch` was given.
unsafe fn monitor<'a>(state: &State) -> Monitor<'a> {
    // SAFETY: not null, and by the contract of `sw_watch` the caller's for as long as the network is used.
    Monitor::new(unsafe { elements_mut(state.sketches, state.watched) }.unwrap_or(&mut []))
}

/// SW_VERSION of the library.
#[unsafe(no_mangle)]
pub extern "C" fn sw_version() -> u32 {
    SW_VERSION
}

/// A sentence about an error number, for ever.
#[unsafe(no_mangle)]
pub extern "C" fn sw_error_text(error: u8) -> *const c_char {
    shiftwise_firmware::error::terminated(error).as_ptr()
}

/// Bytes of memory that the deployable in `file` needs; 0 if it is none, which sw_open says more about. A little more
/// memory makes convolutions faster.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_arena_bytes(file: *const u8, file_bytes: usize) -> usize {
    // SAFETY: by contract.
    unsafe { elements(file, file_bytes) }.and_then(memory::arena_bytes).unwrap_or(0)
}

/// Checks the deployable that `file` begins with, aligned to 16 bytes, and makes it a network in `storage`. The arena,
/// best aligned to 16 bytes, holds its tensors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_open(
    storage: *mut sw_network,
    file: *const u8,
    file_bytes: usize,
    arena: *mut u8,
    arena_bytes: usize,
) -> u8 {
    // SAFETY: by contract.
    let (Some(file), Some(arena)) =
        (unsafe { elements(file, file_bytes) }, unsafe { elements_mut(arena, arena_bytes) })
    else {
        return SW_ERROR_HANDLE;
    };
    let state = storage.cast::<State>();
    if state.is_null() || !state.is_aligned() {
        return SW_ERROR_HANDLE;
    }
    // SAFETY: the storage is large and aligned enough. What was refused leaves no network behind.
    unsafe { (&raw mut (*state).magic).write(0) };
    match Network::new(file, arena) {
        Ok(network) => {
            // SAFETY: as above; a `State` has no destructor that the old contents would want.
            let (test, sketches, watched) = (SelfTest::new(), ptr::null_mut(), 0);
            unsafe { state.write(State { magic: MAGIC, network, test, sketches, watched }) };
            0
        }
        Err(error) => error.code(),
    }
}

fn describe(id: TensorId, tensor: &TensorDesc<'_>, data: *mut u8) -> sw_tensor {
    sw_tensor {
        number: id.0.into(),
        name: tensor.name.as_ptr().cast(),
        name_bytes: tensor.name.len(),
        dims: core::array::from_fn(|i| tensor.shape.dims().get(i).copied().unwrap_or(1)),
        rank: tensor.shape.dims().len() as u8,
        type_: match tensor.dtype {
            DType::I8 => SW_INT8,
            DType::F32 => SW_FLOAT32,
            DType::Scaled(scale) => {
                if scale.is_wide() {
                    SW_SCALED16
                } else {
                    SW_SCALED8
                }
            }
        },
        position: tensor.pos.0,
        elements: tensor.shape.elements().unwrap_or(0) as usize,
        data,
    }
}

/// Facts about input `index`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_input(network: *mut sw_network, index: usize, tensor: *mut sw_tensor) -> u8 {
    // SAFETY: by contract.
    let (Some(state), Some([tensor])) = (unsafe { open(network) }, unsafe { elements_mut(tensor, 1) }) else {
        return SW_ERROR_HANDLE;
    };
    number(state.network.input(index).map(|mut found| {
        let data = found.bytes().as_mut_ptr();
        *tensor = describe(found.id(), found.tensor(), data);
    }))
}

/// Facts about output `index`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_output(network: *mut sw_network, index: usize, tensor: *mut sw_tensor) -> u8 {
    // SAFETY: by contract.
    let (Some(state), Some([tensor])) = (unsafe { open(network) }, unsafe { elements_mut(tensor, 1) }) else {
        return SW_ERROR_HANDLE;
    };
    number(state.network.output(index).map(|found| {
        *tensor = describe(found.id(), found.tensor(), found.bytes().as_ptr().cast_mut());
    }))
}

/// Facts about tensor `number` of the network, from 0: inputs, outputs and what is computed in between. Error 18 is the
/// end of the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_tensor_at(network: *mut sw_network, number: usize, tensor: *mut sw_tensor) -> u8 {
    // SAFETY: by contract.
    let (Some(state), Some([tensor])) = (unsafe { open(network) }, unsafe { elements_mut(tensor, 1) }) else {
        return SW_ERROR_HANDLE;
    };
    let id = u16::try_from(number).ok().map(TensorId);
    match id.and_then(|id| Some((id, state.network.deployable().tensor(id)?))) {
        Some((id, found)) => {
            *tensor = describe(id, &found, ptr::null_mut());
            0
        }
        None => Error::Index(number).code(),
    }
}

/// Writes input `index` from real values, as the network was calibrated with them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_set_f32(network: *mut sw_network, index: usize, values: *const f32, count: usize) -> u8 {
    // SAFETY: by contract.
    let (Some(state), Some(values)) = (unsafe { open(network) }, unsafe { elements(values, count) }) else {
        return SW_ERROR_HANDLE;
    };
    number(state.network.input(index).and_then(|mut input| input.set_f32(values)))
}

/// Writes input `index` from integers of its position.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_set_i8(network: *mut sw_network, index: usize, values: *const i8, count: usize) -> u8 {
    // SAFETY: by contract.
    let (Some(state), Some(values)) = (unsafe { open(network) }, unsafe { elements(values, count) }) else {
        return SW_ERROR_HANDLE;
    };
    number(state.network.input(index).and_then(|mut input| input.set_i8(values)))
}

/// Writes input `index` from raw samples, each of which stands for sample * scale + offset.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_set_u8(
    network: *mut sw_network,
    index: usize,
    samples: *const u8,
    count: usize,
    scale: f32,
    offset: f32,
) -> u8 {
    // SAFETY: by contract.
    let (Some(state), Some(samples)) = (unsafe { open(network) }, unsafe { elements(samples, count) }) else {
        return SW_ERROR_HANDLE;
    };
    number(state.network.input(index).and_then(|mut input| input.set_u8(samples, scale, offset)))
}

/// Runs the network once. A run may use the memory of inputs, so they are written anew before each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_run(network: *mut sw_network) -> u8 {
    // SAFETY: by contract.
    let Some(state) = (unsafe { open(network) }) else { return SW_ERROR_HANDLE };
    // SAFETY: by contract.
    let mut monitor = unsafe { monitor(state) };
    number(state.network.run(&mut monitor).map_err(Error::from))
}

/// Real values of output `index`, whatever its element type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_get_f32(network: *mut sw_network, index: usize, values: *mut f32, count: usize) -> u8 {
    // SAFETY: by contract.
    let (Some(state), Some(values)) = (unsafe { open(network) }, unsafe { elements_mut(values, count) }) else {
        return SW_ERROR_HANDLE;
    };
    number(state.network.output(index).and_then(|output| {
        let needed = output.tensor().shape.elements().unwrap_or(0) as usize;
        if needed != count {
            return Err(Error::Length { needed, given: count });
        }
        values.iter_mut().zip(output.f32s()).for_each(|(to, x)| *to = x);
        Ok(())
    }))
}

/// Integers of output `index`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_get_i8(network: *mut sw_network, index: usize, values: *mut i8, count: usize) -> u8 {
    // SAFETY: by contract.
    let (Some(state), Some(values)) = (unsafe { open(network) }, unsafe { elements_mut(values, count) }) else {
        return SW_ERROR_HANDLE;
    };
    number(state.network.output(index).and_then(|output| {
        let own = output.i8s()?;
        if own.len() != count {
            return Err(Error::Length { needed: own.len(), given: count });
        }
        values.iter_mut().zip(own).for_each(|(to, q)| *to = q);
        Ok(())
    }))
}

/// Runs one layer of the self-test that the deployable holds. `*done` says whether that was the last and all outputs
/// are right. Call it until then, or until an error; run nothing else on the network in between.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_self_test_step(network: *mut sw_network, done: *mut bool) -> u8 {
    // SAFETY: by contract.
    let (Some(state), false) = (unsafe { open(network) }, done.is_null()) else {
        return SW_ERROR_HANDLE;
    };
    // SAFETY: by contract.
    let mut monitor = unsafe { monitor(state) };
    let result = state.test.step(&mut state.network, &mut monitor);
    // SAFETY: not null, and by contract a place to write to.
    unsafe { done.write(result == Ok(Progress::Passed)) };
    number(result.map(|_| ()))
}

/// Watches what tensors hold, from the next run or step of a self-test on: `sketches[n]` counts the values of tensor n,
/// over all runs until sw_forget. Tensors from `count` on, and those in floats, are not watched; `count` 0 watches none.
/// The sketches are set to nothing seen. They stay where they are as long as the network is used; read them between
/// calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_watch(network: *mut sw_network, sketches: *mut sw_sketch, count: usize) -> u8 {
    // SAFETY: by contract.
    let Some(state) = (unsafe { open(network) }) else { return SW_ERROR_HANDLE };
    let sketches = sketches.cast::<Sketch>();
    if count > 0 && (sketches.is_null() || !sketches.is_aligned()) {
        return SW_ERROR_HANDLE;
    }
    for n in 0..count {
        // SAFETY: by contract there are so many elements. What they held before is not looked at.
        unsafe { sketches.wrapping_add(n).write(Sketch::new()) };
    }
    (state.sketches, state.watched) = (sketches, count);
    0
}

/// Sets the sketches that sw_watch was given back to nothing seen.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_forget(network: *mut sw_network) -> u8 {
    // SAFETY: by contract.
    let Some(state) = (unsafe { open(network) }) else { return SW_ERROR_HANDLE };
    // SAFETY: by contract.
    unsafe { monitor(state) }.reset();
    0
}

/// What is to be expected of a tensor that has held this on good data, such as the self-test's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_expect(sketch: *const sw_sketch, expected: *mut sw_expected) -> u8 {
    // SAFETY: by contract; a sketch is the library's under another name.
    let (Some([sketch]), Some([expected])) =
        (unsafe { elements(sketch.cast::<Sketch>(), 1) }, unsafe { elements_mut(expected, 1) })
    else {
        return SW_ERROR_HANDLE;
    };
    let Expected { saturated, reach } = sketch.into();
    *expected = sw_expected { saturated, reach };
    0
}

/// How what a tensor has held differs from what is expected: one of SW_DRIFT_INSIDE and the others. Without `expected`
/// (null) it is compared with the range that calibration gave the tensor. A null sketch has seen nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sw_drift(sketch: *const sw_sketch, expected: *const sw_expected) -> u8 {
    // SAFETY: by contract.
    let known = match unsafe { elements(expected, 1) } {
        Some([sw_expected { saturated, reach }]) => Expected { saturated: *saturated, reach: *reach },
        _ => Expected::OF_POSITION,
    };
    // SAFETY: by contract; a sketch is the library's under another name.
    match unsafe { elements(sketch.cast::<Sketch>(), 1) } {
        Some([sketch]) => sketch.drift(known) as u8,
        _ => SW_DRIFT_UNSEEN,
    }
}

/// Nothing panics; a link-time test finds this function's callers if something does.
#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
