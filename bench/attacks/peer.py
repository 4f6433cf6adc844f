"""Runs one attack of another library, in its own environment, and prints what came of it.

    python peer.py TASK

TASK is a file of `torch.save`: network, weights, images, labels, peer, norm, eps, queries, targeted
and options. This file imports nothing of shoestring.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.attacks.counting import Counted
from bench.attacks.networks import NETWORKS

NORMS = {"linf": "Linf", "l2": "L2"}


def torchattacks_square(model: Counted, task: dict[str, object], options: dict[str, float]) -> None:
    """Run torchattacks' Square; two queries are taken before its steps."""
    import torchattacks

    made = torchattacks.Square(
        model, norm=NORMS[str(task["norm"])], eps=float(str(task["eps"])),
        n_queries=int(str(task["queries"])) - 2, loss="margin", **options,
    )  # fmt: skip
    _run_torchattacks(made, model)


def torchattacks_spsa(model: Counted, task: dict[str, object], options: dict[str, float]) -> None:
    """Run torchattacks' SPSA as often as the budget allows, and ask for its result."""
    import torchattacks

    samples = int(options.pop("nb_sample"))
    rounds = (int(str(task["queries"])) - 1) // (2 * samples)
    made = torchattacks.SPSA(
        model, eps=float(str(task["eps"])), nb_iter=rounds, nb_sample=samples,
        max_batch_size=samples, **options,
    )  # fmt: skip
    _run_torchattacks(made, model)


def _run_torchattacks(made: object, model: Counted) -> None:
    if model.targeted:
        made.set_mode_targeted_by_label(quiet=True)  # type: ignore[attr-defined]
    model(made(model.images, model.labels))  # type: ignore[operator]


def art_square(model: Counted, task: dict[str, object], options: dict[str, float]) -> None:
    """Run ART's Square. It asks three times a step, and twice for what it asked before."""
    import numpy as np
    from art.attacks.evasion import SquareAttack

    each = 3 if model.repeats else 1
    made = SquareAttack(
        _art(model), norm=np.inf if task["norm"] == "linf" else 2, eps=float(str(task["eps"])),
        max_iter=(int(str(task["queries"])) - 2) // each, batch_size=len(model.images),
        verbose=False, **options,
    )  # fmt: skip
    np.random.seed(0)  # noqa: NPY002 - what that library draws from
    made.generate(model.images.numpy(), model.labels.numpy())


def art_zoo(model: Counted, task: dict[str, object], options: dict[str, float]) -> None:
    """Run ART's ZOO, which has no ball: it looks for the nearest."""
    import numpy as np
    from art.attacks.evasion import ZooAttack

    side = int(options.pop("nb_parallel"))
    made = ZooAttack(
        _art(model), nb_parallel=side, max_iter=int(str(task["queries"])) // (2 * side + 1),
        use_resize=False, use_importance=False, abort_early=False, verbose=False,
        targeted=model.targeted, **options,
    )  # fmt: skip
    np.random.seed(0)  # noqa: NPY002 - what that library draws from
    found = made.generate(model.images.numpy(), np.eye(10)[model.labels.numpy()])
    model(torch.from_numpy(found))


def _art(model: Counted) -> object:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model, loss=nn.CrossEntropyLoss(), input_shape=(1, 28, 28), nb_classes=10,
        clip_values=(0.0, 1.0), device_type="cpu",
    )  # fmt: skip


PEERS = {
    "torchattacks-square": torchattacks_square,
    "torchattacks-spsa": torchattacks_spsa,
    "art-square": art_square,
    "art-square-cached": art_square,
    "art-zoo": art_zoo,
}


def main(path: str) -> None:
    """Run a task and print queries and successes of each image."""
    torch.set_num_threads(1)
    task = torch.load(path, weights_only=True)
    network = NETWORKS[task["network"]]()
    network.load_state_dict(task["weights"])
    model = Counted(
        network.eval(), task["images"], task["labels"], norm=task["norm"], eps=task["eps"],
        targeted=task["targeted"], repeats=task["peer"] != "art-square-cached",
    ).eval()  # fmt: skip
    torch.manual_seed(0)
    with torch.no_grad():
        PEERS[task["peer"]](model, task, dict(task["options"]))
    found = {"asked": model.asked.tolist(), "success": model.success.tolist(), "lost": model.lost}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
