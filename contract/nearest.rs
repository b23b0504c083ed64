//! The name that somebody may have meant.

/// The nearest of `known`; none where nothing is near.
pub fn meant<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let best =
        known.map(|name| (strsim::normalized_damerau_levenshtein(word, name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness > 0.5).map(|(_, name)| name)
}

/// `; did you mean `x`?` with the name that was [`meant`]; empty where there is none.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    meant(word, known).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_named_and_what_is_far_is_not() {
        let known = ["arxiv", "github"];
        assert_eq!(nearest("gihub", known.into_iter()), "; did you mean `github`?");
        assert_eq!(nearest("kafka", known.into_iter()), "");
        assert_eq!(nearest("kafka", [].into_iter()), "");
    }
}
