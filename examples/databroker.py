"""What the examples share: where the broker answers, its SQL, its HTTP port, and how to end when it is not there."""

import argparse
import http.client
import json
import os
import sys
import urllib.error
import urllib.request

import adbc_driver_flightsql.dbapi as flight_sql
import polars

# Exit codes, as those of `databroker`: what was looked for is not there, wrong use, a peer is away.
NOT_ENOUGH = 1
WRONG_USE = 64
AWAY = 69

# Straight to the broker: a proxy of the environment does not know the ports of this machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def parser(description):
    """The flags of every example that asks a running broker."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--token",
        default=os.environ.get("DATABROKER_SERVING_TOKEN", ""),
        help="the broker's `serving.token`, if it has one; better in the environment as DATABROKER_SERVING_TOKEN",
    )
    return parser


def end(code, message):
    """Ends the program with a message for its user."""
    print(message, file=sys.stderr)
    sys.exit(code)


def query(address, token, sql):
    """The answer to a query by Arrow Flight SQL, as a frame of polars."""
    login = {"username": "examples", "password": token} if token else {}
    try:
        with flight_sql.connect(address, db_kwargs=login, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetch_polars()
    except (flight_sql.OperationalError, polars.exceptions.ComputeError) as error:
        # The second kind is the first one after the head of the answer.
        end(
            AWAY,
            f"failed to ask `{address}` by Flight SQL: {error}\n"
            "Is `databroker up` running, and --flight-sql its address?",
        )
    except flight_sql.Error as error:
        end(WRONG_USE, f"failed to ask `{address}` by Flight SQL: {error}")


def request(address, token, path, body=None):
    """The lines of an HTTP answer, each a JSON document; with a body it is a POST."""
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with OPENER.open(urllib.request.Request(address + path, data, headers)) as answer:
            return [json.loads(line) for line in answer]
    except urllib.error.HTTPError as error:
        # 429 and 503: it has too much to do, or is not ready yet.
        code = AWAY if error.code in (429, 503) else WRONG_USE
        end(code, f"failed to ask `{address}{path}`: {error}: {error.read().decode(errors='replace')}")
    except (OSError, http.client.HTTPException) as error:
        # The second kind is an answer that was cut.
        end(AWAY, f"failed to ask `{address}{path}`: {error}\nIs `databroker up` running, and --http its address?")


def show(frame):
    """Prints a frame as a plain table."""
    with polars.Config(
        tbl_formatting="NOTHING",
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=200,
        fmt_str_lengths=120,
        float_precision=2,
    ):
        print(frame, "\n")
