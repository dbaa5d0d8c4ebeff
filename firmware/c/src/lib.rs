//! The C interface. All of its `unsafe` is here: it turns the caller's pointers into what `shiftwise-firmware` takes.
//!
//! Contract of every function, on top of its own words: pointers are null (then the answer is 64) or point to as many
//! elements as are named, which nothing else changes during the call; a network is used by one thread at a time; file
//! and arena stay where they are, untouched by others, as long as the network is used.
#![cfg_attr(target_os = "none", no_std)]
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

use core::ffi::c_char;
use core::mem::{align_of, size_of};
use core::slice::{from_raw_parts, from_raw_parts_mut};

use shiftwise_firmware::error::Error;
use shiftwise_firmware::memory;
use shiftwise_firmware::network::Network;
use shiftwise_firmware::self_test::{Progress, SelfTest};

/// Error number of a null or misaligned pointer, or of storage that holds no network.
pub const SW_ERROR_HANDLE: u8 = 64;
/// Version of this interface: a library with another number does not fit this header.
pub const SW_VERSION: u32 = 1;
/// An element type: signed 8-bit integers, q stands for q * 2^-position.
pub const SW_INT8: u8 = 0;
/// An element type: 32-bit floats.
pub const SW_FLOAT32: u8 = 1;

/// Storage of one network, to be placed anywhere; the contents are not for the user.
#[repr(C)]
#[derive(Debug)]
pub struct sw_network {
    opaque: [u64; 64],
}

/// Facts about an input or an output.
#[repr(C)]
#[derive(Debug)]
pub struct sw_tensor {
    /// The name: not terminated, lies in the deployable.
    pub name: *const c_char,
    /// Bytes of the name.
    pub name_bytes: usize,
    /// Sizes of the dimensions, channels last; 1 beyond the rank.
    pub dims: [u32; 4],
    /// Number of dimensions.
    pub rank: u8,
    /// SW_INT8 or SW_FLOAT32.
    pub type_: u8,
    /// Fraction bits of integers.
    pub position: i8,
    /// Number of elements.
    pub elements: usize,
    /// The tensor's memory, which may be read and, for inputs, written in place.
    pub data: *mut u8,
}

/// Says that the storage holds a network.
const MAGIC: u32 = 0x5357_4e31;

#[repr(C)]
struct State {
    magic: u32,
    network: Network<'static>,
    test: SelfTest,
}

const _: () = assert!(size_of::<State>() <= size_of::<sw_network>() && align_of::<State>() <= align_of::<sw_network>());

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
            unsafe { state.write(State { magic: MAGIC, network, test: SelfTest::new() }) };
            0
        }
        Err(error) => error.code(),
    }
}

macro_rules! describe {
    ($found:expr, $data:expr, $tensor:expr) => {{
        let (found, tensor) = ($found, $found.tensor());
        let _ = found;
        *$tensor = sw_tensor {
            name: tensor.name.as_ptr().cast(),
            name_bytes: tensor.name.len(),
            dims: core::array::from_fn(|i| tensor.shape.dims().get(i).copied().unwrap_or(1)),
            rank: tensor.shape.dims().len() as u8,
            type_: if tensor.dtype.bytes() == 1 { SW_INT8 } else { SW_FLOAT32 },
            position: tensor.pos.0,
            elements: tensor.shape.elements().unwrap_or(0) as usize,
            data: $data,
        };
    }};
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
        describe!(&found, data, tensor);
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
        describe!(&found, found.bytes().as_ptr().cast_mut(), tensor);
    }))
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
    number(state.network.run(&mut ()).map_err(Error::from))
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
    let result = state.test.step(&mut state.network, &mut ());
    // SAFETY: not null, and by contract a place to write to.
    unsafe { done.write(result == Ok(Progress::Passed)) };
    number(result.map(|_| ()))
}

/// Nothing panics; a link-time test finds this function's callers if something does.
#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
