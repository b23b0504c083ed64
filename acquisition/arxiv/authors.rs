//! Authors: from the forms in which arXiv writes them to names in parts.
//!
//! arXiv's own format gives the parts; the others give a line of names, which is split as its submitters are told to
//! write it: <https://info.arxiv.org/help/prep.html#authors>.

use std::collections::HashMap;

use super::text::{append, clean, mend};

/// One author, in the order of the paper.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Author {
    /// The family name, or the whole name of a collaboration.
    pub(super) keyname: String,
    /// Given names or initials.
    pub(super) forenames: Option<String>,
    /// `Jr.`, `III`.
    pub(super) suffix: Option<String>,
    /// Where the author works; several are joined by `; `.
    pub(super) affiliation: Option<String>,
}

impl Author {
    /// The name as one reads it: forenames, keyname, suffix.
    pub(super) fn name(&self) -> String {
        let parts = [self.forenames.as_deref(), Some(self.keyname.as_str()), self.suffix.as_deref()];
        parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// Splits `Philip C. de Myers Jr.`, of which no letter is changed; none if there is no name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let name = mend(name);
        let mut words: Vec<&str> = name.split(' ').filter(|word| !word.is_empty()).collect();
        if is_collaboration(&words) {
            return Some(Self { keyname: words.join(" "), ..Self::default() });
        }
        let suffix = take_suffix(&mut words);
        let last = words.len().checked_sub(1)?;
        let start = (1..last).rev().take_while(|&place| is_particle(words[place])).last().unwrap_or(last);
        let forenames = Some(words[..start].join(" ")).filter(|names| !names.is_empty());
        Some(Self { keyname: words[start..].join(" "), forenames, suffix, affiliation: None })
    }

    /// Splits `Myers, Philip C., Jr.` or `Myers Jr., Philip C.`, as Dublin Core has it; a name without a comma is a
    /// keyname.
    pub(super) fn from_inverted(name: &str) -> Option<Self> {
        let name = clean(name);
        let mut parts = name.split(',').map(str::trim);
        let mut keyname: Vec<&str> = parts.next()?.split(' ').filter(|word| !word.is_empty()).collect();
        let mut part = || parts.next().filter(|part| !part.is_empty()).map(str::to_owned);
        let (forenames, suffix) = (part(), part());
        let suffix = if forenames.is_some() { suffix.or_else(|| take_suffix(&mut keyname)) } else { suffix };
        let keyname = Some(keyname.join(" ")).filter(|keyname| !keyname.is_empty())?;
        Some(Self { keyname, forenames, suffix, affiliation: None })
    }
}

/// Splits a line of authors: `A. Smith (1), B. Jones Jr. (MIT) and C. de Vries ((1) Oxford)`.
pub(super) fn parse_authors(line: &str) -> Vec<Author> {
    let line = without_ties(&clean(line));
    let (names, mut legend) = split_legend(&line);
    let mut authors: Vec<Author> = Vec::new();
    for piece in split_names(names) {
        let (name, groups) = take_groups(piece);
        let name = strip_et_al(&name);
        if let (true, Some(before)) = (is_suffix(name) && groups.is_empty(), authors.last_mut()) {
            before.suffix = Some(name.to_owned());
            continue;
        }
        let mut affiliation = None;
        groups.iter().for_each(|group| legend.resolve(group, &mut affiliation));
        match Author::from_name(&spread(name)) {
            Some(author) => authors.push(Author { affiliation, ..author }),
            // A group after a comma belongs to the author before it.
            None => {
                if let (Some(before), Some(more)) = (authors.last_mut(), affiliation) {
                    append(&mut before.affiliation, &more);
                }
            }
        }
    }
    authors
}

/// TeX's `~` is a space that holds words together; in `\~n` it is an accent, which has become a letter before.
fn without_ties(line: &str) -> String {
    let mut before = ' ';
    let letters = line.chars().map(|letter| {
        let is_tie = letter == '~' && before != '\\';
        before = letter;
        if is_tie { ' ' } else { letter }
    });
    letters.collect()
}

