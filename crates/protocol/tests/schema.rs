//! Holds `docs/protocol.md` and `docs/protocol.schema.json` against the transcripts, and both against the code's tables.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fanfare_protocol::close::Reconnect;
use fanfare_protocol::dialect::{Incoming, native};
use fanfare_protocol::error::APPLICATION_NUMBERS;
use fanfare_protocol::limits::Limits;
use fanfare_protocol::{CloseReason, Encoding, ErrorCode};
use jsonschema::Validator;
use serde_json::{Value, json};

/// The bound of a batch by default, which the schema states.
const BATCH_MAX: usize = 128;

/// What the dialect refuses and a schema cannot, since to JSON Schema it is no different from something that is right.
const BEYOND_A_SCHEMA: [&str; 2] = [
    r#"{"type":"ping","type":"ping","id":4}"#, // A field twice: parsers keep the last.
    r#"{"type":"ping","id":1.0}"#,             // An integer to JSON Schema.
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn schema() -> Value {
    serde_json::from_str(&read("docs/protocol.schema.json")).unwrap()
}

fn validator(definition: &str) -> Validator {
    let mut schema = schema();
    schema.as_object_mut().unwrap().remove("anyOf");
    schema["$ref"] = json!(format!("#/$defs/{definition}"));
    jsonschema::draft202012::new(&schema).unwrap()
}

fn transcripts() -> Vec<String> {
    let folder = root().join("crates/protocol/src/dialect/native/transcripts");
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// The text that one side sends, over all transcripts.
fn spoken(mark: &str) -> Vec<String> {
    let transcripts = transcripts();
    let lines = transcripts.iter().flat_map(|transcript| transcript.lines());
    lines.filter_map(|line| line.strip_prefix(mark)).map(str::to_owned).collect()
}

/// Whether the dialect understands all of a message.
fn is_understood(text: &str) -> bool {
    let mut is_understood = true;
    let dialect = Encoding::NativeJson.dialect();
    dialect
        .decode(Incoming::Text(text), BATCH_MAX, &mut |command| is_understood &= command.is_ok())
        .expect("text has a place in this dialect");
    is_understood
}

/// The kinds that the schema knows of one side, each with its fields.
fn kinds(side: &str) -> BTreeMap<String, BTreeSet<String>> {
    let schema = schema();
    let names = schema["$defs"][side]["oneOf"].as_array().unwrap();
    let names = names.iter().map(|it| it["$ref"].as_str().unwrap().rsplit_once('/').unwrap().1);
    names
        .map(|name| {
            let properties = &schema["$defs"][name]["properties"];
            // A command and its answer may have one type; then the event's definition says what it is.
            let kind = properties["type"]["const"].as_str().unwrap();
            assert!(name == kind || name == format!("{kind}_answer"), "{name} is not named for its type");
            (kind.to_owned(), properties.as_object().unwrap().keys().cloned().collect())
        })
        .collect()
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_schema_takes_what_the_dialect_takes_and_nothing_else() {
    let validator = validator("client_message");
    let spoken = spoken("> ");
    assert!(spoken.len() > 100, "{} lines", spoken.len());
    for text in &spoken {
        let takes = serde_json::from_str(text).is_ok_and(|value: Value| validator.is_valid(&value));
        let is_beyond = BEYOND_A_SCHEMA.contains(&text.as_str());
        assert_eq!(takes, is_understood(text) || is_beyond, "{text}");
    }
    for text in BEYOND_A_SCHEMA {
        assert!(spoken.iter().any(|it| it == text) && !is_understood(text), "no exception: {text}");
    }
}

#[test]
fn a_batch_has_one_bound_in_schema_and_limits() {
    assert_eq!(Limits::default().batch, BATCH_MAX);
    let validator = validator("client_message");
    for (commands, is_valid) in [(0, false), (1, true), (BATCH_MAX, true), (BATCH_MAX + 1, false)] {
        let batch = Value::Array(vec![json!({"type": "ping"}); commands]);
        assert_eq!(validator.is_valid(&batch), is_valid, "{commands}");
        assert_eq!(is_understood(&batch.to_string()), is_valid, "{commands}");
    }
}

#[test]
fn every_event_is_as_the_schema_has_it() {
    let validator = validator("server_event");
    let kinds = kinds("server_event");
    for text in spoken("< ") {
        let event = parse(&text);
        let wrong: Vec<_> = validator.iter_errors(&event).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{text}\n{wrong:#?}");
        let fields = &kinds[event["type"].as_str().unwrap()];
        for field in event.as_object().unwrap().keys() {
            assert!(fields.contains(field), "`{field}` is not in the schema: {text}");
        }
    }
}

#[test]
fn what_is_no_event_is_refused() {
    let validator = validator("server_event");
    for event in [
        json!({"type": "shout"}),
        json!({"type": "pong"}),
        json!({"type": "pong", "time": "noon"}),
        json!({"type": "pong", "time": 1, "id": null}),
        json!({"type": "message", "channel": "room 1", "data": 1}),
        json!({"type": "message", "channel": "room:1"}),
        json!({"type": "message", "channel": "room:1", "data": 1, "recovered": true}),
        json!({"type": "message", "channel": "room:1", "data": 1, "offset": 1, "recovered": false}),
        json!({"type": "message", "channel": "room:1", "data": 1, "conflated": 0}),
        json!({"type": "subscribed", "channel": "room:1", "recovered": true}),
        json!({"type": "subscribed", "channel": "room:1", "epoch": "9f3c1a7b5e0d4520", "offset": 1}),
        json!({"type": "subscribed", "channel": "room:1", "epoch": "zk3q", "offset": 1, "recovered": true}),
        json!({"type": "published", "channel": "room:1", "offset": 1}),
        json!({"type": "unsubscribed", "channel": "room:1", "code": 4409, "reason": "conflict"}),
        json!({"type": "unsubscribed", "channel": "room:1", "code": 4410, "reason": "not_found"}),
        json!({"type": "unsubscribed", "channel": "room:1", "code": 4410}),
        json!({"type": "unsubscribed", "channel": "room:1", "code": 4410, "reason": "gap", "id": 1}),
        json!({"type": "history", "channel": "room:1", "epoch": "9f3c1a7b5e0d4520", "offset": 1}),
        json!({"type": "history", "channel": "room:1"}),
        json!({"type": "error", "code": 4404, "reason": "conflict", "message": "another code's word"}),
        json!({"type": "error", "code": 4508, "reason": "slow_consumer", "message": "only ever closes"}),
        json!({"type": "closing", "code": 4409, "reason": "conflict", "message": "", "reconnect": true, "after": 0}),
        json!({"type": "closing", "code": 1001, "reason": "going_away", "message": "no advice"}),
        json!([{"type": "pong", "time": 1}]),
    ] {
        assert!(!validator.is_valid(&event), "{event}");
    }
}

#[test]
fn every_kind_occurs_in_a_transcript() {
    let heard = |events: Vec<Value>| -> BTreeSet<String> {
        let each = |value: Value| value.as_array().cloned().unwrap_or_else(|| vec![value]);
        events.into_iter().flat_map(each).map(|it| it["type"].as_str().unwrap().to_owned()).collect()
    };
    let commands = spoken("> ").iter().filter(|text| is_understood(text)).map(|it| parse(it)).collect();
    let events = spoken("< ").iter().map(|it| parse(it)).collect();
    assert_eq!(heard(commands), kinds("client_command").into_keys().collect());
    assert_eq!(heard(events), kinds("server_event").into_keys().collect());
}

/// All but the closes that need a state of the node that no transcript can bring about.
#[test]
fn every_code_that_can_be_met_occurs_in_a_transcript() {
    let events: Vec<_> = spoken("< ").iter().map(|it| parse(it)).collect();
    let codes = |kind: &str| -> BTreeSet<_> {
        events.iter().filter(|it| it["type"] == kind).map(|it| it["code"].as_u64().unwrap()).collect()
    };
    let errors: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| u64::from(code.number())).collect();
    let own = |code: &u64| !APPLICATION_NUMBERS.contains(&u16::try_from(*code).unwrap());
    let met: BTreeSet<_> = codes("error").into_iter().filter(own).collect();
    assert_eq!(met, errors);
    let closes: BTreeSet<_> = CloseReason::ALL.iter().map(|reason| u64::from(reason.number())).collect();
    assert_eq!(codes("closing"), &closes - &BTreeSet::from([1000, 1011]));
}

/// The numbers and words of all errors, once each: some codes share theirs.
fn errors() -> Vec<(u16, String)> {
    let mut all = ErrorCode::ALL.map(|code| (code.number(), code.slug().to_owned())).to_vec();
    all.dedup();
    all
}

/// The same of all closes.
fn closes() -> Vec<(u16, String)> {
    let mut all = CloseReason::ALL.map(|reason| (reason.number(), reason.slug().to_owned())).to_vec();
    all.dedup();
    all
}

#[test]
fn the_schema_has_the_codes_of_the_code() {
    let listed = |definition: &str| -> Vec<(u64, String)> {
        let schema = schema();
        let rows = schema["$defs"][definition]["oneOf"].as_array().unwrap();
        let row = |row: &Value| {
            let constant = |field: &str| row["properties"][field]["const"].clone();
            (constant("code").as_u64().unwrap(), constant("reason").as_str().unwrap().to_owned())
        };
        rows.iter().map(row).collect()
    };
    let wide = |(number, slug)| (u64::from(number), slug);
    assert_eq!(listed("error_code"), errors().into_iter().map(wide).collect::<Vec<_>>());
    assert_eq!(listed("close_code"), closes().into_iter().map(wide).collect::<Vec<_>>());
}

#[test]
fn the_specification_has_the_codes_of_the_code() {
    let specification = read("docs/protocol.md");
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let lines = specification.lines().filter(|line| line.starts_with('|'));
    let rows: Vec<_> =
        lines.map(cells).filter(|row| row.len() == 5 && row[0].parse::<u16>().is_ok()).collect();
    let number_and_slug =
        |row: &Vec<String>| (row[0].parse::<u16>().unwrap(), row[1].trim_matches('`').to_owned());

    let named: Vec<_> = rows.iter().filter(|row| !row[2].is_empty()).map(number_and_slug).collect();
    assert_eq!(named, errors());
    let closing: Vec<_> = rows.iter().filter(|row| !row[3].is_empty()).collect();
    let named: Vec<_> = closing.iter().map(|row| number_and_slug(row)).collect();
    assert_eq!(named, closes());
    for row in closing {
        let reason = CloseReason::from_number(row[0].parse().unwrap()).unwrap();
        let advice = match reason.reconnect() {
            Reconnect::No => "no",
            Reconnect::Yes => "yes",
            Reconnect::WithNewToken => "with a new token",
        };
        assert_eq!(row[4], advice, "{}", row[0]);
    }
}

#[test]
fn the_specification_has_a_row_for_every_kind() {
    let specification = read("docs/protocol.md");
    let (_, tables) = specification.split_once("### Commands of the client\n").unwrap();
    let (commands, events) = tables.split_once("### Events of the server\n").unwrap();
    let has_row = |table: &str, name: &str| table.contains(&format!("\n| `{name}` |"));
    for name in kinds("client_command").into_keys() {
        assert!(has_row(commands, &name), "no row for the command `{name}`");
    }
    for name in kinds("server_event").into_keys() {
        assert!(has_row(events, &name), "no row for the event `{name}`");
    }
}

#[test]
fn the_examples_are_cut_from_transcripts() {
    let specification = read("docs/protocol.md");
    let transcripts = transcripts();
    let mut examples = 0;
    for block in specification.split("```transcript\n").skip(1) {
        let (example, _) = block.split_once("```").unwrap();
        assert!(transcripts.iter().any(|it| it.contains(example)), "in no transcript:\n{example}");
        examples += 1;
    }
    assert!(examples >= 9, "{examples} examples");
}

/// What the page shows of the server API is what the document of the API says, and the page has a row for each method.
#[test]
fn the_calls_of_the_server_api_are_calls() {
    let (page, openapi) = (read("docs/server-api.md"), parse(&read("docs/openapi.json")));
    let within = |schema: &Value| {
        let schema = json!({"allOf": [schema], "components": openapi["components"]});
        jsonschema::validator_for(&schema).expect("a schema")
    };
    let (_, calls) = page.split_once("```calls\n").unwrap();
    let (calls, _) = calls.split_once("```").unwrap();
    let (mut methods, mut last) = (BTreeSet::new(), "");
    for line in calls.lines() {
        let content = |part: &'static str| {
            let post = &openapi["paths"][format!("/api/{last}")]["post"];
            post.pointer(part).unwrap_or_else(|| panic!("{last} has no {part}")).clone()
        };
        if let Some((method, body)) = line.strip_prefix("> ").and_then(|call| call.split_once(' ')) {
            native::api::decode_all(method, body.as_bytes())
                .unwrap_or_else(|failure| panic!("{line}: {failure:?}"));
            assert!(page.contains(&format!("\n| `{method}` |")), "no row for {method}");
            methods.insert(method);
            last = method;
            let schema = openapi["paths"][format!("/api/{method}")]["post"]
                .pointer("/requestBody/content/application~1json/schema")
                .unwrap_or_else(|| panic!("{method} is not in the document"));
            assert!(within(schema).is_valid(&parse(body)), "{line}");
        } else {
            let answer = parse(line.strip_prefix("< ").unwrap());
            let good = content("/responses/200/content/application~1json/schema");
            let bad = content("/responses/400/content/application~1json/schema");
            assert!(within(&good).is_valid(&answer) || within(&bad).is_valid(&answer), "{line}");
        }
    }
    assert_eq!(methods.len(), 10, "{methods:?}");
}

#[test]
fn every_method_of_the_document_has_a_row() {
    let (page, openapi) = (read("docs/server-api.md"), parse(&read("docs/openapi.json")));
    let paths = openapi["paths"].as_object().unwrap();
    assert!(paths.len() >= 13, "{} paths", paths.len());
    for path in paths.keys() {
        let method = path.strip_prefix("/api/").unwrap();
        assert!(page.contains(&format!("\n| `{method}` |")), "no row for {method}");
    }
}
