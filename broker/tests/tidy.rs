//! What keeps the tree readable, held by a test each.

use std::path::{Path, PathBuf};

/// Lines of a file at the most.
const FILE_LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Every file of the tree with one of the endings, but not what tools write.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("readable") {
            let path = entry.expect("readable").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() && !["target", "data", ".git"].contains(&name.as_str()) {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no file ends with {endings:?}");
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails with every line that `wrong` answers for a Rust file.
fn hold(rule: &str, wrong: impl Fn(&Path, &str) -> Vec<String>) {
    let broken: Vec<_> = files(&[".rs"])
        .iter()
        .filter(|path| !path.ends_with("broker/tests/tidy.rs"))
        .flat_map(|path| {
            wrong(path, &read(path)).into_iter().map(|what| format!("{}: {what}", path.display())).collect::<Vec<_>>()
        })
        .collect();
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

fn lines_with(text: &str, wrong: impl Fn(&str) -> bool) -> Vec<String> {
    (1..)
        .zip(text.lines())
        .filter(|(_, line)| wrong(line))
        .map(|(number, line)| format!("{number}: {}", line.trim()))
        .collect()
}

#[test]
fn a_file_has_at_most_500_lines() {
    hold("a file holds one thing", |_, text| {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX { vec![format!("{lines} lines")] } else { Vec::new() }
    });
}

#[test]
fn a_stage_depends_on_the_contract_alone() {
    let stages = [
        "acquisition",
        "embedded-log",
        "kafka-log",
        "processing",
        "hot-store",
        "cold-store",
        "serving",
        "sql-wire",
        "monitoring",
    ];
    for manifest in files(&["Cargo.toml"]) {
        let text = read(&manifest);
        let is_stage = stages.iter().any(|stage| text.contains(&format!("name = \"{stage}\"")));
        let depends = stages.iter().filter(|stage| {
            text.lines().any(|line| line.starts_with(&format!("{stage}.")) || line.starts_with(&format!("{stage} ")))
        });
        let depends: Vec<_> = depends.collect();
        assert!(!is_stage || depends.is_empty(), "{} depends on {depends:?}", manifest.display());
    }
}

#[test]
fn no_test_is_ignored_and_none_lacks_an_assertion() {
    hold("a test asserts", |_, text| {
        let mut wrong = lines_with(text, |line| line.trim_start().starts_with("#[ignore"));
        for test in text.split("#[test]\n").skip(1).chain(text.split("#[tokio::test").skip(1)) {
            let body = test.split("#[test]").next().unwrap_or(test);
            let asserts = ["assert", "expect", "panic!", "unwrap", "hold("].iter().any(|word| body.contains(word));
            // A property test says by not panicking that any input is taken.
            if !asserts && !text.contains("proptest!") {
                wrong.push(format!(
                    "no assertion in `{}`",
                    body.lines().find(|line| line.contains("fn ")).unwrap_or_default().trim()
                ));
            }
        }
        wrong.extend(lines_with(text, |line| line.trim_start().starts_with("matches!(") && line.ends_with(");")));
        wrong
    });
}

#[test]
fn every_channel_has_a_bound() {
    hold("a queue has a bound", |_, text| {
        lines_with(text, |line| {
            line.contains("unbounded_channel(") || line.contains("mpsc::channel::<") && line.contains("std::sync")
        })
    });
}

#[test]
fn work_left_to_do_has_an_issue() {
    let words = ["TO", "FIX", "XX"].map(|start| {
        format!(
            "{start}{}",
            if start == "TO" {
                "DO"
            } else if start == "FIX" {
                "ME"
            } else {
                "X"
            }
        )
    });
    hold("say it in an issue", |_, text| {
        lines_with(text, |line| words.iter().any(|word| line.contains(word.as_str())) && !line.contains('#'))
    });
}

#[test]
fn every_folder_of_acquisition_is_a_source() {
    let folders =
        std::fs::read_dir(root().join("acquisition")).expect("readable").map(|entry| entry.expect("readable").path());
    let folders: Vec<_> = folders.filter(|path| path.join("mod.rs").exists()).collect();
    for folder in &folders {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(
            acquisition::SOURCES.iter().any(|source| source.id.0 == name),
            "`acquisition/{name}` is not in `SOURCES`"
        );
    }
    assert_eq!(folders.len(), acquisition::SOURCES.len());
}

#[test]
fn paths_named_in_the_docs_exist() {
    for document in ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md", "STYLE.md"] {
        let text = read(&root().join(document));
        let quoted = text.split('`').skip(1).step_by(2);
        let paths = quoted.filter(|word| {
            word.trim_end_matches('/').contains('/')
                && !word.contains([' ', ':', '*', '<', '{', '$', '|'])
                && word.chars().next().is_some_and(|first| first.is_ascii_lowercase() || first == '.')
        });
        for path in paths.filter(|path| {
            path.ends_with(".rs")
                || path.ends_with(".md")
                || path.ends_with(".yml")
                || path.ends_with(".toml")
                || path.ends_with('/')
        }) {
            let existing = path.starts_with("data/") || root().join(path.trim_start_matches("./")).exists();
            assert!(existing, "{document} names `{path}`, which does not exist");
        }
    }
}

#[test]
fn the_documented_columns_are_those_of_the_schema() {
    for source in acquisition::SOURCES {
        let document = root().join("docs").join(format!("{}.md", source.id));
        let mut table = String::from("| column | type | search | says |\n| --- | --- | --- | --- |\n");
        let line = |column: &contract::Column| {
            let contract::Column { name, kind, search, doc } = column;
            match kind {
                contract::Kind::StructList(_) => format!("| `{name}` | StructList | its members: | {doc} |\n"),
                kind => format!("| `{name}` | {kind:?} | {search:?} | {doc} |\n"),
            }
        };
        for column in source.schema.all() {
            table.push_str(&line(column));
            if let contract::Kind::StructList(members) = column.kind {
                table.extend(members.iter().map(line));
            }
        }
        let current = root().join("acquisition").join(source.id.0).join("current.sql");
        if current.exists() {
            table.push_str(&format!("\n## Current rows\n\n```sql\n{}```\n", read(&current)));
        }
        let expected = format!(
            "# Columns of `silver.{0}`\n\nMade from `acquisition/{0}/schema.rs`; `UPDATE_EXPECT=1 ./test tidy` writes it anew.\n\n{table}",
            source.id
        );
        if std::env::var("UPDATE_EXPECT").is_ok() {
            std::fs::create_dir_all(root().join("docs")).expect("writable");
            std::fs::write(&document, &expected).expect("writable");
        }
        assert_eq!(read(&document), expected, "{} is not current", document.display());
    }
}
