//! Goes on by tokens that last for a few seconds, each made by the command that is given, and publishes a number a second:
//!
//! ```sh
//! cargo run -p fanfare-client --example token -- ws://127.0.0.1:8000/ws room:1 3 fanfare token --user ann --ttl 5
//! ```

#![expect(clippy::print_stdout, reason = "it is what the program is for")]

use std::time::Duration;

use fanfare_client::{Client, Options, Token};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = move |name: &str| {
        arguments.next().ok_or(format!("usage: token URL CHANNEL COUNT COMMAND…: {name} is missing"))
    };
    let (url, channel, count) = (argument("URL")?, argument("CHANNEL")?, argument("COUNT")?.parse::<u32>()?);
    let program = argument("COMMAND")?;
    let arguments: Vec<_> = std::iter::from_fn(|| argument("").ok()).collect();
    let token = Token::fresh(move || {
        let mut command = tokio::process::Command::new(&program);
        command.args(&arguments);
        async move { Ok(String::from_utf8(command.output().await?.stdout)?.trim_end().to_owned()) }
    });
    let client = Client::start(Options::new(url).token(token))?;
    for number in 1..=count {
        client.publish_once(&channel, &number).await?;
        println!("published {number}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    client.stop().await;
    Ok(())
}
