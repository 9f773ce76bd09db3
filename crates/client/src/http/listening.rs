//! The tasks that hear: a response that goes on, or one after the other.

use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::request::{Request, refusal};
use super::{Came, POLL};
use crate::line::{EVENT_BYTES_MAX, Gone, PATIENCE};
use crate::options::Target;
use crate::socket::credentials;

/// Reads `/sse` until it ends.
pub(super) async fn stream(
    target: Target,
    path: String,
    token: Option<String>,
    number: u64,
    near: mpsc::Sender<Came>,
) {
    let hearing = async {
        let authorization = token.map(|token| credentials("Bearer", &token)).transpose()?;
        let request = Request::get(&target, &path, authorization)?;
        request
            .streamed(async |response| {
                let (parts, mut body) = response.into_parts();
                if !parts.status.is_success() {
                    let said = http_body_util::Limited::new(body, EVENT_BYTES_MAX).collect().await;
                    let said = said.map_or_else(
                        |_| String::new(),
                        |it| String::from_utf8_lossy(&it.to_bytes()).into_owned(),
                    );
                    return Ok(Came::Refused(number, refusal(parts.status, &parts.headers), said));
                }
                let mut lines = Lines::default();
                let mut cursor = None;
                while let Some(frame) = body.frame().await {
                    let Ok(bytes) = frame?.into_data() else {
                        continue;
                    };
                    tell(&near, Came::Alive).await;
                    lines.take(&bytes)?;
                    while let Some(line) = lines.next() {
                        if let Some(place) = line.strip_prefix("id: ") {
                            cursor = Some(place.to_owned());
                        } else if let Some(text) = line.strip_prefix("data: ") {
                            tell(&near, Came::Event(number, text.to_owned(), cursor.take())).await;
                        }
                    }
                }
                Err(Gone::because("the response has ended"))
            })
            .await
    };
    let outcome = hearing.await.unwrap_or_else(|gone| Came::Over(number, gone));
    tell(&near, outcome).await;
}

/// Asks `/poll` again and again.
pub(super) async fn poll(
    target: Target,
    query: String,
    mut since: Option<String>,
    token: Option<String>,
    number: u64,
    near: mpsc::Sender<Came>,
) {
    #[derive(Deserialize)]
    struct Page<'a> {
        since: String,
        #[serde(borrow)]
        events: Vec<&'a RawValue>,
    }
    let hearing = async {
        loop {
            let authorization = token.as_deref().map(|token| credentials("Bearer", token)).transpose()?;
            let from = since.as_ref().map(|it| format!("&since={it}")).unwrap_or_default();
            let path = format!("/poll?wait={}&{query}{from}", POLL.as_secs());
            let answer = Request::get(&target, &path, authorization)?.answer_within(POLL + PATIENCE).await?;
            let body = String::from_utf8_lossy(&answer.body);
            if let Err(gone) = answer.succeeded() {
                return Ok(Came::Refused(number, gone, body.into_owned()));
            }
            let page = serde_json::from_str::<Page<'_>>(&body);
            let page = page.map_err(|_| Gone::because("the answer is no page").blocked())?;
            let mut is_last = false;
            tell(&near, Came::Alive).await;
            for (at, event) in page.events.iter().enumerate() {
                let text = event.get().to_owned();
                is_last |= text.contains("\"type\":\"closing\"");
                // The cursor is that of all of the page: one that is read in part is asked for again.
                let cursor = (at + 1 == page.events.len()).then(|| page.since.clone());
                tell(&near, Came::Event(number, text, cursor)).await;
            }
            since = Some(page.since);
            if is_last {
                return Err(Gone::because("the server has said goodbye"));
            }
        }
    };
    let outcome = hearing.await.unwrap_or_else(|gone: Gone| Came::Over(number, gone));
    tell(&near, outcome).await;
}

/// Whoever has gone does not want to know.
async fn tell(near: &mpsc::Sender<Came>, came: Came) {
    let _ = near.send(came).await;
}

/// Lines of what comes in pieces.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// How far it has been looked through.
    looked: usize,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        if self.bytes.len() + bytes.len() > EVENT_BYTES_MAX {
            return Err(Gone::because("the server says more in a line than is read"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole one, without its end.
    fn next(&mut self) -> Option<String> {
        let Some(length) = self.bytes[self.looked..].iter().position(|it| *it == b'\n') else {
            self.looked = self.bytes.len();
            return None;
        };
        let rest = self.bytes.split_off(self.looked + length + 1);
        let mut line = std::mem::replace(&mut self.bytes, rest);
        self.looked = 0;
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(String::from_utf8_lossy(&line).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_were_cut() {
        let text = "id: e:1\ndata: {\"a\":\"ü\"}\r\n\n:\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut read = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                lines.take(piece).unwrap();
                read.extend(std::iter::from_fn(|| lines.next()));
            }
            assert_eq!(read, ["id: e:1", "data: {\"a\":\"ü\"}", "", ":"], "in pieces of {size}");
        }
        assert!(Lines::default().take(&vec![0; EVENT_BYTES_MAX + 1]).is_err(), "a line has a bound");
    }
}
