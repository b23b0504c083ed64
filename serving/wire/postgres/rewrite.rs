//! Questions to PostgreSQL's catalog that the query engine cannot answer as drivers write them, in a form that it can.
//!
//! | a driver asks for | here | instead |
//! | --- | --- | --- |
//! | defaults, sequences, collations of a column, by a subquery | there are none | null |
//! | a value of a column's type, by a subquery | it is one | the largest, which the engine knows to be one |
//! | columns of keys and indices, unpacked | there are neither | null |
//! | a pattern with an escape character of its own | the engine knows the backslash only | that |

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, SelectItem, SetExpr, Statement, TableFactor, Value, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// Tables that have no row for any column of ours.
const WITHOUT_ROWS: &[&str] = &["pg_attrdef", "pg_sequence", "pg_collation"];

/// Columns of keys and indices that are lists.
const LISTS: &[&str] = &["indkey", "indclass", "conkey", "confkey"];

/// Rewrites a statement that asks PostgreSQL's catalog.
pub(crate) fn rewrite(mut statement: Statement) -> Statement {
    let done: ControlFlow<()> = visit_expressions_mut(&mut statement, |expression| {
        if let Some(instead) = instead_of(expression) {
            *expression = instead;
        }
        ControlFlow::Continue(())
    });
    debug_assert!(done.is_continue(), "nothing stops it");
    statement
}

fn instead_of(expression: &mut Expr) -> Option<Expr> {
    match expression {
        Expr::Subquery(query) => {
            let SetExpr::Select(select) = query.body.as_mut() else { return None };
            let TableFactor::Table { name, .. } = &select.from.first()?.relation else { return None };
            let table = last(name);
            if WITHOUT_ROWS.contains(&table.as_str()) {
                return parsed("CAST(NULL AS VARCHAR)");
            }
            let [SelectItem::UnnamedExpr(column)] = &mut select.projection[..] else { return None };
            if table == "pg_type" && matches!(column, Expr::CompoundIdentifier(_)) {
                *column = parsed(&format!("max({column})"))?;
            }
            None
        }
        Expr::Function(function) => {
            let text = function.to_string().to_lowercase();
            let is_list = ["unnest", "generate_subscripts"].contains(&last(&function.name).as_str());
            match last(&function.name).as_str() {
                "pg_get_indexdef" => parsed("CAST(NULL AS VARCHAR)"),
                _ if is_list && LISTS.iter().any(|list| text.contains(list)) => parsed("CAST(NULL AS INT)"),
                _ => None,
            }
        }
        Expr::CompoundIdentifier(names) if names.last()?.value == "reloptions" => parsed("CAST(NULL AS VARCHAR)"),
        Expr::Like { escape_char, pattern, .. } | Expr::ILike { escape_char, pattern, .. } => {
            let escape = escape_char.take()?;
            if let (Expr::Value(text), Value::SingleQuotedString(escape)) = (pattern.as_mut(), &escape.value)
                && let Value::SingleQuotedString(text) = &mut text.value
            {
                *text = text.replace(escape.as_str(), "\\");
            }
            None
        }
        _ => None,
    }
}

fn last(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|name| name.value.to_lowercase()).unwrap_or_default()
}

fn parsed(text: &str) -> Option<Expr> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_expr()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        rewrite(Parser::parse_sql(&PostgreSqlDialect {}, text).expect(text).remove(0)).to_string()
    }

    #[test]
    fn what_there_is_none_of_is_null_and_the_rest_stays() {
        let of = |text: &str| rewritten(&format!("SELECT {text} FROM pg_catalog.pg_attribute AS a"));
        let null = "SELECT CAST(NULL AS VARCHAR) FROM pg_catalog.pg_attribute AS a";
        assert_eq!(of("(SELECT d.adbin FROM pg_catalog.pg_attrdef d WHERE d.adnum = a.attnum)"), null);
        assert_eq!(of("pg_catalog.pg_get_indexdef(a.x, 1, true)"), null);
        let kind = of("(SELECT pg_type.typname FROM pg_catalog.pg_type WHERE pg_type.oid = a.atttypid)");
        assert!(kind.contains("max(pg_type.typname)"), "{kind}");
        assert!(of("unnest(i.indkey)").contains("CAST(NULL AS INT)"));
        assert!(of("unnest(a.list)").contains("unnest(a.list)"));
        assert_eq!(rewritten("SELECT 1 WHERE a LIKE 'pg/_%' ESCAPE '/'"), "SELECT 1 WHERE a LIKE 'pg\\_%'");
    }
}
