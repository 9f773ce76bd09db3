//! The decoder against a client that tungstenite encodes: by tables, then by properties.

mod client;
mod deflated;
mod properties;

use client::{
    BINARY, CLOSE, CONTINUATION, Heard, PING, PONG, TEXT, closing, frame, header, hear, hear_cut_everywhere,
};

use super::assembly::EMPTY_FRAGMENTS_MAX;
use super::{Decoder, Event, Frame, Input, Violation};

/// The bound on messages in the tables, in bytes.
const BYTES_MAX: usize = 1000;

/// Feeds the frames whole and cut at every place, and expects the same of all.
fn check(frames: &[Vec<u8>], heard: &[Heard], violation: Option<Violation>) {
    let stream = frames.concat();
    let expected = (heard.to_vec(), violation);
    assert_eq!(hear(&stream, &[], BYTES_MAX), expected, "whole: {stream:x?}");
    hear_cut_everywhere(&stream, BYTES_MAX, &expected);
}

fn text(text: &str) -> Heard {
    Heard::Text(text.to_owned())
}

fn binary(bytes: &[u8]) -> Heard {
    Heard::Binary(bytes.to_vec())
}

#[test]
fn whole_frames_are_heard_in_order() {
    check(&[], &[], None);
    check(&[frame(TEXT, true, b"")], &[text("")], None);
    check(&[frame(BINARY, true, b"")], &[binary(b"")], None);
    check(
        &[frame(TEXT, true, "κόσμε".as_bytes()), frame(BINARY, true, b"\xff\x00"), frame(TEXT, true, b"c")],
        &[text("κόσμε"), binary(b"\xff\x00"), text("c")],
        None,
    );
    for len in [125, 126, 127, 128, BYTES_MAX] {
        let payload = vec![b'x'; len];
        check(&[frame(TEXT, true, &payload)], &[Heard::Text("x".repeat(len))], None);
        check(&[frame(BINARY, true, &payload)], &[Heard::Binary(payload)], None);
    }
}

#[test]
fn control_frames_are_heard_between_and_inside_messages() {
    check(
        &[frame(PING, true, b""), frame(PONG, true, b"\xff"), frame(PING, true, &[7; 125])],
        &[Heard::Ping(vec![]), Heard::Pong(vec![0xff]), Heard::Ping(vec![7; 125])],
        None,
    );
    check(
        &[
            frame(TEXT, false, b"a"),
            frame(PING, true, b"1"),
            frame(CONTINUATION, false, b""),
            frame(PONG, true, b"2"),
            frame(CONTINUATION, true, b"b"),
            frame(BINARY, true, b"c"),
        ],
        &[Heard::Ping(b"1".to_vec()), Heard::Pong(b"2".to_vec()), text("ab"), binary(b"c")],
        None,
    );
}

#[test]
fn fragments_are_joined_even_empty_ones_and_inside_a_character() {
    check(
        &[frame(BINARY, false, b""), frame(CONTINUATION, false, b""), frame(CONTINUATION, true, b"")],
        &[binary(b"")],
        None,
    );
    check(
        &[
            frame(TEXT, false, b"\xf0\x9f"),
            frame(CONTINUATION, false, b"\x98"),
            frame(CONTINUATION, false, b""),
            frame(CONTINUATION, true, b"\x80!"),
        ],
        &[text("😀!")],
        None,
    );
    check(&[frame(TEXT, false, b"all"), frame(CONTINUATION, true, b"")], &[text("all")], None);
}

#[test]
fn fragments_out_of_order_are_protocol_errors() {
    let first = frame(TEXT, true, b"x");
    let table = [
        (vec![frame(CONTINUATION, true, b"")], vec![], Violation::NothingToContinue),
        (vec![first.clone(), frame(CONTINUATION, false, b"")], vec![text("x")], Violation::NothingToContinue),
        (vec![frame(TEXT, false, b""), frame(TEXT, true, b"")], vec![], Violation::Unfinished),
        (vec![frame(BINARY, false, b"a"), frame(BINARY, false, b"b")], vec![], Violation::Unfinished),
        (vec![first, frame(PING, false, b"")], vec![text("x")], Violation::ControlFragmented),
        (vec![frame(PING, true, &[0; 126])], vec![], Violation::ControlTooLong(126)),
    ];
    for (frames, heard, violation) in table {
        assert_eq!(violation.close_code(), 1002, "{violation}");
        check(&frames, &heard, Some(violation));
    }
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let table: [(&[Vec<u8>], u32); 6] = [
        (&[frame(TEXT, true, b"ab\xff")], 2),
        (&[frame(TEXT, true, b"ab\xe2\x82")], 2),
        (&[frame(TEXT, true, b"\xed\xa0\x80")], 0),
        (&[frame(TEXT, false, b"ab\xe2"), frame(CONTINUATION, true, b"\x82")], 2),
        (&[frame(TEXT, false, b"ab\xe2"), frame(CONTINUATION, false, b"ab")], 2),
        (&[frame(TEXT, false, b"ab"), frame(CONTINUATION, false, b"\xe2\x82\xac\xc0")], 5),
    ];
    for (frames, at) in table {
        let violation = Violation::TextNotUtf8 { at };
        assert_eq!(violation.close_code(), 1007);
        check(frames, &[], Some(violation));
    }
}

