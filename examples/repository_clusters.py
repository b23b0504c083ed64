"""Clusters GitHub's repositories by features that a view computes, and writes the clusters back into that view."""

from pathlib import Path

import numpy
import polars
from sklearn.cluster import KMeans

import databroker

VIEW = Path(__file__).with_name("repository_features.sql")

# Columns of the view, in the order of its centres.
FEATURES = ["push_share", "talk_share", "pull_share", "interest_share", "ref_share", "bot_share", "people_share"]

# The line of the view that stands where no model is yet.
NO_MODEL = "(CAST(NULL AS BIGINT), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)"

OTHER_FOLDER = "Is `{}` the broker's `cold.views_folder`? --data or --views says where that is."

# The view's file shows the centres, so they have no more digits than a reader takes in.
CENTRE_DIGITS = 4
SEED = 0


def read_arguments():
    parser = databroker.parser(__doc__)
    parser.add_argument("--http", default="http://127.0.0.1:8080", help="where the broker answers HTTP")
    parser.add_argument("--data", default="data", help="the broker's data directory")
    parser.add_argument("--views", help="the broker's `cold.views_folder` (default: views of the data directory)")
    parser.add_argument("--clusters", type=int, default=6, help="clusters, so many at the most")
    parser.add_argument("--events-min", type=int, default=2, help="repositories with fewer events are not learned from")
    parser.add_argument("--like", metavar="OWNER/NAME", help="also name the repositories that are nearest to this one")
    arguments = parser.parse_args()
    arguments.views = Path(arguments.views or Path(arguments.data, "views"))
    return arguments


def put_view(folder, text):
    """Puts the view's file into the broker's folder as a whole: the broker may read it at any moment."""
    folder.mkdir(exist_ok=True)
    unfinished = folder / f"{VIEW.name}.unfinished"
    unfinished.write_text(text)
    unfinished.replace(folder / VIEW.name)


def run_view(arguments):
    """Has the broker bring `gold.repository_features` up to date."""
    lines = databroker.request(arguments.http, arguments.token, "/api/commands/views-run", {"names": [VIEW.stem]})
    if "error" in lines[-1]:
        error = lines[-1]["error"]
        databroker.end(error["exit_code"], f"{error['message']}\n{OTHER_FOLDER.format(arguments.views)}")
    [run] = lines[-1]["result"]["views"]
    print(f"gold.{VIEW.stem}: " + ("nothing changed" if run["mode"] == "nothing" else f"{run['rows']:,} rows stored"))


def read_view(arguments, has_model):
    """What the view shows, a row for each repository; it has clusters once the view has a model."""
    [answer] = databroker.request(arguments.http, arguments.token, f"/api/views/{VIEW.stem}")
    if not answer["rows"]:
        databroker.end(databroker.NOT_ENOUGH, "There are no repositories yet: try `databroker up --sample`.")
    if all((row["cluster_number"] is not None) != has_model for row in answer["rows"]):
        folder = OTHER_FOLDER.format(arguments.views)
        databroker.end(databroker.WRONG_USE, f"The broker reads another file of this name.\n{folder}")
    return polars.DataFrame(answer["rows"], infer_schema_length=None)


def learn(features, clusters):
    """Centres of clusters, that of the largest first."""
    points = features.select(FEATURES).to_numpy()
    clusters = min(clusters, len(numpy.unique(points, axis=0)))
    model = KMeans(clusters, n_init=10, random_state=SEED).fit(points)
    sizes = numpy.bincount(model.labels_, minlength=clusters)
    # Adding 0 makes -0.0 a plain 0.0.
    return numpy.round(model.cluster_centers_[numpy.argsort(-sizes)], CENTRE_DIGITS) + 0.0


def with_model(centres):
    """The view's text with the centres in it."""
    text = VIEW.read_text()
    lines = [
        f"({number}, {', '.join(f'{value:.{CENTRE_DIGITS}f}' for value in centre)})"
        for number, centre in enumerate(centres)
    ]
    assert text.count(NO_MODEL) == 1, f"{VIEW} has one line for the model"
    return text.replace(NO_MODEL, ",\n        ".join(lines))


def distances(features, points):
    """The square of the distance of each row of features to each point."""
    return ((features.select(FEATURES).to_numpy()[:, None, :] - points[None, :, :]) ** 2).sum(axis=2)


def summary(features):
    """Of each cluster its size, its mean features, and its busiest repositories."""
    return (
        features.group_by("cluster_number")
        .agg(
            polars.len().alias("repositories"),
            polars.col("events").sum(),
            *(polars.col(name).mean().alias(name.removesuffix("_share")) for name in FEATURES),
            polars.col("repository").sort_by("events", descending=True).head(2).str.join(", ").alias("busiest"),
        )
        .sort("cluster_number")
    )


def nearest(features, name):
    """The repositories whose features are most like those of one."""
    one = features.filter(polars.col("repository") == name)
    if one.is_empty():
        databroker.end(databroker.NOT_ENOUGH, f"There are no events of the repository `{name}`.")
    distance = distances(features, one.select(FEATURES).to_numpy())[:, 0]
    others = features.with_columns(distance=distance).filter(polars.col("repository") != name)
    return others.sort("distance", polars.col("events") * -1, "repository").head(5)


def main():
    arguments = read_arguments()
    databroker.request(arguments.http, arguments.token, "/api/views")
    if not arguments.views.parent.is_dir():
        databroker.end(
            databroker.WRONG_USE,
            f"There is no folder `{arguments.views.parent}`: --data is the broker's data directory.",
        )
    # Until the model is learned, the view shows the features and no cluster.
    put_view(arguments.views, VIEW.read_text())
    run_view(arguments)
    features = read_view(arguments, has_model=False)
    learned = features.filter(polars.col("events") >= arguments.events_min)
    if learned.is_empty():
        databroker.end(
            databroker.NOT_ENOUGH, f"No repository has {arguments.events_min} events or more: lower --events-min."
        )

    centres = learn(learned, arguments.clusters)
    put_view(arguments.views, with_model(centres))
    placed = read_view(arguments, has_model=True)
    same = (distances(placed, centres).argmin(axis=1) == placed["cluster_number"].to_numpy()).sum()
    print(
        f"{len(centres)} clusters, learned from {learned.height:,} repositories "
        f"with {arguments.events_min} events or more\n"
        f"the broker places {same:,} of {placed.height:,} repositories where Python does\n"
    )
    databroker.show(summary(placed))
    if arguments.like:
        print(f"Most like {arguments.like}:\n")
        databroker.show(nearest(placed, arguments.like).select("repository", "events", "cluster_number", "distance"))


if __name__ == "__main__":
    main()
