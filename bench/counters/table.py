"""The tables of the counters: who is right on which model, and what counting costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.counters.flopco import SCHEMA as BESIDE_SCHEMA
from bench.counters.flopco import path_of as beside_path
from bench.counters.judge import Verdict
from bench.counters.records import FORWARD_TABLE, STEP_TABLE, Record, Said, read_all
from bench.harness import RESULTS, has_changed, is_older
from shoestring.core.documents import read_document

OURS: Final = "shoestring"
REFERENCE: Final = "flopco"
PHASES: Final = ("forward", "recompute", "backward")

_MOST_NAMES: Final = 2
"""Operations that a cell names; more are put together."""

_LEGEND: Final = (
    "`=`: equal to the count by hand. A number with what it adds or leaves out: right by "
    "another convention, to the last unit. **Bold**: wrong."
)


def counters(results: Path = RESULTS) -> str:
    """Return both tables: forward of small models, and steps with backward and algorithms.

    Args:
        results: folder of all results.
    """
    from bench.tables import FOOTNOTE, NOT_RUN  # that module lists this function

    found = read_all(results)
    if not found:
        return NOT_RUN
    parts = []
    if forward := [r for r in found if r.table == FORWARD_TABLE]:
        parts += [_forward(forward), _said_of(forward)]
    if steps := [r for r in found if r.table == STEP_TABLE]:
        parts += [_steps(steps)]
    older = any(record.older for record in found)
    parts.append(_LEGEND + (f" {FOOTNOTE}" if older else ""))
    return "\n\n".join(parts)


def _forward(records: Sequence[Record]) -> str:
    from bench.tables import _grid

    peers = _peers(records)
    head = ["model", "by hand", OURS, *(said.title for said in peers.values())]
    lines = [
        [record.title, f"{record.right}", _ours(record), *(_cell(record, p) for p in peers)]
        for record in records
    ]
    right = [sum(_is(r, p, Verdict.RIGHT) for r in records) for p in peers]
    fair = [
        sum(_is(r, p, Verdict.RIGHT) or _is(r, p, Verdict.CONVENTION) for r in records)
        for p in peers
    ]
    mine = str(sum(record.ours_is_right for record in records)) + _dagger(records)
    lines.append(["right", f"of {len(records)}", mine, *map(str, right)])
    lines.append(["or by a convention", f"of {len(records)}", mine, *map(str, fair)])
    return _grid(head, lines)


def _said_of(records: Sequence[Record]) -> str:
    """Return versions and how each was used."""
    used = "; ".join(
        f"{said.title} {said.version.partition('+')[0]}: `{said.used}`"
        + (f", {said.note}" if said.note else "")
        for said in _peers(records).values()
        if said.version
    )
    reasons = {
        said.title: said.error
        for record in records
        for said in record.peers.values()
        if not said.version
    }
    missing = "".join(f" {title}: {reason}." for title, reason in reasons.items())
    return f"Multiply-adds of one forward of a batch of two. {used}.{missing}"


def _steps(records: Sequence[Record]) -> str:
    from bench.tables import _grid

    peers = _peers(records)
    head = ["step", *(f"{phase}, by hand" for phase in PHASES), f"{OURS}, each"]
    head += [f"{said.title}, in all" for said in peers.values()]
    lines = []
    for record in records:
        phases = [str(record.hand[p]) if p in record.hand else "" for p in PHASES]
        lines.append([record.title, *phases, _ours(record), *(_cell(record, p) for p in peers)])
    mine = str(sum(record.ours_is_right for record in records)) + _dagger(records)
    fair = [
        sum(_is(r, p, Verdict.RIGHT) or _is(r, p, Verdict.CONVENTION) for r in records)
        for p in peers
    ]
    lines.append(["right", f"of {len(records)}", "", "", mine, *map(str, fair)])
    text = (
        "FLOPs by phase, two a multiply-add; inputs ask for gradients. The other counters of the "
        "table above see no backward: calflops and DeepSpeed take it to be twice the forward."
    )
    return f"{_grid(head, lines)}\n\n{text}"


def summary(results: Path = RESULTS) -> str:
    """Return in a line who is right how often.

    Args:
        results: folder of all results.
    """
    from bench.tables import FOOTNOTE, NOT_RUN

    found = read_all(results)
    forward = [r for r in found if r.table == FORWARD_TABLE]
    if not forward:
        return NOT_RUN
    steps = [r for r in found if r.table == STEP_TABLE]
    counts = [
        (sum(_is(r, p, Verdict.RIGHT) or _is(r, p, Verdict.CONVENTION) for r in forward), said)
        for p, said in _peers(forward).items()
        if said.version
    ]
    others = ", ".join(f"{said.title} {n}" for n, said in sorted(counts, key=lambda pair: -pair[0]))
    mine = sum(r.ours_is_right for r in forward)
    text = (
        f"Of {len(forward)} small models whose multiply-adds are known by hand, `count` gets "
        f"**{mine}** right{_dagger(forward)}; the others, by their own conventions: {others}."
    )
    if steps:
        whole = sum(r.ours_is_right for r in steps)
        text += (
            f" Of {len(steps)} steps with backward, fused kernels, algorithms and recomputation "
            f"`count` gets **{whole}** right{_dagger(steps)}"
        )
        torchs = [r for r in steps if "torch" in r.peers]
        good = sum(_is(r, "torch", Verdict.RIGHT) for r in torchs)
        text += f", FlopCounterMode {good}." if torchs else "."
    return text + (f" {FOOTNOTE}" if any(r.older for r in found) else "")


def flopco(results: Path = RESULTS) -> str:
    """Return the models on which FlopCo itself is wrong, with both numbers.

    Args:
        results: folder of all results.
    """
    from bench.tables import FOOTNOTE, NOT_RUN, _grid

    asked = [r for r in read_all(results) if REFERENCE in r.peers]
    if not asked:
        return NOT_RUN
    wrong = [r for r in asked if not _is(r, REFERENCE, Verdict.RIGHT)]
    lines = [
        [r.title, "multiply-adds", str(r.right), _own(r) + _dagger([r]), _plain(r.peers[REFERENCE])]
        for r in wrong
    ]
    older = any(r.older for r in wrong)
    said = ""
    path = beside_path(results)
    if path.exists():
        document = read_document(path, BESIDE_SCHEMA)
        ours, reference = document["ours"], document["reference"]
        assert isinstance(ours, dict)
        assert isinstance(reference, dict)
        rooms = document["rooms"]
        assert isinstance(rooms, list)
        changed = has_changed([str(room) for room in rooms], str(document["source_hash"]))
        mark, older = ("†" if changed else ""), older or changed
        line = [f"`{document['layer']}`", "FLOPs with bias", str(document["hand"])]
        lines.append([*line, f"{ours['flops']}{mark}", str(reference["flops"])])
        said = " ".join(
            f"{who} {'leaves' if kept['keeps_hooks'] else 'removes'} the hooks that a user has "
            "set on the model."
            for who, kept in (("FlopCo", reference), ("`count`", ours))
        )
    version = asked[0].peers[REFERENCE].version
    head = ["model", "what", "by hand", OURS, f"FlopCo {version}"]
    text = (
        f"The other {len(asked) - len(wrong)} of {len(asked)} models are right. FlopCo counts "
        "one row, and is multiplied by the rows. " + said + (f" {FOOTNOTE}" if older else "")
    )
    return f"{_grid(head, lines, left=2)}\n\n{text.strip()}"


def speed(results: Path = RESULTS) -> str:
    """Return the price of counting beside FlopCounterMode's, and the bars.

    Args:
        results: folder of all results.
    """
    from bench.tables import NOT_RUN, _grid, _mark_footnote, _of_bar, _results, _spread, _verdict

    found = _results(results, "counters-speed")
    if not found:
        return NOT_RUN
    parts = []
    if against := [r for r in found if r.peer != "bar"]:
        lines = [
            [
                r.note,
                str(r.peer_options["operations"]),
                "failed" if r.ratio is None else f"{r.ratio:.2f}{'†' if is_older(r) else ''}",
                _spread(r),
                _verdict(r),
            ]
            for r in against
        ]
        head = ["step", "operations", "time, ours / FlopCounterMode", "10 to 90 %", "bar of 1.50"]
        parts.append(_grid(head, lines))
    if bars := [r for r in found if r.peer == "bar"]:
        head = ["count on fake tensors", "figure", "of at most", "bar"]
        parts.append(_grid(head, [[r.note, *_of_bar(r), _verdict(r)] for r in bars]))
    parts.append(
        "Processor time of one thread, in turns, of a forward, backward and optimizer step under "
        "the counter and of reading all of its figures; ours also writes its table, JSON, CSV and "
        "HTML." + _mark_footnote(found)
    )
    return "\n\n".join(parts)


# --- cells -----------------------------------------------------------------------------------


def _peers(records: Sequence[Record]) -> dict[str, Said]:
    peers: dict[str, Said] = {}
    for record in records:
        peers.update(record.peers)
    return peers


def _is(record: Record, peer: str, verdict: Verdict) -> bool:
    said = record.peers.get(peer)
    return said is not None and said.judged(record.right).verdict is verdict


def _own(record: Record) -> str:
    return "failed" if record.error else str(sum(record.ours.values()))


def _ours(record: Record) -> str:
    if record.ours_is_right:
        return "=" + _dagger([record])
    if record.error:
        return "**failed**"
    figures = " + ".join(str(record.ours.get(p, 0)) for p in PHASES if p in record.hand)
    return f"**{figures}**{_dagger([record])}"


def _cell(record: Record, peer: str) -> str:
    said = record.peers.get(peer)
    if said is None:
        return "not run"
    judged = said.judged(record.right)
    if judged.verdict is Verdict.RIGHT:
        return "="
    if judged.verdict is Verdict.CONVENTION:
        own = [name.strip("_").replace("_", " ") for name in said.added]
        added = own if len(own) <= _MOST_NAMES else ["other operations"]
        added += judged.added[len(own) :]
        words = [f"with {_words(added)}"] if added else []
        words += [f"without {_words(judged.left_out)}"] if judged.left_out else []
        return f"{_number(said.answer)} ({', '.join(words)})"
    if judged.verdict is Verdict.WRONG:
        return f"**{_number(said.answer)}**"
    return "not installed" if judged.verdict is Verdict.MISSING else "**crashed**"


def _plain(said: Said) -> str:
    if said.answer is not None:
        return _number(said.answer)
    return "not installed" if not said.version else "crashed"


def _words(names: Sequence[str]) -> str:
    return ", ".join(names)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def _dagger(records: Sequence[Record]) -> str:
    from bench.tables import OLDER

    return OLDER if any(record.older for record in records) else ""