/// The message is announced as longer than what is sent, so nothing but the bytes themselves can give it away.
#[test]
fn text_is_refused_at_the_first_byte_that_cannot_be_right() {
    for fragment in [false, true] {
        let mut stream = header(TEXT, !fragment, 100).to_vec();
        stream.extend_from_slice("κόσμε".as_bytes());
        stream.extend_from_slice(b"\xf4");
        assert_eq!(hear(&stream, &[], BYTES_MAX), (vec![], None), "U+10FFFF would begin like this");
        stream.push(0x90);
        let expected = (vec![], Some(Violation::TextNotUtf8 { at: 10 }));
        assert_eq!(hear(&stream, &[], BYTES_MAX), expected);
        hear_cut_everywhere(&stream, BYTES_MAX, &expected);
    }
}

#[test]
fn a_size_is_refused_when_it_is_announced() {
    let too_big = |bytes| Some(Violation::TooBig { bytes, bytes_max: 1000 });
    check(&[header(BINARY, true, 1001)], &[], too_big(1001));
    check(&[header(TEXT, false, u64::MAX >> 1)], &[], too_big(u64::MAX >> 1));
    check(&[frame(TEXT, false, &[b'x'; 900]), header(CONTINUATION, true, 101)], &[], too_big(1001));
    check(&[frame(BINARY, false, b"x"), header(CONTINUATION, true, u64::MAX >> 1)], &[], too_big(1 << 63));
    // The bytes of a character that is not complete yet count too.
    check(&[frame(TEXT, false, b"\xe2\x82"), header(CONTINUATION, true, 999)], &[], too_big(1001));
    assert_eq!(too_big(1001).map(|violation| violation.close_code()), Some(1009));

    let exact =
        [frame(BINARY, false, &[0; 999]), frame(PING, true, &[0; 125]), frame(CONTINUATION, true, b"\0")];
    check(&exact, &[Heard::Ping(vec![0; 125]), binary(&[0; BYTES_MAX])], None);
}

#[test]
fn a_bound_over_32_bits_is_taken_as_32_bits() {
    let mut announced = header(BINARY, true, 1 << 32);
    let violation = Violation::TooBig { bytes: 1 << 32, bytes_max: u32::MAX };
    assert_eq!(Decoder::new(usize::MAX).next(&mut Input::new(&mut announced)), Err(violation));
}

#[test]
fn a_close_is_the_last_thing_heard() {
    let after = frame(TEXT, true, b"too late");
    check(&[frame(CLOSE, true, b""), after.clone()], &[Heard::Close(None)], None);
    check(&[closing(1000, ""), after.clone()], &[Heard::Close(Some((1000, String::new())))], None);
    check(
        &[closing(4999, "kύ"), b"\xff\xff\xff".to_vec()],
        &[Heard::Close(Some((4999, "kύ".to_owned())))],
        None,
    );
    check(
        &[frame(TEXT, false, b"half"), closing(1001, "")],
        &[Heard::Close(Some((1001, String::new())))],
        None,
    );

    let table: [(Vec<u8>, Violation, u16); 4] = [
        (frame(CLOSE, true, b"\x03"), Violation::CloseTooShort, 1002),
        (closing(1005, ""), Violation::CloseCode(1005), 1002),
        (closing(5000, "x"), Violation::CloseCode(5000), 1002),
        (frame(CLOSE, true, b"\x03\xe8\xff"), Violation::CloseReasonNotUtf8, 1007),
    ];
    for (close, violation, code) in table {
        assert_eq!(violation.close_code(), code, "{violation}");
        check(&[close, after.clone()], &[], Some(violation));
    }
}

