//! JSON values as MessagePack and back, for clients that say the same in either.

use rmpv::Value as Packed;
use serde_json::Value;

/// The bytes of a value.
pub(super) fn pack(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &packed(value)).expect("memory takes every write");
    bytes
}

/// The one value that the bytes are.
///
/// # Panics
/// When they are not MessagePack, or JSON has no word for it.
pub(super) fn unpack(mut bytes: &[u8]) -> Value {
    let value = rmpv::decode::read_value(&mut bytes).expect("an event is MessagePack");
    assert!(bytes.is_empty(), "an event is one value");
    unpacked(value)
}

fn packed(value: &Value) -> Packed {
    match value {
        Value::Null => Packed::Nil,
        Value::Bool(it) => (*it).into(),
        Value::Number(it) => match (it.as_u64(), it.as_i64()) {
            (Some(it), _) => it.into(),
            (None, Some(it)) => it.into(),
            (None, None) => it.as_f64().expect("a number").into(),
        },
        Value::String(it) => it.as_str().into(),
        Value::Array(them) => Packed::Array(them.iter().map(packed).collect()),
        Value::Object(fields) => {
            Packed::Map(fields.iter().map(|(name, value)| (name.as_str().into(), packed(value))).collect())
        }
    }
}

fn unpacked(value: Packed) -> Value {
    match value {
        Packed::Nil => Value::Null,
        Packed::Boolean(it) => it.into(),
        Packed::Integer(it) if it.is_u64() => it.as_u64().into(),
        Packed::Integer(it) => it.as_i64().into(),
        Packed::F32(it) => it.into(),
        Packed::F64(it) => it.into(),
        Packed::String(it) => it.into_str().expect("UTF-8").into(),
        Packed::Array(them) => them.into_iter().map(unpacked).collect(),
        Packed::Map(fields) => {
            let name = |name: Packed| name.as_str().expect("a field has a name").to_owned();
            fields.into_iter().map(|(key, value)| (name(key), unpacked(value))).collect()
        }
        Packed::Binary(_) | Packed::Ext(..) => panic!("JSON has no word for {value}"),
    }
}