/// `J.P.Hague` as `J. P. Hague`: a space after each point that a letter follows.
fn spread(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        out.push(letter);
        if letter == '.' && letters.peek().is_some_and(|next| next.is_alphabetic()) {
            out.push(' ');
        }
    }
    out
}

fn is_suffix(word: &str) -> bool {
    matches!(word.trim_end_matches('.'), "Jr" | "jr" | "Sr" | "sr" | "II" | "III" | "IV")
}

/// Takes the suffix that a name ends with. `V` after a single word is an initial.
fn take_suffix(words: &mut Vec<&str>) -> Option<String> {
    let last = words.last()?;
    let has_suffix = words.len() > 1 && is_suffix(last) || words.len() > 2 && *last == "V";
    if has_suffix { words.pop().map(str::to_owned) } else { None }
}

/// Words between forenames and family name that belong to the latter; those that arXiv itself takes for such in any
/// case. Source: <https://github.com/arXiv/arxiv-base/blob/develop/arxiv/authors/__init__.py>.
fn is_particle(word: &str) -> bool {
    const IN_ANY_CASE: &[&str] =
        &["da", "de", "del", "della", "dem", "der", "di", "la", "mac", "ter", "van", "vaziri", "von"];
    const PARTICLES: &[&str] = &[
        "af", "al", "av", "bin", "da", "das", "de", "degli", "dei", "del", "della", "den", "der", "des", "di", "do",
        "dos", "du", "el", "ibn", "la", "le", "les", "lo", "op", "t", "'t", "te", "ten", "ter", "van", "vande",
        "vanden", "vander", "vom", "von", "zu", "zum", "zur", "y",
    ];
    PARTICLES.contains(&word) || IN_ANY_CASE.iter().any(|known| known.eq_ignore_ascii_case(word))
}

fn is_collaboration(words: &[&str]) -> bool {
    let names = ["collaboration", "collaborations", "consortium", "team", "group"];
    words.iter().any(|word| names.iter().any(|name| word.eq_ignore_ascii_case(name)))
}

fn strip_et_al(name: &str) -> &str {
    let name = name.trim();
    for end in ["et al.", "et al", "et. al.", "and others"] {
        let Some(start) = name.len().checked_sub(end.len()).filter(|&start| name.is_char_boundary(start)) else {
            continue;
        };
        if name[start..].eq_ignore_ascii_case(end) && (start == 0 || name[..start].ends_with(' ')) {
            return name[..start].trim_end();
        }
    }
    name
}

/// Bytes of affiliations that numbers of one line are replaced by; 3,000 authors with 300 bytes each have 1 MB.
const RESOLVED_BYTES_MAX: usize = 4 << 20;

/// Affiliations by their numbers.
struct Legend<'a> {
    numbered: HashMap<&'a str, &'a str>,
    /// Bytes that may still be written.
    bytes_left: usize,
}

impl Legend<'_> {
    /// Appends what a group after a name says: the affiliations of its numbers, or itself.
    fn resolve(&mut self, group: &str, affiliation: &mut Option<String>) {
        let labels = || group.split([',', ';', ' ', '&', '*']).filter(|label| !label.is_empty() && *label != "and");
        let mut bytes = 0;
        let are_all_known = labels().all(|label| {
            bytes += self.numbered.get(label).map_or(0, |text| text.len());
            self.numbered.contains_key(label) && bytes <= self.bytes_left
        });
        if !are_all_known || labels().next().is_none() {
            return append(affiliation, &mend(group));
        }
        self.bytes_left -= bytes;
        labels().for_each(|label| append(affiliation, self.numbered[label]));
    }
}

