//! The identifiers of papers, in all the forms that arXiv writes them.
//!
//! Source: <https://info.arxiv.org/help/arxiv_identifier.html>.

/// A paper and, where it is named, its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identifier {
    /// Without version, prefix and subject class: `2104.12255`, `math/0309136`.
    pub(super) id: String,
    /// From 1 on.
    pub(super) version: Option<u32>,
}

impl Identifier {
    /// Reads `2104.12255v1`, `cs/0112017`, `math.GT/0309136v2`, each also after `oai:arXiv.org:` or `arXiv:` or as an
    /// address of a paper's page.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let name = strip_prefix(text, "oai:arXiv.org:").or_else(|| strip_prefix(text, "arXiv:"));
        let name = name.or_else(|| page_name(text)).unwrap_or(text);
        let (id, version) = split_version(name);
        canonical(id).map(|id| Self { id, version })
    }
}

/// The rest after a prefix that is ASCII, in any case.
pub(super) fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// What stands after `abs/`, `pdf/`, `html/` of an address on arxiv.org or one of its mirrors.
fn page_name(text: &str) -> Option<&str> {
    let (_, path) = text.split_once("://")?.1.split_once('/')?;
    let host = text.split_once("://")?.1.split('/').next()?;
    if host != "arxiv.org" && !host.ends_with(".arxiv.org") {
        return None;
    }
    let (_kind, name) = path.split_once('/')?;
    let name = name.split(['?', '#']).next()?;
    Some(name.strip_suffix(".pdf").unwrap_or(name))
}

fn split_version(name: &str) -> (&str, Option<u32>) {
    let Some((id, digits)) = name.rsplit_once('v') else { return (name, None) };
    match digits.parse() {
        Ok(version) if version > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => (id, Some(version)),
        _ => (name, None),
    }
}

/// The id as arXiv writes it today, if it is one.
fn canonical(id: &str) -> Option<String> {
    let is_number = |text: &str, digits: &[usize]| {
        digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) && is_month(&text[2..4])
    };
    if let Some((archive, number)) = id.split_once('/') {
        let archive = archive.split('.').next()?;
        let is_archive = !archive.is_empty() && archive.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        return (is_archive && is_number(number, &[7])).then(|| format!("{archive}/{number}"));
    }
    let (month, number) = id.split_once('.')?;
    let is_paper = matches!(number.len(), 4 | 5) && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(month, &[4]) && is_paper).then(|| id.to_owned())
}

fn is_month(digits: &str) -> bool {
    ("01"..="12").contains(&digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_gives_the_paper_and_its_version() {
        for (text, id, version) in [
            ("2104.12255v1", "2104.12255", Some(1)),
            ("0704.0002", "0704.0002", None),
            ("cs/0112017", "cs/0112017", None),
            ("math.GT/0309136v12", "math/0309136", Some(12)),
            ("cond-mat.str-el/0501001", "cond-mat/0501001", None),
            ("oai:arXiv.org:cmp-lg/9607026", "cmp-lg/9607026", None),
            ("oai:arXiv.org:2509.13332v1", "2509.13332", Some(1)),
            (" arXiv:1805.08875v2\n", "1805.08875", Some(2)),
            ("http://arxiv.org/abs/quant-ph/0201082v1", "quant-ph/0201082", Some(1)),
            ("https://arxiv.org/pdf/2202.12139v1.pdf", "2202.12139", Some(1)),
            ("https://export.arxiv.org/abs/2202.12139?context=cs", "2202.12139", None),
        ] {
            let expected = Identifier { id: id.to_owned(), version };
            assert_eq!(Identifier::parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_identifier_is_none() {
        for text in [
            "",
            "v1",
            "abc",
            "oai:doaj.org/article:84d148928d694848ab183fa142fc18f8",
            "10.1103/PhysRevD.76.013009",
            "hdl:1765/1160",
            "0000.0000",
            "2113.00001",
            "2104.122555",
            "2104.12255v0",
            "2104.12255v",
            "cs/011201",
            "CS/0112017",
            "https://example.org/abs/2104.12255",
            "https://arxiv.org/api/errors#incorrect_id_format_for_abc",
            "https://evilarxiv.org/abs/2104.12255",
            "2104.1225５",
            "oai:arXiv.org:",
        ] {
            assert_eq!(Identifier::parse(text), None, "{text}");
        }
    }
}
