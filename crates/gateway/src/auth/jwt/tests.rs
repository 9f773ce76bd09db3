//! Every algorithm against every way in which a token can be wrong, signed by an implementation that shares nothing with
//! ours (`make_vectors.py`), and the examples of the RFCs.

use std::sync::Arc;
use std::time::Duration;

use fanfare_metrics::Metrics;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::auth::keys::{Key, PublicKey, PublicKeyError};
use crate::outgoing::Dialer;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

/// The key that a row's token is held against.
fn key<'a>(vectors: &'a Value, row: &Value) -> &'a str {
    vectors["trusted"][row["algorithm"].as_str().unwrap()].as_str().unwrap()
}

fn verifier(key: &str) -> Verifier {
    let is_public = key.starts_with("-----BEGIN");
    verifier_of(config::Issuer {
        hmac_secrets: if is_public { Vec::new() } else { vec![Secret::new(key)] },
        public_keys: if is_public { vec![PublicKey::from_pem(key).unwrap()] } else { Vec::new() },
        name: Some("issuer".into()),
        audience: Some("fanfare".into()),
        ..nobody()
    })
}

/// An issuer without keys, whose tokens may say what they like.
fn nobody() -> config::Issuer {
    config::Issuer {
        table: "auth.jwt".into(),
        hmac_secrets: Vec::new(),
        public_keys: Vec::new(),
        jwks_url: None,
        name: None,
        audience: None,
    }
}

fn verifier_of(issuer: config::Issuer) -> Verifier {
    let fetching = config::KeyFetching { max_age: Duration::ZERO, cool_down: Duration::ZERO };
    let jwt = config::Jwt { issuers: vec![issuer], leeway: Duration::ZERO, fetching };
    let (tasks, metrics) = (TaskTracker::new(), Arc::new(Metrics::new()));
    let dialer = Dialer::new(&config::Authorities::default(), tasks.clone(), metrics.clone());
    let means = Means { dialer: &dialer, tasks: &tasks, metrics: &metrics, stop: &CancellationToken::new() };
    Verifier::new(&jwt, None, &means)
}

fn judged(verifier: &Verifier, token: &str, now: UnixMicros) -> Option<String> {
    let doubt = verifier.verify(&Token::new(token), now).err()?;
    let Doubt::Fault(fault) = doubt else { panic!("its key is at hand: {doubt:?}") };
    Some(format!("{fault:?}"))
}

fn now(vectors: &Value) -> UnixMicros {
    UnixMicros(vectors["now"].as_u64().unwrap() * 1_000_000)
}

#[test]
fn every_algorithm_takes_good_tokens_and_no_others() {
    let vectors = vectors();
    let rows = vectors["matrix"].as_array().unwrap();
    for row in rows {
        let text = |field: &str| row[field].as_str();
        let fault = judged(&verifier(key(&vectors, row)), text("token").unwrap(), now(&vectors));
        assert_eq!(fault.as_deref(), text("fault"), "{} {}", row["algorithm"], row["case"]);
    }
}

/// No algorithm is spared any way of being wrong. Confused is a token whose header says another algorithm than the key is for.
#[test]
fn the_matrix_has_no_holes() {
    let vectors = vectors();
    let rows = vectors["matrix"].as_array().unwrap();
    let names: Vec<_> = vectors["trusted"].as_object().unwrap().keys().collect();
    assert!(Algorithm::ALL.iter().all(|it| names.iter().any(|name| Algorithm::parse(name) == Some(*it))));
    for name in names {
        let has = |case: &str| {
            rows.iter()
                .any(|row| row["algorithm"] == **name && row["case"].as_str().unwrap().starts_with(case))
        };
        for case in ["valid", "expired", "not yet", "wrong key", "wrong audience", "tampered", "none"] {
            assert!(has(case), "{name}: {case}");
        }
        assert!(has("public key as the secret") || has("signed with"), "{name}: confused");
    }
}

/// A token that is good for one key, before a node that trusts all the others: it is none of theirs.
#[test]
fn a_key_takes_no_token_of_another() {
    let vectors = vectors();
    let rows: Vec<_> =
        vectors["matrix"].as_array().unwrap().iter().filter(|row| row["case"] == "valid").collect();
    for token in &rows {
        for other in rows.iter().filter(|row| key(&vectors, row) != key(&vectors, token)) {
            let verifier = verifier(key(&vectors, other));
            let fault = judged(&verifier, token["token"].as_str().unwrap(), now(&vectors));
            assert_eq!(
                fault.as_deref(),
                Some("Algorithm"),
                "{} by {}",
                token["algorithm"],
                other["algorithm"]
            );
        }
    }
}

