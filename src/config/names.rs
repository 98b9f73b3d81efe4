//! Names that are similar to a known name.

/// A name in lower case without `-` and `_`, because spellings differ in these.
pub(super) fn canonical(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// The most similar known name, if the difference can be a typing error.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = canonical(name);
    let most = match name.len() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    };
    let distances = known.into_iter().map(|known| (strsim::osa_distance(&name, &canonical(known)), known));
    distances.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// Several alternatives, as in a sentence.
pub(super) fn list(alternatives: &[&str]) -> String {
    match alternatives {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => alternatives.concat(),
    }
}

/// The end of an error message: the most similar known name, or all known names.
pub(super) fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str, IntoIter: Clone>) -> String {
    let known = known.into_iter();
    match nearest(name, known.clone()) {
        Some(likely) => format!("did you mean {likely}?"),
        None => format!("expected one of {}", known.collect::<Vec<_>>().join(", ")),
    }
}
