"""Recurrent, graph and table models written for the zoo."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.case import Batch, Case, integers, normals, padded_mask, seeded

VOCABULARY = 2000


class RecurrentLM(nn.Module):
    """Predicts the next token with two LSTM layers; input and output weights are tied."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.drop = nn.Dropout(0.1)
        self.lstm = nn.LSTM(width, width, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.drop(self.embed(tokens)))
        return self.head(self.drop(states))


def _tokens(rows: int) -> torch.Tensor:
    return integers(rows, 64, below=VOCABULARY)


def _next_token(output: object, batch: Batch) -> torch.Tensor:
    logits: torch.Tensor = output[:, :-1]  # type: ignore[index]
    target = batch[:, 1:].flatten()  # type: ignore[call-overload, index]
    return F.cross_entropy(logits.flatten(0, 1), target)


class Seq2Seq(nn.Module):
    """Translates with a GRU in both directions, and a GRU that attends to it step by step."""

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.source = nn.Embedding(VOCABULARY, width, padding_idx=0)
        self.target = nn.Embedding(VOCABULARY, width, padding_idx=0)
        self.encoder = nn.GRU(width, width // 2, bidirectional=True, batch_first=True)
        self.cell = nn.GRUCell(2 * width, width)
        self.query = nn.Linear(width, width)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(2 * width, VOCABULARY)

    def forward(
        self, source: torch.Tensor, source_mask: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        memory, last = self.encoder(self.drop(self.source(source)))
        state = torch.cat([last[0], last[1]], dim=1)
        absent = source_mask == 0
        context, outputs = torch.zeros_like(state), []
        for token in self.drop(self.target(target)).unbind(1):
            state = self.cell(torch.cat([token, context], dim=1), state)
            scores = torch.einsum("bld,bd->bl", memory, self.query(state))
            weights = scores.masked_fill(absent, float("-inf")).softmax(dim=1)
            context = torch.einsum("bl,bld->bd", weights, memory)
            outputs.append(torch.cat([state, context], dim=1))
        return self.head(self.drop(torch.stack(outputs, dim=1)))


def _translation(rows: int) -> dict[str, torch.Tensor]:
    mask = padded_mask(rows, 40)
    return {
        "source": integers(rows, 40, below=VOCABULARY) * mask,
        "source_mask": mask,
        "target": integers(rows, 24, below=VOCABULARY, seed=1) * padded_mask(rows, 24),
    }


def _shifted(output: object, batch: Batch) -> torch.Tensor:
    target = batch["target"][:, 1:]  # type: ignore[call-overload]
    logits = output[:, :-1].flatten(0, 1)  # type: ignore[index]
    return F.cross_entropy(logits, target.flatten(), ignore_index=0)


class MessagePassing(nn.Module):
    """One round: every edge computes a message, every node gathers and updates."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.message = nn.Sequential(
            nn.Linear(3 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        self.update = nn.GRUCell(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, nodes: torch.Tensor, edges: torch.Tensor, ends: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        source, target = ends
        edges = edges + self.message(torch.cat([nodes[source], nodes[target], edges], dim=1))
        gathered = torch.zeros_like(nodes).index_add(0, target, edges)
        return self.norm(self.update(gathered, nodes)), edges


class GraphNetwork(nn.Module):
    """Tells a number for each graph of a batch that is joined into one large graph."""

    def __init__(self, width: int = 160, rounds: int = 4) -> None:
        super().__init__()
        self.nodes, self.edges = nn.Embedding(100, width), nn.Linear(8, width)
        self.rounds = nn.ModuleList(MessagePassing(width) for _ in range(rounds))
        self.head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(
        self,
        kinds: torch.Tensor,
        features: torch.Tensor,
        ends: torch.Tensor,
        graph: torch.Tensor,
        value: torch.Tensor,
    ) -> torch.Tensor:
        nodes, edges = self.nodes(kinds), self.edges(features)
        for round_ in self.rounds:
            nodes, edges = round_(nodes, edges, ends)
        sums = nodes.new_zeros(value.shape[0], nodes.shape[1]).index_add(0, graph, nodes)
        return (self.head(sums)[:, 0] - value).square()


def _graphs(rows: int) -> dict[str, torch.Tensor]:
    size, degree = 24, 4
    first = torch.arange(rows).repeat_interleave(size * degree) * size
    ends = integers(2, rows * size * degree, below=size) + first
    return {
        "kinds": integers(rows * size, below=100),
        "features": normals(rows * size * degree, 8),
        "ends": ends,
        "graph": torch.arange(rows).repeat_interleave(size),
        "value": normals(rows),
    }


class TabularNet(nn.Module):
    """Embeds the columns of a table, mixes them in residual layers, returns a loss a row."""

    def __init__(self, width: int = 512, layers: int = 4) -> None:
        super().__init__()
        self.sizes = (5000, 800, 300, 100, 50, 20, 10, 5)
        self.tables = nn.ModuleList(nn.Embedding(size, 16) for size in self.sizes)
        self.norm = nn.BatchNorm1d(24)
        self.stem = nn.Linear(16 * len(self.sizes) + 24, width)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Dropout(0.1),
                nn.Linear(width, width),
            )
            for _ in range(layers)
        )
        self.head = nn.Linear(width, 1)

    def forward(
        self, numbers: torch.Tensor, categories: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        columns = [table(column) for table, column in zip(self.tables, categories.t(), strict=True)]
        x = self.stem(torch.cat([*columns, self.norm(numbers)], dim=1))
        for layer in self.layers:
            x = x + layer(x)
        logits = self.head(x)[:, 0]
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def _table(rows: int) -> tuple[torch.Tensor, ...]:
    sizes = (5000, 800, 300, 100, 50, 20, 10, 5)
    columns = [integers(rows, below=size, seed=i) for i, size in enumerate(sizes)]
    return normals(rows, 24), torch.stack(columns, dim=1), (normals(rows, seed=1) > 0).float()


SEQUENCES = (
    Case("lstm", seeded(RecurrentLM), _tokens, _next_token, (8, 64)),
    Case("seq2seq", seeded(Seq2Seq), _translation, _shifted, (8, 48)),
    Case("gnn", seeded(GraphNetwork), _graphs, None, (8, 64)),
    Case("tabular", seeded(TabularNet), _table, None, (256, 2048)),
)
"""Recurrent, graph and table models of our own."""
