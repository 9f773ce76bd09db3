//! permessage-deflate against other hands: the examples of RFC 7692, miniz_oxide, and compressors that really keep their
//! state from message to message, as peers do.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::client::{BINARY, CONTINUATION, Heard, OpCode, PING, TEXT, masked_frame};
use crate::websocket::deflate::deflated_bytes_max;
use crate::websocket::{Context, Decoder, Frame, Inflater, Input, Shape, Violation, Window};

/// The bound on messages, in bytes.
const BYTES_MAX: usize = 100_000;

const RSV1: u8 = 0x40;

/// A frame that begins a compressed message, or is all of it.
fn compressed(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = masked_frame(opcode, is_final, payload, [1, 2, 3, 4]);
    bytes[0] |= RSV1;
    bytes
}

fn plain(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    masked_frame(opcode, is_final, payload, [5, 6, 7, 8])
}

/// What a new decoder hears of `stream`, read in pieces that end at each of `cuts` and at the end.
fn hear(
    stream: &[u8],
    cuts: &[usize],
    bytes_max: usize,
    context: Context,
) -> (Vec<Heard>, Option<Violation>) {
    let mut decoder = Decoder::inflating(bytes_max);
    let mut inflater = Inflater::default();
    let mut window = (context == Context::TakenOver).then(|| Window::new(15));
    let (mut heard, mut start) = (Vec::new(), 0);
    for end in cuts.iter().copied().chain([stream.len()]) {
        let mut piece = stream[start..end].to_vec();
        let mut input = Input::inflating(&mut piece, &mut inflater, window.as_mut());
        loop {
            match decoder.next(&mut input) {
                Ok(Some(event)) => heard.push(event.into()),
                Ok(None) => break,
                Err(violation) => return (heard, Some(violation)),
            }
        }
        assert!(!decoder.is_idle() || decoder.held_bytes() == 0, "an idle connection owns no buffer");
        start = end;
    }
    (heard, None)
}

/// The same of a stream whole, cut at every place, and byte by byte.
fn check(stream: &[u8], context: Context, heard: &[Heard], violation: Option<Violation>) {
    let expected = (heard.to_vec(), violation);
    let everywhere: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(hear(stream, &[], BYTES_MAX, context), expected, "{stream:x?}");
    assert_eq!(hear(stream, &everywhere, BYTES_MAX, context), expected, "byte by byte: {stream:x?}");
    for cut in everywhere {
        assert_eq!(hear(stream, &[cut], BYTES_MAX, context), expected, "cut at {cut}: {stream:x?}");
    }
}

fn text(text: &str) -> Heard {
    Heard::Text(text.to_owned())
}

/// A client that keeps its compressor.
struct Client {
    zlib: Compress,
    context: Context,
}

impl Client {
    fn new(context: Context, window_bits: u8) -> Self {
        Self { zlib: Compress::new_with_window_bits(Compression::new(6), false, window_bits), context }
    }

    fn deflate(&mut self, message: &[u8]) -> Vec<u8> {
        if self.context == Context::Fresh {
            self.zlib.reset();
        }
        if message.is_empty() {
            return vec![0]; // A second flush in a row writes nothing; RFC 7692 (7.2.3.6) has this for it.
        }
        let mut out = Vec::with_capacity(2 * message.len() + 1000);
        self.zlib.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
        assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
        out
    }
}

