"""Trains the networks, each once: weights are kept in a folder that git ignores."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from torch import nn
from torch.nn import functional as F

from bench.attacks import pictures
from bench.attacks.networks import NETWORKS
from bench.harness import ROOT

FOLDER: Final = ROOT / ".bench" / "attacks"
EPOCHS: Final = 5
BATCH: Final = 128
SEED: Final = 2026


def network(name: str, folder: Path = FOLDER) -> nn.Module:
    """Return a trained network in evaluation mode.

    Args:
        name: one of `NETWORKS`.
        folder: where weights are kept.
    """
    path = folder / f"{name}.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        images, labels = pictures.read("train")
        torch.save(trained(name, images, labels).state_dict(), path)
    model = NETWORKS[name]()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def trained(name: str, images: torch.Tensor, labels: torch.Tensor, seed: int = SEED) -> nn.Module:
    """Return a network after some epochs of AdamW, the same in every run.

    Args:
        name: one of `NETWORKS`.
        images: to train on.
        labels: of these.
        seed: of weights and order.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = NETWORKS[name]().train()
    generator = torch.Generator().manual_seed(seed)
    steps = EPOCHS * (len(images) // BATCH)
    opt = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 3e-3, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for rows in order[: len(images) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(model(images[rows]), labels[rows])
            opt.zero_grad()
            loss.backward()
            opt.step()
            schedule.step()
    return model.eval()
