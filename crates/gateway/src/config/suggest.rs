//! "Did you mean …?": the nearest key to a path that is none.

use super::keys::{self, ANY};

/// The key that `path` most likely stands for, if any is near: a slip of the pen, or the right name in the wrong section.
pub(super) fn nearest(path: &str) -> Option<String> {
    let last = path.rsplit('.').next().unwrap_or(path);
    let tolerated = (path.len() / 4).max(2);
    keys::all()
        .filter_map(|key| {
            let candidate = fill(key.path, path)?;
            let distance = strsim::damerau_levenshtein(path, &candidate);
            (distance <= tolerated || key.name() == last).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
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
