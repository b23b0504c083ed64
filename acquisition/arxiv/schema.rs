//! The columns of `silver.arxiv`, once: the list and the places by which the processor writes them.

use contract::{Column, Kind, Search};

use crate::columns::columns;

const fn member(name: &'static str, kind: Kind, doc: &'static str) -> Column {
    Column { name, kind, search: Search::Exact, doc }
}

const AUTHOR: &[Column] = &[
    member("authors.keyname", Kind::Text, "Family name, or the whole name of a collaboration."),
    member("authors.forenames", Kind::Text, "Given names or initials."),
    member("authors.suffix", Kind::Text, "`Jr.`, `III`."),
    member("authors.affiliation", Kind::Text, "Where the author works; several are joined by `; `."),
];

const ONE_VERSION: &[Column] = &[
    member("versions.version", Kind::Integer, "Its number, from 1 on."),
    member("versions.submitted_at", Kind::Text, "When it was submitted, RFC 3339 in UTC."),
    member("versions.size", Kind::Text, "Size of its source, as arXiv writes it: `69kb`."),
    member(
        "versions.source_type",
        Kind::Text,
        "Letters of its source: `D` a document, `S` encrypted, `I` nothing left.",
    ),
];

columns! {
    "arxiv" by Month
    ARXIV_ID = "arxiv_id", Text, Exact, "The paper, without version: `2104.12255`, `cs/0112017`.";
    VERSION = "version", Integer, Exact, "The version that the row describes, from 1 on; absent where the format `arXiv` or `oai_dc` names none.";
    FORMAT = "format", Text, Exact, "What it was read from: `arXiv`, `arXivRaw`, `oai_dc`, `atom`, `rss`, `snapshot`; `header` of a deleted record.";
    URL = "url", Text, Exact, "Web page of the paper.";
    TITLE = "title", Text, Words, "Title: white space mended, TeX accents as Unicode, in feeds letters that were encoded twice decoded.";
    TITLE_RAW = "title_raw", Text, Exact, "Title as it was written, where that differs in more than white space.";
    ABSTRACT = "abstract", Text, Words, "Abstract, in the same way.";
    ABSTRACT_RAW = "abstract_raw", Text, Exact, "Abstract as it was written, where that differs in more than white space.";
    AUTHORS = "authors", StructList(AUTHOR), Exact, "Authors in order, by parts of the name.";
    AUTHOR_NAMES = "author_names", TextList, Words, "Authors in order, as one reads them: forenames, keyname, suffix.";
    AUTHOR_COUNT = "author_count", Integer, Exact, "How many authors.";
    SUBMITTER = "submitter", Text, Exact, "Who submitted it; formats `arXivRaw` and `snapshot`.";
    CATEGORIES = "categories", TextList, Exact, "Codes of categories in order: `cs.LG`, `stat.ML`; in `atom` after them also the classes that it lists there.";
    PRIMARY_CATEGORY = "primary_category", Text, Exact, "Code of the primary category: the first, unless the source names another.";
    CROSS_LISTS = "cross_lists", TextList, Exact, "Codes of the other categories.";
    CATEGORY_NAMES = "category_names", TextList, Exact, "Names of the categories in the same order: `Machine Learning`; the code where there is no name.";
    DOI = "doi", Text, Exact, "DOI of the published paper, as authors gave it; some give several with spaces between.";
    JOURNAL_REF = "journal_ref", Text, Words, "Where it was published.";
    REPORT_NO = "report_no", Text, Exact, "Number of the institution's report.";
    COMMENTS = "comments", Text, Words, "Comments of the authors.";
    PAGE_COUNT = "page_count", Integer, Exact, "Pages, as the comments say.";
    FIGURE_COUNT = "figure_count", Integer, Exact, "Figures, as the comments say.";
    MSC_CLASSES = "msc_classes", TextList, Exact, "Codes of the Mathematics Subject Classification.";
    ACM_CLASSES = "acm_classes", TextList, Exact, "Codes of the ACM Computing Classification System of 1998.";
    LICENSE = "license", Text, Exact, "Address of the licence.";
    PROXY = "proxy", Text, Exact, "Who submitted on behalf of the authors: `ccsd`.";
    SUBMITTED_AT = "submitted_at", Timestamp, Exact, "When the first version was submitted; midnight where the source gives the day.";
    UPDATED_AT = "updated_at", Timestamp, Exact, "When the newest version was submitted, where the source says so; `event_time` is the same or, without it, `submitted_at`, however late the record changed.";
    ANNOUNCED_AT = "announced_at", Timestamp, Exact, "When a listing announced it.";
    ANNOUNCE_TYPE = "announce_type", Text, Exact, "What a listing announced: `new`, `cross`, `replace`, `replace-cross`.";
    WITHDRAWN = "withdrawn", Boolean, Exact, "Whether the newest version has no files left, or comments or abstract say that it is withdrawn.";
    DELETED = "deleted", Boolean, Exact, "Whether the archive deleted the record.";
    VERSION_COUNT = "version_count", Integer, Exact, "How many versions there are; formats `arXivRaw` and `snapshot`.";
    VERSIONS = "versions", StructList(ONE_VERSION), Exact, "All versions, from the first on; formats `arXivRaw` and `snapshot`.";
    LINKS = "links", TextList, Exact, "Addresses that the source gives, and those in comments and abstract.";
    CODE_REPOSITORIES = "code_repositories", TextList, Exact, "Repositories among the links: `github.com/OWNER/NAME`.";
    DATESTAMP = "datestamp", Timestamp, Exact, "Day on which the record changed in the archive; only the archive's own records have it (OAI-PMH, snapshot).";
    SETS = "sets", TextList, Exact, "Sets of OAI-PMH that the record is in.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_constant_is_the_place_of_its_column() {
        assert_eq!(SCHEMA.place("arxiv_id"), ARXIV_ID);
        assert_eq!(SCHEMA.place("comments"), COMMENTS);
        assert_eq!(SETS, SCHEMA.all().count() - 1);
    }
}
