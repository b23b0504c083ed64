//! Addresses in comments and abstracts, and the code repositories among them.

use super::identifier::strip_prefix;
use super::text::head;

/// Addresses that a paper's texts name, at the most; more are a list that someone pasted.
const LINKS_MAX: usize = 64;

/// Bytes of a text that are looked through; abstracts have 2,000.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Bytes of an address; what is longer is cut.
const LINK_BYTES_MAX: usize = 2_000;

/// Hosts of code; a repository there is `HOST/OWNER/NAME`.
const CODE_HOSTS: &[&str] = &["github.com", "gitlab.com", "bitbucket.org", "codeberg.org"];

/// First parts of paths on github.com that are no owners.
const NOT_OWNERS: &[&str] = &[
    "about",
    "apps",
    "collections",
    "contact",
    "enterprise",
    "explore",
    "features",
    "marketplace",
    "orgs",
    "pricing",
    "search",
    "settings",
    "site",
    "sponsors",
    "topics",
    "trending",
    "users",
];

/// The addresses in a text, in order: those with `http`, `https` or `ftp`, and bare ones of hosts of code.
pub(super) fn find_links(text: &str) -> Vec<String> {
    let (text, mut links) = (head(text, TEXT_BYTES_MAX), Vec::new());
    let mut at = 0;
    while let Some(start) = next_start(text, at) {
        let (link, end) = take_link(&text[start..]);
        at = start + end.max(1);
        while !text.is_char_boundary(at) {
            at += 1;
        }
        let link = if link.contains("://") { link } else { format!("https://{link}") };
        let has_host = link.split_once("://").is_some_and(|(_, rest)| rest.contains('.'));
        if has_host && !links.contains(&link) {
            links.push(link);
        }
        if links.len() == LINKS_MAX {
            break;
        }
    }
    links
}

/// `github.com/OWNER/NAME` of an address, if it is of a repository.
pub(super) fn repository(link: &str) -> Option<String> {
    let path = link.split_once("://").map_or(link, |(_, rest)| rest);
    let path = path.split(['?', '#']).next()?;
    let mut parts = path.split('/');
    let host = parts.next()?.to_ascii_lowercase();
    let host = host.strip_prefix("www.").unwrap_or(&host);
    let (owner, name) = (parts.next()?, parts.next()?);
    let name = name.strip_suffix(".git").unwrap_or(name).trim_end_matches(['.', '-']);
    let is_plain = |part: &str| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !part.is_empty() && part.len() <= 100 && part.bytes().all(is_name) && part.bytes().any(|byte| byte != b'.')
    };
    let is_owner = is_plain(owner) && !NOT_OWNERS.contains(&owner.to_ascii_lowercase().as_str());
    (CODE_HOSTS.contains(&host) && is_owner && is_plain(name)).then(|| format!("{host}/{owner}/{name}"))
}

/// The repositories among links, each once whatever the case of its letters.
pub(super) fn repositories<'a>(links: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for repository in links.into_iter().filter_map(|link| repository(link)) {
        if !found.iter().any(|known| known.eq_ignore_ascii_case(&repository)) {
            found.push(repository);
        }
        if found.len() == LINKS_MAX {
            break;
        }
    }
    found
}

/// Where the next address starts.
fn next_start(text: &str, from: usize) -> Option<usize> {
    let mut may_start = true;
    text.get(from..)?.char_indices().map(|(at, letter)| (from + at, letter)).find_map(|(at, letter)| {
        let is_start = may_start && letter.is_ascii_alphabetic() && starts_link(&text[at..]);
        may_start = !(letter.is_alphanumeric() || "/.-_@".contains(letter));
        is_start.then_some(at)
    })
}

/// Whether a scheme, or a host of code and a slash, stands here in any case.
fn starts_link(text: &str) -> bool {
    let has_scheme = ["http://", "https://", "ftp://"].iter().any(|scheme| strip_prefix(text, scheme).is_some());
    let host = strip_prefix(text, "www.").unwrap_or(text);
    has_scheme || CODE_HOSTS.iter().any(|code| strip_prefix(host, code).is_some_and(|path| path.starts_with('/')))
}

