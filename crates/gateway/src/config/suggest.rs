//! "Did you mean …?": the nearest key to a path that is none.

use super::keys::{self, ANY};

/// How names of keys end that tell their unit.
const UNITS: [&str; 3] = ["_seconds", "_ms", "_bytes"];

/// The key that `path` most likely stands for, if any is near: a unit left out, a slip of the pen, or the right
/// name in the wrong section.
pub(super) fn nearest(path: &str) -> Option<String> {
    let last = path.rsplit('.').next().unwrap_or(path);
    let tolerated = (path.len() / 4).max(2);
    keys::all()
        .filter_map(|key| {
            let candidate = fill(key.path, path)?;
            let unit_is_missing = candidate.strip_prefix(path).is_some_and(|rest| UNITS.contains(&rest));
            if unit_is_missing {
                return Some((0, candidate));
            }
            let distance = strsim::damerau_levenshtein(path, &candidate);
            (distance <= tolerated || key.name() == last).then_some((distance, candidate))
        })
        // The right name in the wrong place is likelier than a slip that makes another name.
        .min_by_key(|(distance, candidate)| (!candidate.ends_with(&format!(".{last}")), *distance))
        .map(|(_, candidate)| candidate)
}

/// A key's path with the operator's names where the table has [`ANY`]. None where `path` has no such name.
fn fill(key: &str, path: &str) -> Option<String> {
    let mut theirs = path.split('.');
    let segments: Option<Vec<_>> = key
        .split('.')
        .map(|ours| {
            let theirs = theirs.next();
            if ours == ANY { theirs } else { Some(ours) }
        })
        .collect();
    segments.map(|it| it.join("."))
}
