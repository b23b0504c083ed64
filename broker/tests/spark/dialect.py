"""A view's file in its parts, and its SQL as Spark takes it: the table of `docs/views.md`."""

import re

# A text, a quoted name, a comment, a word, or any one character.
TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|[A-Za-z_][A-Za-z_0-9]*|\s+|.", re.S)
SKETCH_MOST = 1024


def parse(text: str) -> dict:
    """The header's lines by name, and the two statements; the second shows all rows where the file has none."""
    header = dict(re.findall(r"^-- (\w+): (.*)$", text.split("\nSELECT")[0].split("\nWITH")[0], re.M))
    statements = [statement.strip() for statement in split(text)]
    return {
        "header": header,
        "stored": statements[0],
        "shown": statements[1] if len(statements) > 1 and statements[1] else "SELECT * FROM merged",
    }


def split(text: str) -> list:
    """The statements between semicolons that stand in no text and no comment."""
    parts = [""]
    for token in TOKEN.findall(text):
        if token == ";":
            parts.append("")
        elif not token.startswith("--"):
            parts[-1] += token
    return parts


def over_merged(stored: str, shown: str) -> str:
    """The second statement over the rows of the first, in one query."""
    if re.match(r"WITH\b", shown):
        return f"WITH merged AS ({stored}), {shown[4:].lstrip()}"
    return f"WITH merged AS ({stored}) {shown}"


def estimate(sketch: str) -> str:
    last = f"CAST(element_at({sketch}, {SKETCH_MOST}) AS DOUBLE)"
    part = f"(({last} + 9223372036854775808D) / 18446744073709551616D)"
    return (
        f"CASE WHEN cardinality({sketch}) < {SKETCH_MOST} THEN CAST(cardinality({sketch}) AS BIGINT) "
        f"ELSE CAST(round({SKETCH_MOST - 1} / {part}) AS BIGINT) END"
    )


# Spark hashes a NULL to the seed, and leaves out a NULL in a set: so it must stay one.
SPARK = {
    "unnest": lambda a: f"explode({a})",
    "make_array": lambda *a: f"array({', '.join(a)})",
    "string_to_array": lambda text, by: f"split({text}, concat('\\\\Q', {by}, '\\\\E'), -1)",
    "sketch": lambda a: (
        f"slice(array_sort(collect_set(CASE WHEN ({a}) IS NOT NULL THEN xxhash64(CAST(({a}) AS STRING)) END)), "
        f"1, {SKETCH_MOST})"
    ),
    "estimate": estimate,
}
# Stand-ins where the engine has no sketches: the values themselves.
VALUES_HERE = {
    "sketch": lambda a: f"array_sort(array_agg(DISTINCT CAST(({a}) AS STRING)) FILTER (WHERE ({a}) IS NOT NULL))",
    "estimate": lambda a: f"coalesce(cardinality({a}), 0)",
}
VALUES_SPARK = SPARK | {
    "sketch": lambda a: f"nullif(array_sort(collect_set(CAST(({a}) AS STRING))), array())",
    "estimate": lambda a: f"coalesce(cardinality({a}), 0)",
}


def rewrite(statement: str, functions: dict, for_spark: bool) -> str:
    """The statement with these functions; for Spark also with its texts and names of tables."""
    tokens = [token for token in TOKEN.findall(statement) if not token.startswith("--")]
    return rewrite_tokens(tokens, functions, for_spark)


def rewrite_tokens(tokens: list, functions: dict, for_spark: bool) -> str:
    out, at = "", 0
    while at < len(tokens):
        token = tokens[at]
        if token.lower() in functions and tokens[at + 1 : at + 2] == ["("]:
            arguments, at = arguments_from(tokens, at + 2)
            out += functions[token.lower()](*(rewrite_tokens(a, functions, for_spark).strip() for a in arguments))
            continue
        if for_spark and token.startswith("'"):
            token = token.replace("\\", "\\\\")
        elif for_spark and token.startswith('"'):
            token = "`" + token[1:-1].replace("`", "``") + "`"
        elif for_spark and token == "silver" and tokens[at + 1 : at + 2] == ["."]:
            token, at = f"`silver.{tokens[at + 2]}`", at + 2
        out, at = out + token, at + 1
    return out


def arguments_from(tokens: list, at: int) -> tuple:
    """The arguments that begin at a place, each as its tokens, and the place behind the closing bracket."""
    arguments, depth = [[]], 0
    while depth > 0 or tokens[at] != ")":
        depth += {"(": 1, ")": -1}.get(tokens[at], 0)
        if tokens[at] == "," and depth == 0:
            arguments.append([])
        else:
            arguments[-1].append(tokens[at])
        at += 1
    return arguments, at + 1
