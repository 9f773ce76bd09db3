//! Golden conversations with a whole node by HTTP, word for word: clients that hear by the body of a response, and a backend.
//!
//! | line | means |
//! |---|---|
//! | `# …` | a remark |
//! | `! config …` | a line of the node's configuration |
//! | `> listen <transport> <text>` | a client comes by `sse` or `http_stream`, and this is what it says first |
//! | `> say <text>` | it posts this for the session and the node that it was last told |
//! | `> post <path> <json>` | anybody posts this to the public listener |
//! | `> api <method> <json>` | a backend calls the API, by a key in `X-API-Key` |
//! | `> api! <method> <json>` | the same, and it goes by the status of the answer |
//! | `< …` | the answer: its status, and its body or what kind that is |
//! | `<< …` | the next line of the stream that is not empty; `(end)` when there is none any more |
//!
//! What a node draws at random is written `{1}`, `{2}` and so on, in the order in which it first appears, by both sides.

use std::path::Path;
use std::time::Duration;

use fanfare_gateway::node::Node;
use fanfare_testbed::{LineStream, PATIENCE, http};
use tokio::time::{Instant, sleep};

use crate::support::node;

/// What is asked again until it is answered as is written: others know of what has happened a moment later. So is what ought to be
/// gone.
const QUESTIONS: [&str; 5] = ["presence", "presence_stats", "channels", "connections", "info"];

/// One conversation under way.
struct Stage {
    node: Node,
    stream: Option<LineStream>,
    /// What the client was told to speak by: its session, and its node.
    session: String,
    /// What was drawn at random.
    drawn: Vec<String>,
    said: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_by_http_is_what_is_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/golden");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "there are conversations");
    let mut wrong = String::new();
    for file in files {
        let written = std::fs::read_to_string(&file).unwrap();
        let said = replay(&written).await;
        if said != written {
            wrong += &format!("=== {} ought to be\n{said}", file.display());
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}=== end");
}

/// What a conversation would be if all that the node says in it were what it says now.
async fn replay(written: &str) -> String {
    let config = written.lines().filter_map(|line| line.strip_prefix("! config "));
    let config = config.collect::<Vec<_>>().join("\n");
    let node = node(&config).await;
    let mut stage =
        Stage { node, stream: None, session: String::new(), drawn: Vec::new(), said: String::new() };
    let mut lines = written.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(asked) = line.strip_prefix("> ") {
            stage.say(line);
            stage.ask(asked, lines.peek().copied().unwrap_or_default()).await;
        } else if line.starts_with("<< ") {
            let heard = stage.hear().await;
            stage.say(&format!("<< {heard}"));
        } else if !line.starts_with("< ") {
            stage.say(line);
        }
    }
    stage.said
}

impl Stage {
    fn say(&mut self, line: &str) {
        self.said += line;
        self.said.push('\n');
    }

    async fn ask(&mut self, asked: &str, expected: &str) {
        let (verb, rest) = asked.split_once(' ').expect("a verb, and what it is about");
        let rest = self.drawn_again(rest);
        let (what, body) = rest.split_once(' ').unwrap_or((&rest, ""));
        if verb == "listen" {
            return self.listen(what, body).await;
        }
        let deadline = Instant::now() + PATIENCE;
        let told = loop {
            let told = match verb {
                "say" => {
                    let (session, node) = self.session.split_once(' ').expect("somebody has been greeted");
                    let posted = serde_json::json!({"session": session, "node": node, "data": rest});
                    self.post("/emulation", &posted.to_string()).await
                }
                "post" => self.post(what, body).await,
                "api" => self.call(what, body, &["X-API-Key: any"]).await,
                "api!" => {
                    self.call(what, body, &["X-API-Key: any", "X-Centrifugo-Error-Mode: transport"]).await
                }
                _ => panic!("not a line of a conversation: {asked:?}"),
            };
            let is_question = QUESTIONS.contains(&what) || expected.starts_with("< 404 ");
            if told == expected || !is_question || Instant::now() > deadline {
                break told;
            }
            sleep(Duration::from_millis(10)).await;
        };
        self.say(&told);
    }

    async fn post(&mut self, path: &str, body: &str) -> String {
        let answer = http::post(self.node.public_addr(), path, &[], body).await;
        self.told(&answer)
    }

    async fn call(&mut self, method: &str, body: &str, headers: &[&str]) -> String {
        let answer = http::post(self.node.internal_addr(), &format!("/api/{method}"), headers, body).await;
        self.told(&answer)
    }

    fn told(&mut self, answer: &http::Response) -> String {
        let told = format!("< {} {}", answer.status, answer.text());
        self.plain(told.trim_end())
    }

    async fn listen(&mut self, transport: &str, first: &str) {
        let (address, path) = (self.node.public_addr(), format!("/connection/{transport}"));
        let stream = match transport {
            "sse" => {
                let escaped: String = first.bytes().map(|byte| format!("%{byte:02x}")).collect();
                LineStream::open(address, &format!("{path}?cf_connect={escaped}"), &[]).await
            }
            _ => LineStream::post(address, &path, first).await,
        };
        let told = match &stream {
            Ok(stream) => format!("< 200 {}", stream.head().header("Content-Type").unwrap_or_default()),
            Err(answer) => format!("< {} {}", answer.status, answer.text()),
        };
        self.say(&told);
        self.stream = stream.ok();
    }

    async fn hear(&mut self) -> String {
        let stream = self.stream.as_mut().expect("somebody listens");
        let line = loop {
            match stream.line().await {
                Ok(line) if line.is_empty() => {}
                Ok(line) => break line,
                Err(_) => return "(end)".into(),
            }
        };
        if line.starts_with("retry: ") {
            return "retry: {wait}".into();
        }
        let told = line.strip_prefix("data: ").unwrap_or(&line);
        if let Ok(told) = serde_json::from_str::<serde_json::Value>(told)
            && let (Some(session), Some(node)) =
                (told["connect"]["session"].as_str(), told["connect"]["node"].as_str())
        {
            self.session = format!("{session} {node}");
        }
        self.plain(&line)
    }

    /// What was drawn at random is named.
    fn plain(&mut self, text: &str) -> String {
        let mut plain = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let run = rest.find(|it: char| !it.is_ascii_hexdigit()).unwrap_or(rest.len());
            let (hex, after) = rest.split_at(run);
            if hex.len() == 32 || hex.len() == 16 {
                let known = self.drawn.iter().position(|it| it == hex).unwrap_or_else(|| {
                    self.drawn.push(hex.into());
                    self.drawn.len() - 1
                });
                plain += &format!("{{{}}}", known + 1);
            } else {
                plain += hex;
            }
            let next = after.chars().next().map_or(0, char::len_utf8);
            plain += &after[..next];
            rest = &after[next..];
        }
        for name in ["uptime", "rss"] {
            plain = without_number(&plain, name);
        }
        plain
    }

    /// And put back into what is asked.
    fn drawn_again(&self, text: &str) -> String {
        let named = self.drawn.iter().enumerate();
        named.fold(text.to_owned(), |text, (at, drawn)| text.replace(&format!("{{{}}}", at + 1), drawn))
    }
}

/// A field whose number is another each time has none.
fn without_number(text: &str, name: &str) -> String {
    let field = format!("\"{name}\":");
    let Some((before, after)) = text.split_once(&field) else { return text.into() };
    format!("{before}{field}{{n}}{}", after.trim_start_matches(|it: char| it.is_ascii_digit()))
}
