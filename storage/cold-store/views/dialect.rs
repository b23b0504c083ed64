//! A view's statement as Spark takes it.
//!
//! | here | on Spark |
//! | --- | --- |
//! | `unnest(x)`, `make_array(…)` | `explode(x)`, `array(…)` |
//! | `string_to_array(text, by)` | `split(text, concat('\\Q', by, '\\E'), -1)` |
//! | `sketch(x)` | the smallest hashes of the set of them; a NULL stays one, where Spark would hash it |
//! | `estimate(s)` | as `sketch.rs` computes it |
//! | `silver.github` | the view `` `silver.github` `` that `spark/run_view.py` makes of the table |
//! | `"name"`, `\` in a text | `` `name` ``, `\\` |
//!
//! What else differs between both has no place in a view: `docs/views.md` lists it.

use contract::{Error, Result};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::sketch::SKETCH_HASHES_MAX;

/// Rewrites a statement that was checked.
pub(super) fn for_spark(sql: &str) -> Result<String> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let tokens = tokens.map_err(|error| Error::change("rewrite a view for Spark").because(error))?;
    Ok(rewrite(&tokens))
}

/// The second statement over the rows of the first, in one query; all rows, where a view has none.
pub(super) fn shown_for_spark(stored: &str, shown: Option<&str>) -> Result<String> {
    let (stored, shown) = (for_spark(stored)?, for_spark(shown.unwrap_or("SELECT * FROM merged"))?);
    Ok(match shown.trim_start().split_at_checked(4) {
        Some((with, rest)) if with.eq_ignore_ascii_case("with") => format!("WITH merged AS ({stored}), {rest}"),
        _ => format!("WITH merged AS ({stored}) {shown}"),
    })
}

fn rewrite(tokens: &[Token]) -> String {
    let mut out = String::new();
    let mut at = 0;
    while at < tokens.len() {
        let (text, next) = match (&tokens[at], tokens.get(at + 1), tokens.get(at + 2)) {
            (Token::Word(word), Some(Token::LParen), _) if word.quote_style.is_none() && is_ours(&word.value) => {
                let (arguments, next) = arguments(tokens, at + 2);
                let arguments: Vec<_> = arguments.into_iter().map(|part| rewrite(part).trim().to_owned()).collect();
                (call(&word.value.to_lowercase(), &arguments), next)
            }
            (Token::Word(word), Some(Token::Period), Some(Token::Word(table))) if word.value == "silver" => {
                (format!("`silver.{}`", table.value), at + 3)
            }
            (Token::Word(word), ..) if word.quote_style.is_some() => {
                (format!("`{}`", word.value.replace('`', "``")), at + 1)
            }
            (Token::SingleQuotedString(text), ..) => {
                (format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")), at + 1)
            }
            (token, ..) => (token.to_string(), at + 1),
        };
        out += &text;
        at = next;
    }
    out
}

fn is_ours(function: &str) -> bool {
    ["unnest", "make_array", "string_to_array", "sketch", "estimate"]
        .iter()
        .any(|ours| function.eq_ignore_ascii_case(ours))
}

/// The arguments that begin at a place, and the place behind their closing bracket.
fn arguments(tokens: &[Token], from: usize) -> (Vec<&[Token]>, usize) {
    let (mut found, mut begin, mut depth) = (Vec::new(), from, 0_usize);
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => {
                found.push(&tokens[begin..at]);
                return (found, at + 1);
            }
            Token::RParen => depth -= 1,
            Token::Comma if depth == 0 => {
                found.push(&tokens[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    (found, tokens.len())
}

fn call(function: &str, arguments: &[String]) -> String {
    match (function, arguments) {
        ("unnest", _) => format!("explode({})", arguments.join(", ")),
        ("make_array", _) => format!("array({})", arguments.join(", ")),
        ("string_to_array", [text, by]) => format!("split({text}, concat('\\\\Q', {by}, '\\\\E'), -1)"),
        ("sketch", [value]) => format!(
            "slice(array_sort(collect_set(CASE WHEN ({value}) IS NOT NULL THEN xxhash64(CAST(({value}) AS STRING)) END)), \
             1, {SKETCH_HASHES_MAX})"
        ),
        ("estimate", [sketch]) => format!(
            "CASE WHEN cardinality({sketch}) < {SKETCH_HASHES_MAX} THEN CAST(cardinality({sketch}) AS BIGINT) ELSE \
             CAST(round({} / ((CAST(element_at({sketch}, {SKETCH_HASHES_MAX}) AS DOUBLE) + 9223372036854775808D) / \
             18446744073709551616D)) AS BIGINT) END",
            SKETCH_HASHES_MAX - 1
        ),
        // The planner has refused any other number of arguments.
        (function, _) => format!("{function}({})", arguments.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_tables_names_and_texts_are_sparks() {
        for (here, there) in [
            (
                "SELECT unnest(make_array(a, f(b, c))) FROM silver.news",
                "SELECT explode(array(a, f(b, c))) FROM `silver.news`",
            ),
            (r#"SELECT "a b", 'it''s \d' FROM merged"#, r"SELECT `a b`, 'it\'s \\d' FROM merged"),
            ("string_to_array(lower(x), ',')", r"split(lower(x), concat('\\Q', ',', '\\E'), -1)"),
            ("sketch (x), a.unnest", "sketch (x), a.unnest"),
        ] {
            assert_eq!(for_spark(here).unwrap(), there);
        }
        let shown = |second| shown_for_spark("SELECT 1", second).unwrap();
        assert_eq!(shown(Some("SELECT 2")), "WITH merged AS (SELECT 1) SELECT 2");
        assert_eq!(
            shown(Some("WITH a AS (SELECT 2) SELECT 3")),
            "WITH merged AS (SELECT 1),  a AS (SELECT 2) SELECT 3"
        );
        assert_eq!(shown(None), "WITH merged AS (SELECT 1) SELECT * FROM merged");
        let sketch = for_spark("sketch(CASE WHEN a THEN b END)").unwrap();
        assert!(sketch.contains("xxhash64(CAST((CASE WHEN a THEN b END) AS STRING))"), "{sketch}");
    }
}
