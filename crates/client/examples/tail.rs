//! Prints what a channel carries, and what becomes of the subscription:
//!
//! ```sh
//! cargo run -p fanfare-client --example tail -- ws://127.0.0.1:8000/ws room:1
//! ```

#![expect(clippy::print_stdout, reason = "it is what the program is for")]

use fanfare_client::{Client, Event, Options, Subscribe};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "ws://127.0.0.1:8000/ws".into());
    let channel = arguments.next().unwrap_or_else(|| "room:1".into());
    let client = Client::start(Options::new(url))?;
    let mut room = client.subscribe(&channel, Subscribe { rewind: Some(10), ..Subscribe::default() }).await?;
    while let Some(event) = room.next().await {
        match event {
            Event::Message(message) => println!("{}", message.as_json().unwrap_or("(bytes)")),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
