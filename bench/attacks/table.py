"""The tables of attacks: success by method, success against queries, and beside other libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.attacks.networks import NETWORKS
from bench.attacks.records import Record, paired, read_all, wilson
from bench.harness import RESULTS
from shoestring.zeroth.attacks.loop import METHODS

NOT_RUN: Final = "*not run yet*"
OLDER: Final = "†"
FOOTNOTE: Final = "† measured with older code."
BESIDE: Final = {
    "torchattacks-square": "square",
    "torchattacks-spsa": "spsa",
    "art-square": "square",
    "art-square-cached": "square",
    "art-zoo": "zoo",
}
"""Our method that each of the others is compared with."""
TITLES: Final = {
    "torchattacks-square": "torchattacks, Square",
    "torchattacks-spsa": "torchattacks, SPSA",
    "art-square": "ART, Square",
    "art-square-cached": "ART, Square, repeats free",
    "art-zoo": "ART, ZOO",
}
PLACES: Final = (10, 30, 100, 300, 1000)
"""Queries at which the curve is shown."""


def methods(results: Path = RESULTS) -> str:
    """Return success and queries of each of our methods on each network.

    Args:
        results: folder of all results.
    """
    found = [r for r in read_all(results) if r.who.startswith("ours/")]
    lines = []
    for targeted, norm in _balls(found):
        for kind in METHODS:
            row = [_one(found, f"ours/{kind.name}", n, norm, targeted) for n in NETWORKS]
            if any(row):
                lines.append([_aim(targeted, norm), kind.name, *map(_rate, row)])
    head = ["attack", "method", *NETWORKS]
    said = (
        "Share of the images for which the attack succeeds, its 95 % interval (Wilson), and the "
        "median of the queries that the successes took."
    )
    return _page(head, lines, said, found)


def curve(results: Path = RESULTS) -> str:
    """Return success within some numbers of queries, over all networks.

    Args:
        results: folder of all results.
    """
    found = [r for r in read_all(results) if r.who.startswith("ours/")]
    lines = []
    for targeted, norm in _balls(found):
        for kind in METHODS:
            row = [_one(found, f"ours/{kind.name}", n, norm, targeted) for n in NETWORKS]
            if all(row):
                shares = [sum(r.within(q) for r in row if r) / len(row) for q in PLACES]
                mark = OLDER if any(r.older for r in row if r) else ""
                shown = [f"{100 * share:.1f} %{mark}" for share in shares]
                lines.append([_aim(targeted, norm), kind.name, *shown])
    head = ["attack", "method", *(str(q) for q in PLACES)]
    said = "Share of the images for which the attack succeeds within so many queries: mean of the "
    return _page(head, lines, f"{said}three networks.", found)


def peers(results: Path = RESULTS) -> str:
    """Return our success beside that of other libraries, on the same images.

    Args:
        results: folder of all results.
    """
    found = read_all(results)
    lines = []
    for targeted, norm in _balls(found):
        for peer, method in BESIDE.items():
            for network in NETWORKS:
                own = _one(found, f"ours/{method}", network, norm, targeted)
                other = _one(found, peer, network, norm, targeted)
                if own and other:
                    lines.append(
                        [_aim(targeted, norm), TITLES[peer], network, *_beside(own, other)]
                    )
    versions = sorted({(r.who.partition("-")[0], r.version) for r in found if r.version})
    head = ["attack", "other", "network", "its success", "ours", "difference", "its median", "ours"]
    said = (
        "Difference: ours less the other's, in percentage points, with the 95 % interval of paired "
        "shares. A success is the first query inside the ball that the network gets wrong, as "
        "counted at the network on both sides; the other's beyond the budget do not count. Median: "
        "of the queries of the successes. Versions: "
        + ", ".join(f"{name} {version}" for name, version in versions)
        + "."
    )
    return _page(head, lines, said, found, left=3)


def _beside(own: Record, other: Record) -> list[str]:
    difference, low, high = paired(own.wins, other.wins)
    shown = f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    mark = OLDER if own.older or other.older else ""
    return [
        f"{100 * other.rate:.1f} %{mark}",
        f"{100 * own.rate:.1f} %{mark}",
        f"**{shown}**" if high < 0 else shown,
        str(other.median() or ""),
        str(own.median() or ""),
    ]


def _rate(record: Record | None) -> str:
    if record is None:
        return ""
    low, high = wilson(sum(record.wins), len(record.wins))
    mark = OLDER if record.older else ""
    median = record.median()
    after = "" if median is None else f", {median}"
    return f"{100 * record.rate:.1f} % ({100 * low:.1f} to {100 * high:.1f}){after}{mark}"


def _aim(targeted: bool, norm: str) -> str:
    return f"{norm}, targeted" if targeted else norm


def _balls(found: Sequence[Record]) -> list[tuple[bool, str]]:
    have = {(r.targeted, r.norm) for r in found}
    return [
        (targeted, norm)
        for targeted in (False, True)
        for norm in ("linf", "l2")
        if (targeted, norm) in have
    ]


def _one(
    found: Sequence[Record], who: str, network: str, norm: str, targeted: bool
) -> Record | None:
    wanted = (who, network, norm, targeted)
    return next((r for r in found if (r.who, r.network, r.norm, r.targeted) == wanted), None)


def _page(
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    said: str,
    found: Sequence[Record],
    left: int = 2,
) -> str:
    if not lines:
        return NOT_RUN
    rule = ["---" if place < left else "--:" for place in range(len(head))]
    table = "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])
    eps = {r.norm: r.eps for r in found}
    balls = ", ".join(f"{norm} {eps[norm]:.3g}" for norm in ("linf", "l2") if norm in eps)
    about = f"{len(found[0].asked)} images a network, {found[0].queries} queries each, {balls}."
    older = f" {FOOTNOTE}" if any(r.older for r in found) else ""
    return f"{table}\n\n{said} {about}{older}"


TABLES: Final[dict[str, Callable[[Path], str]]] = {
    "attacks": methods,
    "attacks-curve": curve,
    "attacks-peers": peers,
}
"""Tables by the name that a page calls them by."""
