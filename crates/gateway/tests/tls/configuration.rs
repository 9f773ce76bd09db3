//! What is said of certificates that are no good, before a node starts.

use std::fs;
use std::path::Path;

use fanfare_gateway::config::{self, File, Source};
use fanfare_testbed::Authority;
use fanfare_testbed::authority::{GOOD, quoted};
use fanfare_testbed::{Gateway, eventually};

fn mistakes(text: &str) -> String {
    let file = File { path: "test.toml".into(), text: text.into() };
    match config::load(&Source { file: Some(file), ..Source::default() }) {
        Ok(_) => String::new(),
        Err(mistakes) => mistakes.to_string(),
    }
}

#[test]
fn every_mistake_names_its_file_and_what_would_be_right() {
    let (authority, other) = (Authority::new(), Authority::new());
    let good = authority.issue("good", GOOD);
    let (cert, key) = (quoted(&good.cert), quoted(&good.key));
    let foreign = quoted(&other.issue("other", GOOD).key);
    let write = |name: &str, text: &str| {
        fs::write(authority.path(name), text).unwrap();
        quoted(&authority.path(name))
    };
    let empty = write("empty.pem", "");
    let torn = write("torn.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let no_der = write("no-der.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let locked = write(
        "locked.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    for (keys, expected) in [
        (format!("cert = {cert}"), "tls.cert: it takes tls.key, the certificate's private key (test.toml, line 2)".to_owned()),
        (format!("key = {key}"), "tls.key: it takes tls.cert, the key's certificate (test.toml, line 2)".to_owned()),
        (format!("client_ca = {cert}"), "tls.client_ca: it takes tls.cert, since only TLS asks for certificates".to_owned()),
        ("cert = \"\"".to_owned(), "tls.cert = \"\": the path of a file is expected".to_owned()),
        (
            format!("cert = \"no/such.pem\"\nkey = {key}"),
            "tls.cert = \"no/such.pem\": the file cannot be read: No such file or directory (os error 2) (test.toml, line 2)"
                .to_owned(),
        ),
        (format!("cert = {empty}\nkey = {key}"), format!("tls.cert = {empty}: there is no certificate in it")),
        (format!("cert = {key}\nkey = {cert}"), format!("tls.key = {cert}: there is no private key in it")),
        (format!("cert = {torn}\nkey = {key}"), format!("tls.cert = {torn}: it is not PEM: missing section end")),
        (format!("cert = {no_der}\nkey = {key}"), format!("tls.cert = {no_der}: its first certificate is not X.509")),
        (format!("cert = {cert}\nkey = {locked}"), format!("tls.key = {locked}: the key in it is encrypted")),
        (
            format!("cert = {cert}\nkey = {foreign}"),
            format!("tls.key = {foreign}: it is not the key of the certificate in {cert} (test.toml, line 3)"),
        ),
        (
            format!("cert = {cert}\nkey = {key}\nclient_ca = {no_der}"),
            format!("tls.client_ca = {no_der}: a certificate in it is of no use"),
        ),
    ] {
        let told = mistakes(&format!("[tls]\n{keys}\n"));
        assert!(told.contains(&expected), "{keys}\n{told}\nis not\n{expected}");
        let told = mistakes(&format!("[tls.internal]\n{keys}\n"));
        let expected = expected.replace("tls.", "tls.internal.");
        assert!(told.contains(&expected), "{keys}\n{told}\nis not\n{expected}");
    }
    assert_eq!(mistakes(&good.settings("tls")), "");
}

/// A node that refused to start for it would help nobody; it says so instead.
#[tokio::test]
async fn an_expired_certificate_is_warned_of() {
    let authority = Authority::new();
    for (name, years, warning) in [
        ("old", (2001, 2002), "the certificate has expired"),
        ("young", (2090, 2100), "the certificate is not valid yet"),
        ("good", GOOD, "certificate in force"),
    ] {
        let files = authority.issue(name, years);
        let setting = |key, path: &Path| format!("tls.{key}={}", path.display());
        let settings = [setting("cert", &files.cert), setting("key", &files.key)];
        let settings = settings.each_ref().map(String::as_str);
        let gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_fanfare")), &settings).await;
        eventually(warning, async || gateway.log().contains(warning)).await;
        let level = if name == "good" { "INFO" } else { "WARN" };
        let line = gateway.log().lines().find(|line| line.contains(warning)).unwrap().to_owned();
        assert!(line.contains(level) && line.contains("public"), "{line}");
    }
}
