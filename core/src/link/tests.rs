use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn frame(sequence: u32, message: &Request<'_>) -> Vec<u8> {
    encode(sequence, message, &mut [0; FRAME]).unwrap().to_vec()
}

/// Every frame of a stream, as (sequence number, bytes of a `Load`).
fn loads(stream: &[u8]) -> Vec<Result<(u32, Vec<u8>), FrameError>> {
    let mut deframer = Deframer::new();
    let mut found = Vec::new();
    for byte in stream {
        if let Some(end) = deframer.push(*byte) {
            found.push(end.and_then(|()| match decode(deframer.payload())? {
                (n, Request::Load { offset: 7, bytes }) => Ok((n, bytes.to_vec())),
                _ => Err(FrameError::Message),
            }));
        }
    }
    found
}

fn load(bytes: &[u8]) -> Request<'_> {
    Request::Load { offset: 7, bytes }
}

/// As the documentation of [`Report::Crc`] has it.
#[test]
fn a_checksum_takes_few_bytes() {
    let bytes = |sequence, part, tensor| {
        let crc = Response::Crc { tensor: TensorId(tensor), crc: u32::MAX };
        encode_answer((sequence, part), &crc, &mut [0; FRAME]).unwrap().len()
    };
    assert_eq!((bytes(16383, 127, 127), bytes(u32::MAX, u32::MAX, u16::MAX)), (16, 25));
}

#[test]
fn the_largest_messages_fit_a_frame() {
    for fill in [0, 1, 255] {
        let bytes = [fill; CHUNK];
        let largest = Response::Bytes { tensor: TensorId(u16::MAX), offset: u32::MAX, bytes: &bytes };
        let mut buffer = [0; FRAME];
        let frame = encode_answer((u32::MAX, u32::MAX), &largest, &mut buffer).unwrap();
        assert!(frame.len() <= FRAME);
        let mut deframer = Deframer::new();
        let ends: Vec<_> = frame.iter().filter_map(|b| deframer.push(*b)).collect();
        assert_eq!(ends, [Ok(())]);
        assert_eq!(decode_answer(deframer.payload()), Ok(((u32::MAX, u32::MAX), largest)));
        assert_eq!(version_of(deframer.payload()), None);
    }
    assert_eq!(encode(0, &load(&[1; CHUNK + 200]), &mut [0; FRAME]), Err(FrameError::Long));
}

#[test]
fn known_bytes() {
    // One block of seven: sequence number 5, variant 7, CRC-32 of both (as zip computes it), zero.
    assert_eq!(frame(5, &Request::Reset), [7, 5, 7, 0x19, 0x73, 0xCA, 0xA2, 0]);
}

/// Greetings of every version are understood by every version.
#[test]
fn a_greeting_tells_the_version_to_any_host() {
    // One byte that is not zero, then the variant as the zero between two blocks.
    assert_eq!(frame(1, &Request::Hello)[..3], [2, 1, 5]);
    let body = |rest: &[u8]| {
        let mut body = [&[9, 0][..], rest].concat();
        let crc = crc32(&body);
        body.extend(crc.to_le_bytes());
        body
    };
    // Version 1 sent no number among the answers; a later one may send anything.
    let old = body(&[1, 4, b'f', b'a', b'k', b'e', 0, 0, 0]);
    let later = body(&[77, 1, 2, 3]);
    assert_eq!((version_of(&old), version_of(&later)), (Some(1), Some(77)));
    assert_eq!(decode_answer(&old), Err(FrameError::Message));
    let hello = Response::Hello { version: VERSION, board: "b", store: 1, arena: 2, hz: 3 };
    let mut buffer = [0; FRAME];
    let mut deframer = Deframer::new();
    // In one byte, in two, in three and in five.
    for number in [1, 127, 128, 200, 16_384, u32::MAX] {
        let own = encode_answer((number, 0), &hello, &mut buffer).unwrap();
        assert_eq!(own.iter().find_map(|b| deframer.push(*b)), Some(Ok(())));
        assert_eq!(version_of(deframer.payload()), Some(VERSION), "{number}");
    }
    // Up to version 2 a number was always one byte.
    let mut old = std::vec![200, 0, 2, 1, b'b'];
    old.extend(crc32(&old).to_le_bytes());
    assert_eq!(version_of(&old), Some(2));
    let mut damaged = deframer.payload().to_vec();
    damaged[7] ^= 1;
    assert_eq!(version_of(&damaged), None);
}

#[test]
fn blocks_of_254_carry_no_zero() {
    for n in 240..=260 {
        let bytes: Vec<u8> = (0..n).map(|i| (i % 255 + 1) as u8).collect();
        assert_eq!(loads(&frame(1, &load(&bytes))), [Ok((1, bytes))]);
    }
}

proptest! {
    #[test]
    fn a_frame_comes_back(sequence: u32, bytes in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..CHUNK)) {
        let stream = frame(sequence, &load(&bytes));
        prop_assert_eq!(stream.iter().filter(|b| **b == 0).count(), 1);
        prop_assert_eq!(loads(&stream), [Ok((sequence, bytes))]);
    }

    #[test]
    fn noise_is_never_a_message_and_ends_with_the_next_zero(
        noise in prop::collection::vec(any::<u8>(), 0..4 * FRAME),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut stream = noise;
        stream.push(0);
        stream.extend(frame(9, &load(&bytes)));
        let found = loads(&stream);
        let (last, before) = found.split_last().unwrap();
        prop_assert_eq!(last, &Ok((9, bytes)));
        prop_assert!(before.iter().all(Result::is_err));
    }

    #[test]
    fn damage_is_noticed(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        at: prop::sample::Index,
        flip in 1u8..=255,
        lost: bool,
    ) {
        let mut stream = frame(3, &load(&bytes));
        let at = at.index(stream.len() - 1);
        if lost { stream.remove(at); } else { stream[at] ^= flip; }
        stream.push(0);
        prop_assert!(loads(&stream).iter().all(Result::is_err));
    }

    #[test]
    fn decoding_never_panics(mut body in prop::collection::vec(any::<u8>(), 0..80)) {
        let crc = crc32(&body);
        body.extend(crc.to_le_bytes());
        let _ = decode(&body);
        let _ = decode_answer(&body);
        let _ = version_of(&body);
    }
}
