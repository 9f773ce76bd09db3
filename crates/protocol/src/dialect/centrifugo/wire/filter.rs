//! Filters by tags (`tf`), as they come and as they are meant.

use std::borrow::Cow;
use std::cmp::Ordering::{Equal, Greater, Less};

use serde::Deserialize;

use super::bad;
use crate::error::Failure;
use crate::tags::{Filter, Number, Test};

/// The most nodes of a filter. Each publication may have to be looked at by all of them, for each subscriber that has such a filter.
const NODES_MAX: usize = 64;

/// The most bytes of all its texts together, which are kept as long as the subscription.
const BYTES_MAX: usize = 4096;

/// A filter, or a part of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Node<'a> {
    /// What becomes of `nodes`: `and`, `or`, `not`. Without one it is a test of a tag.
    #[serde(borrow)]
    pub(super) op: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) key: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) cmp: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) val: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) vals: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) nodes: Vec<Self>,
}

/// What it means.
///
/// # Errors
/// What of it is no filter.
pub(super) fn read(node: &Node<'_>) -> Result<Filter, Failure> {
    let (nodes, bytes) = size(node);
    if nodes > NODES_MAX || bytes > BYTES_MAX {
        let text = format!("`tf` has at most {NODES_MAX} nodes and {BYTES_MAX} bytes of text");
        return Err(bad(text));
    }
    meaning(node)
}

fn size(node: &Node<'_>) -> (usize, usize) {
    let own = node.key.len() + node.val.len() + node.vals.iter().map(|value| value.len()).sum::<usize>();
    node.nodes
        .iter()
        .map(size)
        .fold((1, own), |(nodes, bytes), (more, longer)| (nodes + more, bytes + longer))
}

fn meaning(node: &Node<'_>) -> Result<Filter, Failure> {
    let within = || node.nodes.iter().map(meaning).collect::<Result<Box<[_]>, _>>();
    match (&*node.op, &*node.nodes) {
        ("", _) => test(node),
        ("and" | "or", []) => Err(bad("`and` and `or` of `tf` take one of `nodes` at least")),
        ("and", _) => Ok(Filter::All(within()?)),
        ("or", _) => Ok(Filter::Any(within()?)),
        ("not", [only]) => Ok(Filter::Not(Box::new(meaning(only)?))),
        ("not", _) => Err(bad("`not` of `tf` takes exactly one of `nodes`")),
        _ => Err(bad("`op` of `tf` is one of: and, or, not; a test of a tag has none")),
    }
}

fn test(node: &Node<'_>) -> Result<Filter, Failure> {
    let Node { key, cmp, val, vals, .. } = node;
    let among = || Test::Among(vals.iter().map(|value| (**value).into()).collect());
    let compares = |orders| Number::parse(val).map(|number| Test::Compares(number, orders));
    let (test, is_wanted) = match &**cmp {
        "eq" => (Some(Test::Equal((**val).into())), true),
        "neq" => (Some(Test::Equal((**val).into())), false),
        "in" => (Some(among()), true),
        "nin" => (Some(among()), false),
        "ex" => (Some(Test::Present), true),
        "nex" => (Some(Test::Present), false),
        "sw" => (Some(Test::Begins((**val).into())), true),
        "ew" => (Some(Test::Ends((**val).into())), true),
        "ct" => (Some(Test::Contains((**val).into())), true),
        "gt" => (compares(&[Greater]), true),
        "gte" => (compares(&[Greater, Equal]), true),
        "lt" => (compares(&[Less]), true),
        "lte" => (compares(&[Less, Equal]), true),
        _ => {
            let text = "`cmp` of `tf` is one of: eq, neq, in, nin, ex, nex, sw, ew, ct, gt, gte, lt, lte";
            return Err(bad(text));
        }
    };
    let test =
        test.ok_or_else(|| bad("`val` of `tf` is a number where it is compared with one: digits, a point"))?;
    let (takes_val, takes_vals) = match test {
        Test::Present => (false, false),
        Test::Among(_) => (false, true),
        _ => (true, false),
    };
    if takes_val == val.is_empty() || takes_vals == vals.is_empty() {
        return Err(bad("`in` and `nin` of `tf` take `vals`, `ex` and `nex` neither, all others `val`"));
    }
    if key.is_empty() && test != Test::Present {
        return Err(bad("`key` of `tf` is missing: say which tag is looked at"));
    }
    let test = Filter::Tag { key: (**key).into(), test };
    Ok(if is_wanted { test } else { Filter::Not(Box::new(test)) })
}
