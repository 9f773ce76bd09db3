//! Says hello to a channel, and hears it:
//!
//! ```sh
//! cargo run -p fanfare-client --example hello -- ws://127.0.0.1:8000/ws
//! ```

#![expect(clippy::print_stdout, reason = "it is what the program is for")]

use fanfare_client::{Client, Event, Options, Subscribe};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:8000/ws".into());
    let client = Client::start(Options::new(url))?;
    let mut room = client.subscribe("room:1", Subscribe::default()).await?;
    client.publish_once("room:1", &"hello").await?;
    while let Some(event) = room.next().await {
        match event {
            Event::Message(message) => {
                println!("{}", message.json::<String>()?);
                break;
            }
            Event::Subscribed { recovered: Some(false), .. } => {
                println!("live; what was before has to be loaded")
            }
            other => println!("{other:?}"),
        }
    }
    client.stop().await;
    Ok(())
}
