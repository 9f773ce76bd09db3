use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::*;

/// Version 2 with this command, family and rest.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

fn client(text: &str) -> Result<Introduction, Malformed> {
    Ok(Introduction::Client(text.parse().unwrap()))
}

/// What is made of a header that comes byte by byte, with more behind it; how many bytes were taken.
fn outcome(header: &[u8]) -> (Result<Introduction, Malformed>, usize) {
    let mut taken = 0;
    loop {
        match parse(&header[..taken]) {
            Ok(Progress::Whole(introduction)) => return (Ok(introduction), taken),
            Err(malformed) => return (Err(malformed), taken),
            Ok(Progress::Wants(wants)) => {
                assert!(wants > 0 && taken + wants <= HEADER_BYTES, "{wants} after {taken}");
                if taken == header.len() {
                    return (Err(Malformed), taken); // It goes on to want more than there is.
                }
                taken += 1;
            }
        }
    }
}

#[test]
fn a_line_names_the_client() {
    for (line, expected) in [
        ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n", client("203.0.113.7")),
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", client("0.0.0.0")),
        ("PROXY TCP6 2001:db8::7 ::1 65535 1\r\n", client("2001:db8::7")),
        ("PROXY TCP6 :: :: 0 0\r\n", client("::")),
        ("PROXY TCP6 ::ffff:203.0.113.7 ::1 1 1\r\n", client("203.0.113.7")),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n",
            client("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ),
        ("PROXY UNKNOWN\r\n", Ok(Introduction::Itself)),
        ("PROXY UNKNOWN whatever it says\r\n", Ok(Introduction::Itself)),
        ("PROXY TCP4 203.0.113.7 192.0.2.1 56324\r\n", Err(Malformed)),
        ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443 1\r\n", Err(Malformed)),
        ("PROXY TCP4  203.0.113.7 192.0.2.1 56324 443\r\n", Err(Malformed)),
        ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 65536\r\n", Err(Malformed)),
        ("PROXY TCP4 203.0.113.7 192.0.2.1 +1 443\r\n", Err(Malformed)),
        ("PROXY TCP4 203.0.113.7 192.0.2.1 01 443\r\n", Err(Malformed)),
        ("PROXY TCP4 2001:db8::7 ::1 1 1\r\n", Err(Malformed)),
        ("PROXY TCP6 203.0.113.7 192.0.2.1 1 1\r\n", Err(Malformed)),
        ("PROXY TCP4 203.0.113.7 nowhere 1 1\r\n", Err(Malformed)),
        ("PROXY UDP4 203.0.113.7 192.0.2.1 1 1\r\n", Err(Malformed)),
        ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\n", Err(Malformed)),
        ("PROXY \r\n", Err(Malformed)),
        ("proxy TCP4 203.0.113.7 192.0.2.1 56324 443\r\n", Err(Malformed)),
        ("GET / HTTP/1.1\r\n", Err(Malformed)),
    ] {
        let (found, taken) = outcome(format!("{line}GET / HTTP/1.1\r\n").as_bytes());
        assert_eq!(found, expected, "{line:?}");
        assert!(taken <= line.len(), "{line:?}: {taken}");
        assert!(expected.is_err() || taken == line.len(), "{line:?}: {taken}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES - 16));
    assert_eq!(outcome(long.as_bytes()).0, Ok(Introduction::Itself));
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES - 15));
    assert_eq!(outcome(longer.as_bytes()).0, Err(Malformed));
}

#[test]
fn a_binary_header_names_the_client_and_its_additions_are_skipped() {
    let four = [203, 0, 113, 7, 192, 0, 2, 1, 0xdc, 4, 1, 0xbb];
    let v6: Ipv6Addr = "2001:db8::7".parse().unwrap();
    let six = [&v6.octets()[..], &[0; 20]].concat();
    let additions = [4_u8, 0, 3, 1, 2, 3];
    for (header, expected) in [
        (binary(0x21, 0x11, &four), client("203.0.113.7")),
        (binary(0x21, 0x11, &[&four[..], &additions].concat()), client("203.0.113.7")),
        (binary(0x21, 0x21, &six), client("2001:db8::7")),
        (binary(0x21, 0x21, &[&six[..], &[9; 4000]].concat()), client("2001:db8::7")),
        (binary(0x20, 0x00, &[]), Ok(Introduction::Itself)),
        (binary(0x20, 0x11, &four), Ok(Introduction::Itself)),
        (binary(0x21, 0x00, &additions), Ok(Introduction::Itself)),
        (binary(0x21, 0x31, &[b'/'; 216]), Ok(Introduction::Itself)),
        // Too short for its addresses, over UDP, of an unknown family, command or version, too long.
        (binary(0x21, 0x11, &four[..11]), Err(Malformed)),
        (binary(0x21, 0x21, &six[..35]), Err(Malformed)),
        (binary(0x21, 0x12, &four), Err(Malformed)),
        (binary(0x21, 0x41, &six), Err(Malformed)),
        (binary(0x22, 0x11, &four), Err(Malformed)),
        (binary(0x11, 0x11, &four), Err(Malformed)),
        (binary(0x31, 0x11, &four), Err(Malformed)),
        (binary(0x20, 0x00, &[0; HEADER_BYTES - 15]), Err(Malformed)),
    ] {
        let (found, taken) = outcome(&[&header[..], b"more"].concat());
        assert_eq!(found, expected, "{header:?}");
        assert!(expected.is_err() || taken == header.len(), "{header:?}: {taken}");
    }
}

#[tokio::test]
async fn nothing_behind_the_header_is_read() {
    for header in [
        &b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n"[..],
        &binary(0x21, 0x11, &[203, 0, 113, 7, 192, 0, 2, 1, 0, 1, 0, 2]),
    ] {
        let (mut far, mut near) = tokio::io::duplex(1024);
        far.write_all(&[header, b"rest"].concat()).await.unwrap();
        drop(far);
        assert_eq!(read(&mut near).await.ok(), client("203.0.113.7").ok());
        let mut rest = String::new();
        near.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "rest");
    }
    let (mut far, mut near) = tokio::io::duplex(1024);
    far.write_all(b"PROXY TCP4 203.0").await.unwrap();
    drop(far);
    assert_eq!(read(&mut near).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

proptest! {
    /// Any bytes come to an end, within the bounds, and what is asked for is never beyond the header.
    #[test]
    fn any_bytes_are_read_within_the_bounds(
        prefix in prop::sample::select(vec![&b""[..], SIGNATURE, b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 "]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let header = [prefix, &bytes].concat();
        let (_, taken) = outcome(&header);
        prop_assert!(taken <= HEADER_BYTES);
    }

    #[test]
    fn every_client_of_a_good_header_is_found(v4: [u8; 4], v6: [u8; 16], additions in prop::collection::vec(any::<u8>(), 0..64), port: u16) {
        let (four, six) = (Ipv4Addr::from(v4), Ipv6Addr::from(v6));
        let line = format!("PROXY TCP6 {six} ::1 {port} 1\r\n");
        prop_assert_eq!(outcome(line.as_bytes()), (Ok(Introduction::Client(IpAddr::V6(six).to_canonical())), line.len()));
        let header = binary(0x21, 0x11, &[&v4[..], &[0; 8], &additions].concat());
        prop_assert_eq!(outcome(&header), (Ok(Introduction::Client(four.into())), header.len()));
    }
}
