//! Stub.
use std::path::Path;
use anyhow::Result;
use crate::args::Arguments;
use crate::report::Findings;
pub(crate) async fn run(_: &Arguments, _: &Path) -> Result<Findings> { anyhow::bail!("stub") }
