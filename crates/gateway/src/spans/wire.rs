//! Spans as OTLP spells them: `ExportTraceServiceRequest`, in Protobuf.
//!
//! By hand, since it is this much: messages of four kinds, none of which is read. A test holds it against the official definitions.

use fanfare_protocol::time::UnixMicros;

use super::{Span, Value};

/// How a field is laid out.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;

/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;

/// A request that tells of a node's spans.
pub(super) fn request(node: &str, spans: &[Span]) -> Vec<u8> {
    let mut resource = Vec::new();
    let version = env!("CARGO_PKG_VERSION");
    for (name, value) in
        [("service.name", "fanfare"), ("service.version", version), ("service.instance.id", node)]
    {
        message(&mut resource, 1, &attribute(name, &Value::Text(value.into())));
    }
    let mut scope = Vec::new();
    bytes(&mut scope, 1, b"fanfare");
    bytes(&mut scope, 2, version.as_bytes());
    let mut of_scope = Vec::new();
    message(&mut of_scope, 1, &scope);
    spans.iter().for_each(|it| message(&mut of_scope, 2, &span(it)));
    let mut of_resource = Vec::new();
    message(&mut of_resource, 1, &resource);
    message(&mut of_resource, 2, &of_scope);
    let mut whole = Vec::new();
    message(&mut whole, 1, &of_resource);
    whole
}

fn span(span: &Span) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    bytes(&mut out, 1, &span.context.trace.number().to_be_bytes());
    bytes(&mut out, 2, &span.context.span.number().to_be_bytes());
    if let Some(parent) = span.parent {
        bytes(&mut out, 4, &parent.number().to_be_bytes());
    }
    bytes(&mut out, 5, span.name.as_bytes());
    number(&mut out, 6, span.kind as u64);
    nanos(&mut out, 7, span.began);
    nanos(&mut out, 8, span.ended.max(span.began));
    span.facts.iter().for_each(|(name, value)| message(&mut out, 9, &attribute(name, value)));
    if let Some(error) = &span.error {
        let mut status = Vec::new();
        bytes(&mut status, 2, error.as_bytes());
        number(&mut status, 3, ERROR);
        message(&mut out, 15, &status);
    }
    out
}

fn attribute(name: &str, value: &Value) -> Vec<u8> {
    let (mut any, mut out) = (Vec::new(), Vec::new());
    match value {
        Value::Text(text) => bytes(&mut any, 1, text.as_bytes()),
        Value::Number(value) => number(&mut any, 3, value.cast_unsigned()),
    }
    bytes(&mut out, 1, name.as_bytes());
    message(&mut out, 2, &any);
    out
}

fn message(out: &mut Vec<u8>, field: u8, message: &[u8]) {
    bytes(out, field, message);
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push((field << 3) | BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push((field << 3) | VARINT);
    varint(out, value);
}

fn nanos(out: &mut Vec<u8>, field: u8, at: UnixMicros) {
    out.push((field << 3) | FIXED64);
    out.extend_from_slice(&at.0.saturating_mul(1000).to_le_bytes());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(((value & 0x7f) as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