/// The address that `text` starts with, without the marks of the sentence around it and TeX's backslashes, and where it
/// ends.
fn take_link(text: &str) -> (String, usize) {
    let mut link = String::new();
    let mut end = 0;
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next().filter(|(at, _)| *at < LINK_BYTES_MAX) {
        match letter {
            '\\' if letters.peek().is_some_and(|(_, next)| "_%&#~".contains(*next)) => {}
            letter if letter.is_whitespace() || letter.is_control() || "\\<>\"{}|^`$".contains(letter) => break,
            letter => link.push(letter),
        }
        end = at + letter.len_utf8();
    }
    while let Some(last) = link.chars().next_back() {
        let opens = |open: char, close: char| link.matches(open).count() < link.matches(close).count();
        let is_mark = match last {
            ')' => opens('(', ')'),
            ']' => opens('[', ']'),
            last => ".,;:!?'*”’".contains(last),
        };
        if !is_mark {
            break;
        }
        link.pop();
    }
    (link, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_end_where_the_sentence_goes_on() {
        let text = r"Code: https://github.com/Owner/na.me.git. See (http://example.org/a_(b)), \url{http://x.org/~u/d\_e}; available at github.com/rodluger/planetplanet, notgithub.com/a/b and mail@github.com/x.";
        assert_eq!(
            find_links(text),
            [
                "https://github.com/Owner/na.me.git",
                "http://example.org/a_(b)",
                "http://x.org/~u/d_e",
                "https://github.com/rodluger/planetplanet",
            ]
        );
        assert_eq!(find_links("http:// https://x é http://é.org/é"), ["http://é.org/é"]);
        assert_eq!(find_links(&"http://a.b/1 http://a.b/2 ".repeat(99)).len(), 2);
    }

    #[test]
    fn hosts_of_code_are_found_bare_and_in_any_case() {
        assert_eq!(
            find_links("www.github.com/a/b, (GitHub.com/c/d) HTTP://x.org; xgithub.com/e/f /github.com/g/h www.x.org"),
            ["https://www.github.com/a/b", "https://GitHub.com/c/d", "HTTP://x.org"]
        );
        assert_eq!(repositories(&find_links("www.GitHub.com/a/b")), ["github.com/a/b"]);
    }

    #[test]
    fn endless_links_are_read_in_bounded_time() {
        for piece in ["http://a.b ", "http://a.b", "http://", "http://a.b)", "www.", "github.com", "é", "a/"] {
            let links = find_links(&piece.repeat((8 << 20) / piece.len()));
            assert!(links.len() <= LINKS_MAX && links.iter().all(|link| link.len() < 3_000), "{piece}");
        }
        let many: Vec<String> = (0..100_000).map(|number| format!("https://github.com/a/{number}")).collect();
        assert_eq!(repositories(&many).len(), LINKS_MAX);
    }

    #[test]
    fn repositories_are_normalised() {
        for (link, expected) in [
            ("https://github.com/Owner/na.me.git", Some("github.com/Owner/na.me")),
            ("http://www.github.com/owner/name/tree/main/x?tab=1", Some("github.com/owner/name")),
            ("https://GitHub.com/owner/name#readme", Some("github.com/owner/name")),
            ("https://gitlab.com/group/project", Some("gitlab.com/group/project")),
            ("https://github.com/owner", None),
            ("https://github.com/topics/rust", None),
            ("https://owner.github.io/name", None),
            ("https://example.org/owner/name", None),
            ("https://github.com/../..", None),
        ] {
            assert_eq!(repository(link).as_deref(), expected, "{link}");
        }
        let links = ["https://github.com/a/B".to_owned(), "https://github.com/A/b/issues".to_owned()];
        assert_eq!(repositories(&links), ["github.com/a/B"]);
    }
}
