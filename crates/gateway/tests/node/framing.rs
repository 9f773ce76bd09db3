//! Frames against the rules end the connection with the code that says which rule; frames within them do not.

use fanfare_testbed::RawPeer;
use fanfare_testbed::raw_peer::{frame, opcode};

use crate::support::{closed_with, counted, node};

const FIN: u8 = 0x80;

#[tokio::test]
async fn a_violation_is_answered_with_its_code_and_the_end() {
    let node = node("[limits]\nmessage_bytes = 1024").await;
    let unmasked = vec![FIN | opcode::TEXT, 2, b'{', b'}'];
    let fragments = [frame(opcode::TEXT, &[b' '; 600]), frame(FIN, &[b' '; 600])].concat();
    let violations = [
        ("a message over the bound", 1009, frame(FIN | opcode::TEXT, &[b' '; 1025])),
        ("fragments over the bound", 1009, fragments),
        (
            "a length that no memory holds",
            1009,
            [&[FIN | opcode::TEXT, 0xff, 0x7f][..], &[0xff; 7], &[0; 4]].concat(),
        ),
        ("text that is not UTF-8", 1007, frame(FIN | opcode::TEXT, b"\"\xc3\x28\"")),
        ("binary", 1003, frame(FIN | opcode::BINARY, b"{}")),
        ("an unmasked frame", 1002, unmasked),
        ("a reserved bit", 1002, frame(FIN | 0x40 | opcode::TEXT, b"{}")),
        ("a reserved op code", 1002, frame(FIN | 3, b"")),
        ("a fragmented ping", 1002, frame(opcode::PING, b"")),
        ("a ping of 126 bytes", 1002, frame(FIN | opcode::PING, &[0; 126])),
        ("a continuation of nothing", 1002, frame(FIN, b"{}")),
        (
            "a close with a code that must not be sent",
            1002,
            frame(FIN | opcode::CLOSE, &1005_u16.to_be_bytes()),
        ),
        ("a close of one byte", 1002, frame(FIN | opcode::CLOSE, &[3])),
    ];
    for (what, code, bytes) in &violations {
        let mut peer = RawPeer::connect(node.public_addr()).await;
        peer.send_bytes(bytes).await;
        let (before, closed) = peer.until_close().await;
        assert_eq!(closed, Some(*code), "{what}");
        let [(opcode::TEXT, closing)] = &before[..] else { panic!("{what}: heard {before:?}") };
        let closing: serde_json::Value = serde_json::from_slice(closing).unwrap();
        assert_eq!((&closing["type"], &closing["code"]), (&"closing".into(), &(*code).into()), "{what}");
        peer.send(opcode::CLOSE, &code.to_be_bytes()).await;
        assert!(peer.ends().await, "{what}");
    }
    for code in [1002, 1003, 1007, 1009] {
        let count = violations.iter().filter(|(_, it, _)| *it == code).count();
        counted(&node, &closed_with(code), f64::from(u32::try_from(count).unwrap())).await;
    }
    counted(&node, "fanfare_connections", 0.0).await;
}

#[tokio::test]
async fn what_is_just_within_the_rules_is_served() {
    let node = node("[limits]\nmessage_bytes = 1024").await;
    let mut peer = RawPeer::connect(node.public_addr()).await;

    // A message of exactly the bound, and one in fragments with a ping between them.
    peer.send_text(&format!("{:<1024}", r#"{"type":"ping","id":1}"#)).await;
    peer.send_bytes(&frame(opcode::TEXT, br#"{"type":"#)).await;
    peer.send(opcode::PING, b"there?").await;
    peer.send_bytes(&frame(0, b"")).await;
    peer.send_bytes(&frame(FIN, "\"unsubscribe\",\"id\":\"é\",\"channel\":\"a\"}".as_bytes())).await;

    let (_, first) = peer.frame().await.unwrap();
    assert!(first.starts_with(br#"{"type":"pong","id":1"#), "{}", String::from_utf8_lossy(&first));
    assert_eq!(peer.frame().await, Some((opcode::PONG, b"there?".to_vec())));
    let (_, last) = peer.frame().await.unwrap();
    assert!(
        last.starts_with("{\"type\":\"error\",\"id\":\"é\"".as_bytes()),
        "{}",
        String::from_utf8_lossy(&last)
    );
}

/// However TCP cuts a stream of frames, the same is understood.
#[tokio::test]
async fn frames_may_arrive_byte_by_byte() {
    let node = node("[namespaces.room]\n").await;
    let mut peer = RawPeer::connect(node.public_addr()).await;
    let bytes = frame(FIN | opcode::TEXT, br#"{"type":"subscribe","id":1,"channel":"room:1"}"#);
    for byte in bytes {
        peer.send_bytes(&[byte]).await;
    }
    let (_, answer) = peer.frame().await.unwrap();
    assert_eq!(answer, br#"{"type":"subscribed","id":1,"channel":"room:1"}"#);
}