/// The names, and the affiliations of the closing `((1) Oxford, (2) MIT)` by their numbers.
fn split_legend(line: &str) -> (&str, Legend<'_>) {
    let mut legend = Legend { numbered: HashMap::new(), bytes_left: RESOLVED_BYTES_MAX };
    let Some(start) = line.find("((") else { return (line, legend) };
    let Some(mut rest) = line[start + 1..].strip_suffix(')') else { return (line, legend) };
    while let Some((_, after)) = rest.split_once('(') {
        let Some((label, text)) = after.split_once(')') else { break };
        // The text goes on to the next label, over groups that are none.
        let end = (0..text.len()).find(|&at| text.as_bytes()[at] == b'(' && is_label(&text[at + 1..]));
        let end = end.unwrap_or(text.len());
        let affiliation = text[..end].trim_matches([' ', ',', ';']);
        let affiliation = affiliation.strip_suffix(" and").unwrap_or(affiliation);
        legend.numbered.entry(label.trim()).or_insert(affiliation);
        rest = &text[end..];
    }
    (&line[..start], legend)
}

/// Whether a group starts here that numbers an affiliation: `2)`, `a)`.
fn is_label(text: &str) -> bool {
    match text.as_bytes() {
        [one, b')', ..] => one.is_ascii_alphanumeric(),
        [one, two, b')', ..] => one.is_ascii_alphanumeric() && two.is_ascii_alphanumeric(),
        _ => false,
    }
}

/// Cuts at commas, semicolons, colons, `and` and `&` that stand in no parentheses.
fn split_names(line: &str) -> Vec<&str> {
    let (mut pieces, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, letter) in line.char_indices() {
        let separator = match letter {
            '(' => {
                depth += 1;
                0
            }
            ')' => {
                depth = depth.saturating_sub(1);
                0
            }
            ',' | ';' | ':' => 1,
            ' ' if line[at..].starts_with(" and ") => " and ".len(),
            ' ' if line[at..].starts_with(" & ") => " & ".len(),
            _ => 0,
        };
        if separator > 0 && depth == 0 && at >= start {
            pieces.push(&line[start..at]);
            start = at + separator;
        }
    }
    pieces.push(&line[start.min(line.len())..]);
    // `A, B, and C` leaves an `and` before C.
    pieces.into_iter().map(|piece| piece.trim()).map(|piece| piece.strip_prefix("and ").unwrap_or(piece)).collect()
}

