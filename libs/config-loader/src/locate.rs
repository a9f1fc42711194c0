//! Where in the text a key stands. The typed values no longer know their lines, so this walks the
//! dotted path through the text; it is right for the way people write YAML and JSON, and where it is
//! not sure it answers with the last step of the path that it found. The dotted path is always
//! printed beside it.

use crate::error::Place;

/// The place of a dotted path such as `pools[1].queue.capacity`.
pub(crate) fn key(text: &str, path: &str) -> Place {
    let lines: Vec<&str> = text.lines().collect();
    let mut at: Option<(usize, usize)> = None;
    for step in path.split('.').flat_map(steps) {
        let from = at.unwrap_or((0, 0));
        let found = match step {
            Step::Key(name) => find_key(&lines, from, name),
            Step::Item(n) => find_item(&lines, from, n),
        };
        match found {
            Some(place) => at = Some(place),
            None => break,
        }
    }
    match at {
        Some((line, column)) => Place::At { line: line + 1, column: column + 1 },
        None => Place::Unknown,
    }
}

/// The place (from 1) of `name` as a whole word, on `line` (from 1) or the nearest line to it.
pub(crate) fn word(text: &str, line: usize, name: &str) -> Option<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut candidates: Vec<(usize, usize)> = Vec::new();
    for (index, content) in lines.iter().enumerate() {
        let is_word = |&(at, _): &(usize, &str)| whole_word(content, at, name);
        candidates.extend(content.match_indices(name).filter(is_word).map(|(at, _)| (index + 1, at + 1)));
    }
    candidates.into_iter().min_by_key(|(found, _)| found.abs_diff(line))
}

/// One step of a dotted path.
pub(crate) enum Step<'a> {
    Key(&'a str),
    Item(usize),
}

/// The steps of what stands between two dots, as `pools[1]`.
pub(crate) fn steps(part: &str) -> impl Iterator<Item = Step<'_>> {
    let mut pieces = part.split('[');
    let name = pieces.next().filter(|name| !name.is_empty()).map(Step::Key);
    let items = pieces.filter_map(|piece| piece.trim_end_matches(']').parse().ok().map(Step::Item));
    name.into_iter().chain(items)
}

fn find_key(lines: &[&str], from: (usize, usize), name: &str) -> Option<(usize, usize)> {
    for (index, line) in lines.iter().enumerate().skip(from.0) {
        let start = if index == from.0 { from.1 } else { 0 };
        let mut hits = line.match_indices(name).map(|(at, _)| at).filter(|at| *at >= start);
        let hit = hits.find(|&at| {
            let after = line[at + name.len()..].trim_start_matches(['"', '\'']).trim_start();
            whole_word(line, at, name) && after.starts_with(':')
        });
        if let Some(at) = hit {
            return Some((index, at));
        }
    }
    None
}

fn find_item(lines: &[&str], from: (usize, usize), n: usize) -> Option<(usize, usize)> {
    let items = lines.iter().enumerate().skip(from.0 + 1).filter_map(|(index, line)| {
        let indent = line.len() - line.trim_start().len();
        line.trim_start().starts_with("- ").then_some((index, indent))
    });
    let mut depth = None;
    items.filter(|(_, indent)| *depth.get_or_insert(*indent) == *indent).nth(n)
}

fn whole_word(line: &str, at: usize, name: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    !line[..at].ends_with(inner) && !line[at + name.len()..].starts_with(inner)
}