#[test]
fn the_examples_of_rfc_7692_say_hello() {
    let hello = |payload: &[u8]| compressed(TEXT, true, payload);
    let one = hello(b"\xf2\x48\xcd\xc9\xc9\x07\x00");
    let fragments =
        [compressed(TEXT, false, b"\xf2\x48\xcd"), plain(CONTINUATION, true, b"\xc9\xc9\x07\x00")];
    let stored = hello(b"\x00\x05\x00\xfa\xffHello\x00");
    let last_block = hello(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00");
    let two_blocks = hello(b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00");
    for context in [Context::Fresh, Context::TakenOver] {
        for stream in [&one, &fragments.concat(), &stored, &last_block, &two_blocks] {
            check(stream, context, &[text("Hello")], None);
        }
    }
    // The second Hello refers to the first; where every message stands by itself it refers to nothing.
    let second = [one, hello(b"\xf2\x00\x11\x00\x00")].concat();
    check(&second, Context::TakenOver, &[text("Hello"), text("Hello")], None);
    check(&second, Context::Fresh, &[text("Hello")], Some(Violation::NotDeflate));
}

#[test]
fn compressed_and_plain_messages_and_control_frames_mingle() {
    let mut client = Client::new(Context::TakenOver, 15);
    let [first, second, third] = ["κόσμε κόσμε", "κόσμε", "κόσμε κόσμε κόσμε"];
    let [one, two, three] = [first, second, third].map(|it| client.deflate(it.as_bytes()));
    let stream = [
        compressed(TEXT, false, &one[..1]),
        plain(PING, true, b"1"),
        plain(CONTINUATION, false, b""),
        plain(CONTINUATION, true, &one[1..]),
        plain(TEXT, true, b"plain"),
        compressed(BINARY, true, &two),
        compressed(TEXT, true, &three),
    ];
    let heard =
        [Heard::Ping(b"1".to_vec()), text(first), text("plain"), Heard::Binary(second.into()), text(third)];
    check(&stream.concat(), Context::TakenOver, &heard, None);
}

#[test]
fn the_empty_message_is_one_block_without_a_payload() {
    check(&compressed(TEXT, true, b"\x00"), Context::Fresh, &[text("")], None);
    check(&compressed(BINARY, true, b"\x02\x00"), Context::Fresh, &[Heard::Binary(vec![])], None);
}

#[test]
fn what_is_not_deflate_is_a_violation() {
    let whole = Client::new(Context::Fresh, 15).deflate(&[b'x'; 300]);
    for payload in [&b""[..], b"\xff\xff\xff", b"\x06", b"\xf2\x48\xcd\xc9", &whole[..whole.len() - 2]] {
        check(&compressed(BINARY, true, payload), Context::Fresh, &[], Some(Violation::NotDeflate));
    }
    // Behind the last block of a stream nothing may be but another one.
    let behind = [&compress_to_vec(b"Hello", 6)[..], b"\xff\xff"].concat();
    check(&compressed(TEXT, true, &behind), Context::Fresh, &[], Some(Violation::NotDeflate));
    let endless = b"\x03\x00".repeat(100);
    check(&compressed(TEXT, true, &endless), Context::Fresh, &[], Some(Violation::NotDeflate));
}

#[test]
fn text_is_utf8_once_inflated() {
    let mut client = Client::new(Context::Fresh, 15);
    let [good, bad] = [&b"\xce\xba"[..], b"ok\xce"].map(|it| client.deflate(it));
    check(&compressed(TEXT, true, &good), Context::Fresh, &[text("κ")], None);
    check(&compressed(TEXT, true, &bad), Context::Fresh, &[], Some(Violation::TextNotUtf8 { at: 2 }));
    check(&compressed(BINARY, true, &bad), Context::Fresh, &[Heard::Binary(b"ok\xce".to_vec())], None);
}

/// A gigabyte in a megabyte is refused when the bound is passed, and never costs more than the bound.
#[test]
fn a_bomb_is_not_unpacked() {
    let bound = 50_000;
    let mut bomb = Vec::with_capacity(2_000_000);
    let mut zlib = Compress::new(Compression::new(9), false);
    for _ in 0..1000 {
        zlib.compress_vec(&[0; 1_000_000], &mut bomb, FlushCompress::None).unwrap();
    }
    zlib.compress_vec(&[], &mut bomb, FlushCompress::Sync).unwrap();
    assert!(bomb.len() > 900_000, "{}", bomb.len());
    let violation = Violation::InflatedTooBig { bytes_max: bound };
    // Announced: refused before a byte of it is kept. In a piece that is small enough: when it passes the bound.
    for size in [bomb.len(), 50_000] {
        let mut read = compressed(BINARY, true, &bomb[..size]);
        let (mut decoder, mut inflater) = (Decoder::inflating(bound as usize), Inflater::default());
        let mut input = Input::inflating(&mut read, &mut inflater, None);
        assert_eq!(decoder.next(&mut input), Err(violation), "{size}");
        assert_eq!(decoder.held_bytes(), 0);
        assert!(inflater.held_bytes() <= bound as usize + 1, "{}", inflater.held_bytes());
    }
}

/// Bytes in which there is nothing to save.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// The bound is on what a message comes to, however well or badly it is compressed.
#[test]
fn the_bound_holds_to_the_byte_once_inflated() {
    let bytes_max = 70_000;
    for make in [noise as fn(usize) -> Vec<u8>, |len| vec![b'a'; len]] {
        for len in [bytes_max - 1, bytes_max, bytes_max + 1] {
            let message = make(len);
            let payload = Client::new(Context::Fresh, 15).deflate(&message);
            let (head, tail) = payload.split_at(payload.len() / 2);
            for stream in [
                compressed(BINARY, true, &payload),
                [compressed(BINARY, false, head), plain(CONTINUATION, true, tail)].concat(),
            ] {
                let expected = if len > bytes_max {
                    let bytes_max = u32::try_from(bytes_max).unwrap();
                    (vec![], Some(Violation::InflatedTooBig { bytes_max }))
                } else {
                    (vec![Heard::Binary(message.clone())], None)
                };
                assert_eq!(hear(&stream, &[stream.len() / 3], bytes_max, Context::Fresh), expected);
            }
        }
    }
    // What is badly compressed beyond measure is refused by its size as it comes.
    let announced = deflated_bytes_max(70_000) as usize + 1;
    let (heard, violation) =
        hear(&compressed(BINARY, true, &vec![0; announced]), &[], 70_000, Context::Fresh);
    assert_eq!((heard.len(), violation), (0, Some(Violation::InflatedTooBig { bytes_max: 70_000 })));
}

#[test]
fn memory_follows_what_was_said_and_ends_at_the_window() {
    let mut window = Window::new(9);
    let shape = Shape { window_bits: 9, level: 1, threshold_bytes: 0 };
    assert_eq!(window.held_bytes(), 0);
    let _ = Frame::text(&"a".repeat(40)).deflated_after(shape, &mut window);
    assert!(window.held_bytes() <= 80, "{}", window.held_bytes());
    for _ in 0..100 {
        let _ = Frame::text(&"ab".repeat(400)).deflated_after(shape, &mut window);
        assert!(window.held_bytes() <= 512, "{}", window.held_bytes());
    }
}

#[test]
fn what_does_not_shrink_goes_as_it_is() {
    let shape = Shape { window_bits: 15, level: 6, threshold_bytes: 100 };
    assert_eq!(Frame::text(&"a".repeat(99)).deflated(shape), None, "below the threshold");
    assert!(Frame::text(&"a".repeat(100)).deflated(shape).is_some());
    assert_eq!(Frame::binary(&noise(1000)).deflated(shape), None);
    assert_eq!(Frame::ping(&[b'a'; 125]).deflated(shape), None, "a control frame");
    assert_eq!(Frame::close(1000, &"a".repeat(120)).deflated(shape), None, "a control frame");
    let once = Frame::text(&"a".repeat(1000)).deflated(shape).unwrap();
    assert_eq!(once.deflated(shape), None, "compressed already");
}

/// What a peer that keeps nothing makes of a frame of ours.
fn inflated(frame: &Frame) -> Vec<u8> {
    decompress_to_vec(&[frame.payload(), b"\x00\x00\xff\xff\x03\x00"].concat()).expect("miniz_oxide reads it")
}

/// Messages that resemble each other, as they do.
fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let words = prop::sample::select(vec![
        "{\"type\":\"message\",",
        "\"channel\":\"room:1\",",
        "\"data\":",
        "17",
        "κόσμε",
        "}",
    ]);
    let wordy = vec(words, 0..60).prop_map(|words| words.concat().into_bytes());
    let long = (1..40_000_usize, "\\PC{1,40}").prop_map(|(len, it)| {
        let repeated = it.repeat(len / it.len() + 1);
        repeated.into_bytes()
    });
    let random = vec(any::<u8>(), 0..600);
    vec(prop_oneof![6 => wordy, 1 => long, 2 => random], 1..12)
}

fn shape() -> impl Strategy<Value = Shape> {
    (9..=15_u8, 1..=9_u8).prop_map(|(window_bits, level)| Shape { window_bits, level, threshold_bytes: 0 })
}

proptest! {
    #[test]
    fn what_we_compress_others_inflate(messages in messages(), shape in shape()) {
        for message in messages {
            let plain = Frame::binary(&message);
            let Some(frame) = plain.deflated(shape) else { continue };
            prop_assert!(frame.len() < plain.len());
            prop_assert_eq!(frame.bytes()[0], 0xc2);
            prop_assert_eq!(inflated(&frame), message);
        }
    }

    /// A peer that keeps one inflater, of no greater window than was agreed, reads all of them.
    #[test]
    fn messages_that_refer_to_each_other_are_read_by_a_peer_that_remembers(messages in messages(), shape in shape()) {
        let mut window = Window::new(shape.window_bits);
        let mut peer = Decompress::new_with_window_bits(false, shape.window_bits);
        for message in messages {
            let Some(frame) = Frame::binary(&message).deflated_after(shape, &mut window) else { continue };
            let stream = [frame.payload(), b"\x00\x00\xff\xff"].concat();
            let mut heard = Vec::with_capacity(message.len() + 100);
            peer.decompress_vec(&stream, &mut heard, FlushDecompress::Sync).unwrap();
            prop_assert_eq!(heard, message);
        }
    }

    /// However messages are compressed, fragmented, mingled with control frames and read, the same is heard.
    #[test]
    fn what_a_compressing_client_says_is_heard_however_it_is_read(
        messages in messages(),
        forms in vec((0..3_u8, vec(any::<Index>(), 0..4), any::<bool>()), 12),
        taken_over in any::<bool>(),
        window_bits in 9..=15_u8,
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let context = if taken_over { Context::TakenOver } else { Context::Fresh };
        let mut client = Client::new(context, window_bits);
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for (message, (form, ends, pings)) in messages.iter().zip(forms) {
            let payload = match form {
                0 => message.clone(),
                1 => client.deflate(message),
                // A stream that has ended, and the end of it once more, as RFC 7692 (7.2.3.4) allows.
                _ if context == Context::Fresh => [&compress_to_vec(message, 6)[..], b"\x00"].concat(),
                _ => client.deflate(message),
            };
            let mut ends: Vec<usize> = ends.iter().map(|end| end.index(payload.len() + 1)).collect();
            ends.sort_unstable();
            ends.push(payload.len());
            let mut start = 0;
            for (at, end) in ends.iter().enumerate() {
                let (is_final, piece) = (at + 1 == ends.len(), &payload[start..*end]);
                stream.extend(match at {
                    0 if form > 0 => compressed(BINARY, is_final, piece),
                    0 => plain(BINARY, is_final, piece),
                    _ => plain(CONTINUATION, is_final, piece),
                });
                if pings {
                    stream.extend(plain(PING, true, b"?"));
                    if !is_final {
                        expected.push(Heard::Ping(b"?".to_vec()));
                    }
                }
                start = *end;
            }
            expected.push(Heard::Binary(message.clone()));
            if pings {
                expected.push(Heard::Ping(b"?".to_vec()));
            }
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let expected = (expected, None);
        prop_assert_eq!(&hear(&stream, &[], BYTES_MAX, context), &expected);
        prop_assert_eq!(&hear(&stream, &cuts, BYTES_MAX, context), &expected);
    }

    /// Whatever bytes come: no panic, and the same verdict however they are read.
    #[test]
    fn damaged_compressed_streams_are_judged_alike_however_they_are_read(
        messages in messages(),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        taken_over in any::<bool>(),
        cuts in vec(any::<Index>(), 0..8),
    ) {
        let context = if taken_over { Context::TakenOver } else { Context::Fresh };
        let mut client = Client::new(context, 15);
        let mut stream = messages.iter().flat_map(|it| compressed(TEXT, true, &client.deflate(it))).collect::<Vec<_>>();
        for (at, byte) in damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(hear(&stream, &cuts, BYTES_MAX, context), hear(&stream, &[], BYTES_MAX, context));
    }
}
