//! Load for a WebSocket publish/subscribe gateway, cheap enough that the gateway is what is measured.
//!
//! One thread does everything: connections share its buffers without locks, and a gateway under test keeps
//! the other cores. One process holds as many connections as it may open files; for more, start more.

mod args;
mod audience;
mod connection;
mod histogram;
mod ledger;
mod process;
mod protocol;
mod publisher;
mod report;
mod scale;
mod scenario;
mod secure;
mod stamp;
mod suite;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use tokio::runtime::{Builder, LocalOptions};

use crate::args::{Arguments, Scenario};
use crate::report::progress;
use crate::scenario::{check, flow, idle};

const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(arguments.scenario)));
    outcome.unwrap_or_else(|error| {
        progress(&format!("error: {error:#}"));
        ExitCode::from(COULD_NOT_RUN)
    })
}

async fn run(scenario: Scenario) -> Result<ExitCode> {
    // As far as the hard limit goes; a lack shows as a failed connection.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    match scenario {
        Scenario::Idle(it) => report::publish(&idle::run(&it).await?, it.common.json.as_deref()),
        Scenario::Fanout(it) => {
            let findings = flow::run(&it.flow, 1, it.subscribers.max(1)).await?;
            report::publish(&findings, it.flow.common.json.as_deref())
        }
        Scenario::Rooms(it) => {
            let findings = flow::run(&it.flow, it.rooms.max(1), it.size.max(1)).await?;
            report::publish(&findings, it.flow.common.json.as_deref())
        }
        Scenario::Bench(it) => suite::run(&it).await,
        Scenario::Scale(it) => report::publish(&scale::run(&it).await?, it.json.as_deref()),
        Scenario::Hold(it) => scale::hold(&it).map(|()| ExitCode::SUCCESS),
        Scenario::Check(it) => report::publish(&check::run(&it).await?, it.common.json.as_deref()),
    }
}
