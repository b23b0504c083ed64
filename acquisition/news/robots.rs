//! What a site's robots.txt allows. Source: RFC 9309, <https://www.rfc-editor.org/rfc/rfc9309>.

/// Bytes that are read of a file; section 2.5 asks for at least this.
pub(super) const ROBOTS_BYTES_MAX: usize = 512 << 10;

/// Rules of one group; more are not looked at.
const RULES_MAX: usize = 5_000;

/// What one site allows to one crawler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Robots {
    /// All: there is no file.
    Open,
    /// Nothing: whether there is a file cannot be told (section 2.3.1.4).
    Closed,
    /// What its rules say.
    Rules(Vec<Rule>),
}

/// One line `Allow` or `Disallow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    allows: bool,
    /// With `*` for anything and, at its end, `$` for the end.
    pattern: String,
}

impl Robots {
    /// Reads the groups that name `crawler` (`databroker`, lower case), or else those for all.
    pub(super) fn read(bytes: &[u8], crawler: &str) -> Self {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(ROBOTS_BYTES_MAX)]);
        let (mut own, mut common): (Option<Vec<Rule>>, Vec<Rule>) = (None, Vec::new());
        // The agents of the group that is being read, and whether a rule of it came: the next agent begins another.
        let (mut is_own, mut is_common, mut in_rules) = (false, false, false);
        for line in text.trim_start_matches('\u{feff}').split(['\n', '\r']) {
            let line = line.split('#').next().unwrap_or_default();
            let Some((key, value)) = line.split_once(':') else { continue };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            if matches!(key.as_str(), "user-agent" | "useragent" | "user agent") {
                if std::mem::take(&mut in_rules) {
                    (is_own, is_common) = (false, false);
                }
                // Only the product's name counts, not its version.
                let is_name = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_');
                let name: Vec<u8> = value.bytes().take_while(is_name).collect();
                is_common |= value.starts_with('*');
                if name.eq_ignore_ascii_case(crawler.as_bytes()) {
                    is_own = true;
                    own.get_or_insert_default();
                }
                continue;
            }
            let allows = match key.as_str() {
                "allow" => true,
                "disallow" => false,
                _ => continue,
            };
            in_rules = true;
            let is_pattern = value.starts_with(['/', '*']);
            let groups = [own.as_mut().filter(|_| is_own), Some(&mut common).filter(|_| is_common)];
            for rules in groups.into_iter().flatten().filter(|rules| is_pattern && rules.len() < RULES_MAX) {
                rules.push(Rule { allows, pattern: normal(value) });
            }
        }
        Self::Rules(own.unwrap_or(common))
    }

    /// Whether a path with its query may be fetched: the longest rule that matches says so, and `Allow` of two as long.
    pub(super) fn allow(&self, path: &str) -> bool {
        let rules = match self {
            Self::Open => return true,
            Self::Closed => return false,
            Self::Rules(rules) => rules,
        };
        let path = normal(path);
        let matching = rules.iter().filter(|rule| is_match(rule.pattern.as_bytes(), path.as_bytes()));
        matching.max_by_key(|rule| (rule.pattern.len(), rule.allows)).is_none_or(|rule| rule.allows)
    }
}

/// Escapes in one form: `%7e` and `~` are the same, `%2F` and `/` are not; letters beyond ASCII as escapes. Section 2.2.2.
fn normal(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = bytes.get(at + 1..at + 3).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = escape.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        at += if escaped.is_some() { 3 } else { 1 };
        match escaped.unwrap_or(byte) {
            plain if plain.is_ascii_alphanumeric() || b"-._~".contains(&plain) => out.push(char::from(plain)),
            other if escaped.is_none() && other.is_ascii() => out.push(char::from(other)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// Whether a pattern matches the start of a path. Each `*` takes as little as it can, so this is linear in practice and
/// at worst the product of both lengths.
fn is_match(pattern: &[u8], path: &[u8]) -> bool {
    let (pattern, is_anchored) = match pattern.strip_suffix(b"$") {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let mut pieces = pattern.split(|&byte| byte == b'*');
    let Some(mut rest) = pieces.next().and_then(|first| path.strip_prefix(first)) else { return false };
    let mut pieces: Vec<&[u8]> = pieces.collect();
    if pieces.is_empty() {
        return !is_anchored || rest.is_empty();
    }
    let last = if is_anchored { pieces.pop() } else { None };
    for piece in pieces {
        let Some(place) = memchr::memmem::find(rest, piece) else { return false };
        rest = &rest[place + piece.len()..];
    }
    last.is_none_or(|last| rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(text: &str, path: &str) -> bool {
        Robots::read(text.as_bytes(), "databroker").allow(path)
    }

    #[test]
    fn the_own_group_counts_and_else_the_one_for_all() {
        let text = "User-agent: *\nDisallow: /\n\nUser-Agent: DataBroker/1.0\nUser-agent: other\nDisallow: /private\n";
        assert!(allows(text, "/news") && !allows(text, "/private/x"));
        assert!(!Robots::read(text.as_bytes(), "third").allow("/news"));
        assert!(allows("User-agent: other\nDisallow: /", "/"), "no group for it");
        let twice =
            "User-agent: databroker\nDisallow: /a\nUser-agent: x\nDisallow: /\nUser-agent: databroker\nDisallow: /b";
        assert!(!allows(twice, "/a") && !allows(twice, "/b") && allows(twice, "/c"), "groups of one name are one");
        assert!(allows("User-agent: *\nDisallow: /\nUser-agent: databroker\n", "/"), "an empty group allows all");
    }

    #[test]
    fn the_longest_rule_counts_and_allow_of_two_as_long() {
        let text = "user-agent:*\ndisallow:/a\nallow:/a/b # why\ndisallow:/a/b/c$\nallow:/same\ndisallow:/same\n";
        for (path, is_allowed) in
            [("/a", false), ("/a/b", true), ("/a/b/c", false), ("/a/b/c/d", true), ("/same", true), ("/", true)]
        {
            assert_eq!(allows(text, path), is_allowed, "{path}");
        }
        assert!(allows("user-agent: *\nDisallow:", "/"), "an empty rule says nothing");
    }

    #[test]
    fn stars_and_ends_are_understood() {
        for (pattern, path, is_match) in [
            ("/*.php", "/index.php?x", true),
            ("/*.php$", "/index.php?x", false),
            ("/*.php$", "/a.php/b.php", true),
            ("/fish*", "/fishheads", true),
            ("/a*b*c", "/a--b", false),
            ("*", "/", true),
            ("/$", "/", true),
            ("/$", "/a", false),
            ("/%7Ejoe", "/~joe/x", true),
            ("/a%2fb", "/a/b", false),
            ("/a%2fb", "/a%2Fb", true),
            ("/é", "/%c3%a9", true),
        ] {
            let text = format!("user-agent: *\ndisallow: {pattern}");
            assert_eq!(!allows(&text, path), is_match, "{pattern} {path}");
        }
        let stars = format!("user-agent: *\ndisallow: /{}x", "*a".repeat(2_000));
        assert!(allows(&stars, &format!("/{}", "a".repeat(8_000))));
    }

    #[test]
    fn what_is_no_rule_is_passed_over() {
        let text = "\u{feff}Sitemap: https://a.example/x\r\nUser agent: *\rCrawl-delay: 5\n<html>\nDisallow: /no\n";
        assert!(!allows(text, "/no") && allows(text, "/yes"));
        assert!(!Robots::Closed.allow("/") && Robots::Open.allow("/"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_rules(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), path: String) {
            Robots::read(&bytes, "databroker").allow(&path);
        }
    }
}
