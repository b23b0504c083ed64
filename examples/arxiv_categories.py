"""Learns arXiv's categories from abstracts that Flight SQL brings; each category's scores and most telling words."""

import numpy
import polars
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline

import databroker

# Silver has a row per change of a paper: the newest stands for it, or the same text would be learned and asked.
PAPERS = """
SELECT primary_category AS category, title || '. ' || abstract AS text
FROM (
    SELECT *, row_number() OVER (PARTITION BY arxiv_id ORDER BY event_time DESC, fetched_at DESC, _offset DESC) AS place
    FROM silver.arxiv
    WHERE deleted IS NOT TRUE AND primary_category IS NOT NULL AND title IS NOT NULL AND abstract <> ''
)
WHERE place = 1
ORDER BY event_time DESC, arxiv_id
LIMIT {papers_max}
"""

# Below so many papers a held-out fifth is too small to score categories by, so each fifth is held out in turn.
HELD_OUT_PAPERS_MIN = 5_000
PARTS = 5
SEED = 0


def read_arguments():
    parser = databroker.parser(__doc__)
    parser.add_argument("--flight-sql", default="grpc://127.0.0.1:8815", help="where the broker answers Flight SQL")
    parser.add_argument("--papers-max", type=int, default=100_000, help="the newest papers, so many at the most")
    parser.add_argument(
        "--category-papers-min", type=int, default=15, help="smaller categories are left out; 5 at least"
    )
    parser.add_argument("--words", type=int, default=6, help="telling words of each category")
    return parser.parse_args()


def large_enough(papers, papers_min):
    """The papers of categories that have enough of them; says what is left out."""
    kept = papers.filter(polars.len().over("category") >= papers_min)
    left_out = papers["category"].n_unique() - kept["category"].n_unique()
    print(
        f"{papers.height:,} papers; left out: {left_out} categories with fewer than {papers_min} papers, "
        f"together {papers.height - kept.height:,} papers"
    )
    if kept["category"].n_unique() < 2:
        databroker.end(
            databroker.NOT_ENOUGH,
            "Fewer than two categories are left, so there is nothing to tell apart: "
            "collect more, or lower --category-papers-min.",
        )
    return kept


def held_out(model, texts, categories):
    """Fits the model; true categories of papers that it had not seen, and what it says of them."""
    if len(texts) < HELD_OUT_PAPERS_MIN:
        folds = StratifiedKFold(PARTS, shuffle=True, random_state=SEED)
        predicted = cross_val_predict(model, texts, categories, cv=folds)
        model.fit(texts, categories)
        return f"each of {PARTS} parts held out in turn", categories, predicted
    learned, asked, learned_categories, true = train_test_split(
        texts, categories, test_size=1 / PARTS, stratify=categories, random_state=SEED
    )
    return f"{len(asked):,} papers held out", true, model.fit(learned, learned_categories).predict(asked)


def telling_words(model, words):
    """Of each category, the words that speak most for it."""
    vectorizer, classifier = model[0], model[-1]
    vocabulary = vectorizer.get_feature_names_out()
    weights = classifier.coef_
    if len(weights) == 1:
        # Of two categories only the second one's weights are kept; they speak against the first.
        weights = numpy.vstack([-weights, weights])
    return [", ".join(vocabulary[numpy.argsort(-row)[:words]]) for row in weights]


def main():
    arguments = read_arguments()
    papers_min = max(arguments.category_papers_min, PARTS)
    papers = databroker.query(arguments.flight_sql, arguments.token, PAPERS.format(papers_max=arguments.papers_max))
    if papers.is_empty():
        databroker.end(databroker.NOT_ENOUGH, "`silver.arxiv` has no papers yet: try `databroker up --sample`.")
    papers = large_enough(papers, papers_min)
    texts, categories = papers["text"].to_numpy(), papers["category"].to_numpy()

    model = make_pipeline(
        TfidfVectorizer(stop_words="english", sublinear_tf=True, min_df=2, token_pattern=r"(?u)\b[a-zA-Z]{3,}\b"),
        # Logistic regression, in seconds for ten thousands of papers where an exact solver takes minutes.
        SGDClassifier(loss="log_loss", alpha=1e-5, class_weight="balanced", random_state=SEED),
    )
    how, true, predicted = held_out(model, texts, categories)
    names = model.classes_
    precision, recall, f1, asked = precision_recall_fscore_support(true, predicted, labels=names, zero_division=0)
    counts = dict(papers["category"].value_counts().iter_rows())
    scores = polars.DataFrame(
        {
            "category": names,
            "papers": [counts[name] for name in names],
            "asked": asked,
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "telling words": telling_words(model, arguments.words),
        }
    )
    guess = max(numpy.mean(true == name) for name in names)
    print(
        f"{len(names)} categories, {papers.height:,} papers, {how}: {accuracy_score(true, predicted):.0%} right "
        f"(always the largest category: {guess:.0%}), mean F1 {f1.mean():.2f}\n"
    )
    databroker.show(scores.sort("papers", "category", descending=[True, False]))


if __name__ == "__main__":
    main()
