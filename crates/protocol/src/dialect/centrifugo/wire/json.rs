//! Commands in JSON: one object per line.

use super::Frame;
use crate::close::CloseReason;
use crate::command::Decoded;

/// Reads the commands of one message, in order.
///
/// # Errors
/// The reason to end the conversation: one of them is no command, or there are too many.
pub(in super::super) fn commands(
    text: &str,
    batch_max: usize,
    on_command: &mut dyn FnMut(Decoded),
) -> Result<(), CloseReason> {
    for (index, line) in text.strip_suffix('\n').unwrap_or(text).split('\n').enumerate() {
        // To serde an array is a struct without its field names.
        if index >= batch_max || !line.trim_start().starts_with('{') {
            return Err(CloseReason::BadRequest);
        }
        let frame: Frame<'_> = serde_json::from_str(line).map_err(|_| CloseReason::BadRequest)?;
        on_command(frame.meaning()?);
    }
    Ok(())
}