#[test]
fn a_closed_or_failed_decoder_is_idle_holds_nothing_and_stays_so() {
    for (last, outcome) in [(closing(1000, ""), Ok(None)), (b"\x81\x00".to_vec(), Err(Violation::Unmasked))] {
        let mut decoder = Decoder::new(BYTES_MAX);
        let mut stream = [frame(TEXT, false, b"half"), last].concat();
        let mut input = Input::new(&mut stream);
        while let Ok(Some(_)) = decoder.next(&mut input) {}
        for _ in 0..3 {
            assert_eq!(decoder.next(&mut Input::new(&mut frame(TEXT, true, b"x"))), outcome);
            assert!(decoder.is_idle());
            assert_eq!(decoder.held_bytes(), 0);
        }
    }
}

#[test]
fn a_decoder_is_idle_only_between_messages() {
    let messages = [
        vec![frame(BINARY, true, b"whole")],
        vec![frame(TEXT, false, b""), frame(PING, true, b"inside"), frame(CONTINUATION, true, b"last")],
        vec![frame(PONG, true, b"alone")],
    ];
    for message in messages {
        let mut decoder = Decoder::new(BYTES_MAX);
        let stream = message.concat();
        for (at, byte) in stream.iter().enumerate() {
            assert_eq!(decoder.is_idle(), at == 0, "after {at} bytes of {stream:x?}");
            let heard = decoder.next(&mut Input::new(&mut [*byte])).unwrap().is_some();
            assert!(heard || !decoder.is_idle());
        }
        assert!(decoder.is_idle());
        assert_eq!(decoder.held_bytes(), 0);
    }
}

#[test]
fn a_whole_frame_is_not_copied() {
    for cut in [0, 3] {
        let mut stream = frame(TEXT, true, b"in place");
        let (first, second) = stream.split_at_mut(cut);
        let place = second.as_ptr_range();
        let mut decoder = Decoder::new(BYTES_MAX);
        assert_eq!(decoder.next(&mut Input::new(first)), Ok(None));
        match decoder.next(&mut Input::new(second)) {
            Ok(Some(Event::Text(text))) => assert!(place.contains(&text.as_ptr()), "a header cut at {cut}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_announcement_costs_nothing_and_memory_follows_what_was_received() {
    const LEN: usize = 65_536;
    for op in [TEXT, BINARY] {
        let mut decoder = Decoder::new(1 << 20);
        let mut announced = header(op, true, LEN as u64);
        assert_eq!(decoder.next(&mut Input::new(&mut announced)), Ok(None));
        assert_eq!(decoder.held_bytes(), 0);
        assert!(!decoder.is_idle());

        let mut received = 0;
        while received < LEN {
            let piece = 1000.min(LEN - received);
            let mut bytes = vec![0; piece];
            let mut input = Input::new(&mut bytes);
            received += piece;
            let heard = decoder.next(&mut input).unwrap().is_some();
            assert_eq!(heard, received == LEN);
            assert!(decoder.held_bytes() <= (2 * received).min(LEN), "{received}: {}", decoder.held_bytes());
        }
        assert!(decoder.is_idle());
        assert_eq!(decoder.held_bytes(), 0, "the message has moved to the input");
    }
}

#[test]
fn tiny_fragments_hold_no_more_than_the_message_may() {
    let mut decoder = Decoder::new(BYTES_MAX);
    assert_eq!(decoder.next(&mut Input::new(&mut frame(BINARY, false, b""))), Ok(None));
    for received in 1..=BYTES_MAX {
        assert_eq!(decoder.next(&mut Input::new(&mut frame(CONTINUATION, false, b"x"))), Ok(None));
        assert!(decoder.held_bytes() <= (2 * received).min(BYTES_MAX));
    }
    let mut over = frame(CONTINUATION, false, b"x");
    let too_big = Violation::TooBig { bytes: 1001, bytes_max: 1000 };
    assert_eq!(decoder.next(&mut Input::new(&mut over)), Err(too_big));
}

#[test]
fn empty_fragments_come_to_an_end() {
    let most = [
        frame(TEXT, false, b""),
        frame(CONTINUATION, false, b"").repeat(usize::from(EMPTY_FRAGMENTS_MAX) - 1),
    ];
    let finished = [most.concat(), frame(CONTINUATION, true, b"")].concat();
    assert_eq!(hear(&finished.repeat(2), &[], BYTES_MAX), (vec![text(""), text("")], None));
    let endless = [most.concat(), frame(CONTINUATION, false, b"")].concat();
    assert_eq!(hear(&endless, &[], BYTES_MAX), (vec![], Some(Violation::TooManyEmptyFragments)));
}

/// A client would refuse it, and so must we: the mask tells the directions apart.
#[test]
fn our_own_frames_are_not_a_clients() {
    check(&[Frame::text("hello").bytes().to_vec()], &[], Some(Violation::Unmasked));
}
