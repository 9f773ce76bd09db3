//! `Sec-WebSocket-Extensions`: whatever is offered, what is answered is something that the client may be answered.

#![no_main]

use fanfare_protocol::websocket::{Context, Shape, Willingness, agree};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for (window_bits, context) in [(15, Context::Fresh), (15, Context::TakenOver), (10, Context::TakenOver)] {
        let willingness = Willingness { shape: Shape { window_bits, level: 1, threshold_bytes: 0 }, context };
        let Ok(Some(agreement)) = agree(text.split('\n'), Some(&willingness)) else { continue };
        assert!(agreement.shape.window_bits <= window_bits);
        assert!((8..=15).contains(&agreement.client_window_bits()));
        if context == Context::Fresh {
            assert_eq!((agreement.server, agreement.client), (Context::Fresh, Context::Fresh));
        }
        // RFC 7692, 7.1.2.2: a client that has not said that it can is not told a window of its own.
        let answer = agreement.answer();
        let offers_window = text.to_ascii_lowercase().contains("client_max_window_bits");
        assert!(offers_window || !answer.contains("client_max_window_bits"), "{answer}");
        // What we answer is in the grammar that we read, and is a thing that we would agree to.
        let again = agree([answer.as_str()], Some(&willingness)).expect("our own answer is in the grammar");
        assert!(again.is_some(), "{answer}");
    }
    let none = agree(text.split('\n'), None);
    assert!(!matches!(none, Ok(Some(_))), "who is not willing agrees to nothing");
});