/// The name without its groups in parentheses, and the groups.
fn take_groups(piece: &str) -> (String, Vec<&str>) {
    let (mut name, mut groups, mut rest) = (String::new(), Vec::new(), piece);
    while let Some((before, after)) = rest.split_once('(') {
        name.push_str(before);
        let mut depth = 1_usize;
        let end = after.char_indices().find(|&(_, letter)| {
            match letter {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let (group, next) = end.map_or((after, ""), |(at, _)| (&after[..at], &after[at + 1..]));
        groups.push(group.trim());
        rest = next;
    }
    name.push_str(rest);
    groups.retain(|group| group.contains(char::is_alphanumeric));
    (mend(&name), groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(author: &Author) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let Author { keyname, forenames, suffix, affiliation } = author;
        format!("{keyname}|{}|{}|{}", part(forenames), part(suffix), part(affiliation))
    }

    fn all(line: &str) -> Vec<String> {
        parse_authors(line).iter().map(show).collect()
    }

    #[test]
    fn names_are_split_where_a_reader_would() {
        for (name, expected) in [
            ("Caprice Stanley", "Stanley|Caprice||"),
            ("Neal J. Evans II", "Evans|Neal J.|II|"),
            ("Robert P. C. de Marrais", "de Marrais|Robert P. C.||"),
            ("J. van der Berg", "van der Berg|J.||"),
            ("Simon J.A. Malham", "Malham|Simon J.A.||"),
            ("Plato", "Plato|||"),
            ("de Vries", "Vries|de||"),
            ("M. De Napoli", "De Napoli|M.||"),
            ("Saunders Mac Lane", "Mac Lane|Saunders||"),
            ("J. VAN DER BERG", "VAN DER BERG|J.||"),
            ("Le Minh Ha", "Ha|Le Minh||"),
            ("William Smith V", "Smith|William|V|"),
            ("Kumar V", "V|Kumar||"),
            ("The BABAR Collaboration", "The BABAR Collaboration|||"),
            ("II", "II|||"),
        ] {
            assert_eq!(show(&Author::from_name(name).unwrap()), expected, "{name}");
        }
        assert_eq!(Author::from_name(" "), None);
        assert_eq!(show(&Author::from_inverted("Luger, Rodrigo, Jr.").unwrap()), "Luger|Rodrigo|Jr.|");
        assert_eq!(show(&Author::from_inverted("Rodrigues Jr, W. A.").unwrap()), "Rodrigues|W. A.|Jr|");
        assert_eq!(show(&Author::from_inverted(r#"M\"uller, J\'anos"#).unwrap()), "Müller|János||");
        assert_eq!(show(&Author::from_inverted("CMS Collaboration").unwrap()), "CMS Collaboration|||");
        assert_eq!(show(&Author::from_inverted("Apollo II").unwrap()), "Apollo II|||");
        assert_eq!(Author::from_inverted(", x"), None);
    }

    #[test]
    fn a_line_of_authors_is_split_at_commas_and_ands() {
        assert_eq!(
            all("A.A. Serga, M. Kostylev, and B. Hillebrands"),
            ["Serga|A. A.||", "Kostylev|M.||", "Hillebrands|B.||"]
        );
        assert_eq!(all(r"N.d'Ambrumenil, P\'eter E. Frenkel"), ["d'Ambrumenil|N.||", "Frenkel|Péter E.||"]);
        assert_eq!(all(r"Jaime Alvarez-Mu\~niz, A.~Smith"), ["Alvarez-Muñiz|Jaime||", "Smith|A.||"]);
        assert_eq!(all("Ileana Streinu and Louis Theran"), ["Streinu|Ileana||", "Theran|Louis||"]);
        assert_eq!(all("The BABAR Collaboration, B. Aubert, et al"), ["The BABAR Collaboration|||", "Aubert|B.||"]);
        assert_eq!(all("CMS Collaboration: S. Chatrchyan et al."), ["CMS Collaboration|||", "Chatrchyan|S.||"]);
        assert_eq!(all("D. Edstrom, Jr., Andrea Sandoval"), ["Edstrom|D.|Jr.|", "Sandoval|Andrea||"]);
        assert_eq!(all(""), Vec::<String>::new());
    }

    #[test]
    fn affiliations_go_with_their_authors() {
        assert_eq!(
            all(
                "Bernhard M\\\"uller (1,2), Alexander Heger (2 and 3) ((1) Queen's College, (2) Monash (Clayton), (3) Shanghai)"
            ),
            ["Müller|Bernhard||Queen's College; Monash (Clayton)", "Heger|Alexander||Monash (Clayton); Shanghai"],
        );
        assert_eq!(all("V. M. Biryukov (Serpukhov, IHEP)"), ["Biryukov|V. M.||Serpukhov, IHEP"]);
        assert_eq!(all("A. Smith (1)"), ["Smith|A.||1"], "a number without its legend");
        assert_eq!(all("A. Smith (MIT), (Oxford), B. Jones (("), ["Smith|A.||MIT; Oxford", "Jones|B.||"]);
    }

    #[test]
    fn endless_lines_of_authors_are_read_in_bounded_time() {
        let size = 2 << 20;
        for (piece, count) in [("((", 1), ("((1)", 1), ("A (1), ", 400_000), ("(x), ", 1), ("~", 0)] {
            for end in ["", ")"] {
                let line = format!("A (x), {}{end}", piece.repeat(size / piece.len()));
                assert!(parse_authors(&line).len() <= count + 2, "{piece}");
            }
        }
        let line = format!("{}((1) {})", "A (1,1), ".repeat(size / 16), "x".repeat(size / 2));
        let bytes: usize = parse_authors(&line).iter().flat_map(|author| &author.affiliation).map(String::len).sum();
        assert!(bytes <= RESOLVED_BYTES_MAX + size, "{bytes}");
    }

    #[test]
    fn odd_parentheses_do_no_harm() {
        for line in ["(((", ")))", "((1)", "((1) A", "(a)b(c", "((", "A ((1) (2) (", "é((é)é)"] {
            let read = parse_authors(line);
            assert!(read.len() <= 2, "{line}: {read:?}");
        }
    }
}