/// While keys are exchanged, those before are good too.
#[test]
fn the_previous_key_is_good_beside_the_one_in_force() {
    let vectors = vectors();
    let rows = vectors["matrix"].as_array().unwrap();
    let of = |case: &str| rows.iter().find(|row| row["algorithm"] == "HS256" && row["case"] == case);
    let (valid, foreign) = (of("valid").unwrap(), of("wrong key").unwrap());
    let mut issuer = config::Issuer {
        hmac_secrets: vec![Secret::new("another secret of thirty-two bytes, and more")],
        ..nobody()
    };
    let token = |row: &Value| row["token"].as_str().unwrap().to_owned();
    let verifier = verifier_of(issuer.clone());
    assert_eq!(judged(&verifier, &token(foreign), now(&vectors)), None);
    assert_eq!(judged(&verifier, &token(valid), now(&vectors)).as_deref(), Some("Signature"));
    issuer.hmac_secrets.push(Secret::new(key(&vectors, valid)));
    let verifier = verifier_of(issuer);
    for row in [valid, foreign] {
        assert_eq!(judged(&verifier, &token(row), now(&vectors)), None);
    }
}

#[test]
fn what_is_not_the_compact_form_is_refused_before_any_key_is_asked() {
    let vectors = vectors();
    let row = &vectors["matrix"][0];
    let (verifier, good) = (verifier(key(&vectors, row)), row["token"].as_str().unwrap());
    let (header, rest) = good.split_once('.').unwrap();
    let encoded = |json: &str| BASE64URL_NOPAD.encode(json.as_bytes());
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "a.b.c".into(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}="),
        format!("{good} "),
        format!("{good}\n"),
        good.replace('.', " "),
        rest.to_owned(),
        format!("{header}=.{rest}"),
        format!("{}.{rest}", encoded("{}")),
        format!("{}.{rest}", encoded("[\"HS256\"]")),
        format!("{}.{rest}", encoded("{\"alg\":null}")),
        format!("{}.{rest}", encoded("{\"alg\":[\"HS256\"]}")),
        format!("{}.{rest}", encoded("{\"alg\":\"none\",\"alg\":\"HS256\"}")),
        format!("{}.{rest}", encoded("{\"alg\":\"HS256\",\"crit\":[]}")),
        format!("{}.{rest}", encoded("{\"alg\":\"HS256\"")),
    ] {
        assert_eq!(judged(&verifier, &token, now(&vectors)).as_deref(), Some("Malformed"), "{token:?}");
    }
    for name in ["none", "NONE", "nOnE", "", "hs256", "HS256 ", "HS1", "ES521", "RS1"] {
        let token = format!("{}.{rest}", encoded(&format!("{{\"alg\":{name:?}}}")));
        assert_eq!(judged(&verifier, &token, now(&vectors)).as_deref(), Some("Algorithm"), "{name:?}");
    }
    let huge = format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX));
    assert_eq!(judged(&verifier, &huge, now(&vectors)).as_deref(), Some("TooLong"));
}

/// RFC 7515 appendices A.1 to A.3 and RFC 8037 appendix A.4.
#[test]
fn the_signatures_of_the_rfcs_are_good() {
    let url = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    let claims =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let modulus = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let point = [
        vec![4],
        url("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"),
        url("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"),
    ];
    let public = |key| Key::Public(key);
    for (key, algorithm, signed, signature) in [
        (
            Key::Hmac(url(secret).into()),
            Algorithm::Hs256,
            format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{claims}"),
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        ),
        (
            public(PublicKey::Rsa { n: url(modulus).into(), e: url("AQAB").into() }),
            Algorithm::Rs256,
            format!("eyJhbGciOiJSUzI1NiJ9.{claims}"),
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            public(PublicKey::P256(point.concat().into())),
            Algorithm::Es256,
            format!("eyJhbGciOiJFUzI1NiJ9.{claims}"),
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            public(PublicKey::Ed25519(url("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").into())),
            Algorithm::EdDsa,
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".to_owned(),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        assert!(key.has_signed(algorithm, signed.as_bytes(), &url(signature)), "{algorithm:?}");
        assert!(!key.has_signed(algorithm, &signed.as_bytes()[1..], &url(signature)), "{algorithm:?}");
    }
}

#[test]
fn keys_are_read_in_the_forms_that_tools_write() {
    let vectors = vectors();
    let key = |name: &str| PublicKey::from_pem(vectors["keys"][name].as_str().unwrap());
    let spki = vectors["trusted"]["RS256"].as_str().unwrap();
    assert_eq!(key("pkcs1").unwrap(), PublicKey::from_pem(spki).unwrap());
    assert_eq!(
        PublicKey::from_pem(&spki.replace('\n', "\\n")),
        PublicKey::from_pem(spki),
        "as in a variable"
    );
    assert!(key("rsa_4096").is_ok());
    assert_eq!(key("rsa_1024"), Err(PublicKeyError::RsaSize { bits: 1024 }));
    assert_eq!(key("secp256k1"), Err(PublicKeyError::Unknown));
    for cut in 0..spki.len() - 30 {
        assert!(PublicKey::from_pem(&spki[..cut]).is_err(), "cut at {cut}");
    }
}
