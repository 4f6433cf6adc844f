"""Obvious forms of the attacks: one image, float64, a line a step. Random numbers are handed in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch

Margin = Callable[[torch.Tensor], float]
GOLDEN = 0x9E3779B97F4A7C15
BITS = (1 << 64) - 1


def word(key: int, place: int) -> int:
    """Word of a stream, by splitmix64 as it is printed."""
    z = (key + (place + 1) * GOLDEN) & BITS
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & BITS
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & BITS
    return z ^ (z >> 31)


def project(x: torch.Tensor, centre: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """Into the ball, then between 0 and 1."""
    delta = x - centre
    if norm == "linf":
        delta = delta.clamp(-eps, eps)
    elif float(delta.norm()) > eps:
        delta = delta * eps / float(delta.norm())
    return (centre + delta).clamp(0, 1)


def edge(s: torch.Tensor, centre: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """The end of a direction."""
    if norm == "linf":
        return (centre + eps * s.sign()).clamp(0, 1)
    delta = eps * s / float(s.norm())
    for _ in range(3):
        cut = (centre + delta).clamp(0, 1) - centre
        stuck = (cut - delta).abs() > 1e-14
        spare = max(eps**2 - float(cut.square().sum()), 0)
        free = float(cut[~stuck].square().sum())
        cut[~stuck] *= math.sqrt(1 + spare / free) if free else 1
        delta = cut
    return (centre + delta).clamp(0, 1)


def hill(height: int, width: int) -> torch.Tensor:
    """Rectangles around the middle, each of 1 / k^2, laid over each other."""
    found = torch.zeros(height, width, dtype=torch.float64)
    for k in range(max(height, width) // 2 + 1):
        for r in range(height):
            for s in range(width):
                if abs(r - height // 2) <= k and abs(s - width // 2) <= k:
                    found[r, s] += 1 / (k + 1) ** 2
    return found / max(float(found.norm()), 1e-12)


def share_of_pixels(step: int, queries: int, p_init: float) -> float:
    """The table of Square Attack's published code, for 10,000 queries."""
    table = [
        (10, 1), (50, 2), (200, 4), (500, 8), (1000, 16),
        (2000, 32), (4000, 64), (6000, 128), (8000, 256),
    ]  # fmt: skip
    scaled = int(step / queries * 10000)
    for last, divisor in table:
        if scaled <= last:
            return p_init / divisor
    return p_init / 512


def best_signs(gradient: torch.Tensor) -> tuple[float, list[float]]:
    """The signs with the lowest product with a gradient, of all there are."""
    every = itertools.product([1.0, -1.0], repeat=len(gradient))
    return min((float(gradient @ gradient.new_tensor(s)), list(s)) for s in every)


def cell_of(shape: tuple[int, int, int], side: int) -> torch.Tensor:
    """Number of the cell of each pixel."""
    channels, height, width = shape
    rows, columns = min(side, height), min(side, width)
    found = torch.zeros(shape, dtype=torch.int64)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                found[c, i, j] = (c * rows + i * rows // height) * columns + j * columns // width
    return found


def scaled(z: torch.Tensor, norm: str, size: float) -> torch.Tensor:
    """Times the size in linf, as long as it in l2."""
    return z * size if norm == "linf" else z * size / float(z.norm())


class Pairs:
    """What the searches by pairs share: what is asked is yielded, its margin is sent."""

    def __init__(self, x: torch.Tensor, norm: str, eps: float, cells: torch.Tensor) -> None:
        self.x, self.centre, self.norm, self.eps, self.cells = x, x, norm, eps, cells
        self.margins: list[float] = []

    def slope(self, z: torch.Tensor, radius: float) -> Iterator[torch.Tensor]:
        """Ask for a pair; the two margins are appended by who drives this."""
        reach = scaled(z[self.cells], self.norm, radius * self.eps)
        yield project(self.x + reach, self.centre, self.norm, self.eps)
        yield project(self.x - reach, self.centre, self.norm, self.eps)
        plus, minus = self.margins[-2:]
        self.rho = (plus - minus) / (2 * radius * self.eps)

    def move(self, step: torch.Tensor) -> None:
        """Step, and project."""
        self.x = project(self.x - step, self.centre, self.norm, self.eps)


def nes(p: Pairs, normals: Iterator[torch.Tensor], *, pairs: int, sigma: float, lr: float,
        momentum: float, plateau: int) -> Iterator[torch.Tensor]:  # fmt: skip
    """Means of slopes along normal numbers."""
    g, rate, reference, age = torch.zeros(1), lr, math.inf, 0
    while True:
        total = torch.zeros(1)
        for _ in range(pairs):
            u = next(normals)
            yield from p.slope(u, sigma)
            total = total + p.rho * u
        g = momentum * g + (1 - momentum) * total / pairs
        age += 1
        if age == plateau:
            seen = sum(p.margins[-2 * pairs :]) / (2 * pairs)
            if seen >= reference:
                rate = max(rate / 2, lr / 200)
            reference, age = seen, 0
        step = g[p.cells].sign() if p.norm == "linf" else g[p.cells]
        p.move(rate * scaled(step, p.norm, p.eps))


def spsa(p: Pairs, signs: Iterator[torch.Tensor], *, pairs: int, delta: float, lr: float,
         betas: tuple[float, float]) -> Iterator[torch.Tensor]:  # fmt: skip
    """Means of slopes along signs, and Adam."""
    m = v = torch.zeros(1)
    for t in itertools.count(1):
        total = torch.zeros(1)
        for _ in range(pairs):
            z = next(signs)
            yield from p.slope(z, delta)
            total = total + p.rho * z
        g = total / pairs
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        adam = (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + 1e-8)
        size = lr * p.eps if p.norm == "linf" else lr * p.eps / p.centre.numel() ** 0.5
        p.move(size * adam[p.cells])


def jaguar(p: Pairs, directions: Iterator[torch.Tensor], *, tau: float, lr: float,
           beta: float) -> Iterator[torch.Tensor]:  # fmt: skip
    """Signs of a memory of slopes."""
    m = torch.zeros(int(p.cells.max()) + 1, dtype=p.x.dtype)
    while True:
        z = next(directions)
        yield from p.slope(z, tau)
        for i in range(len(m)):
            if z[i] != 0:
                m[i] = beta * m[i] + (1 - beta) * p.rho * z[i]
        p.move(scaled(m.sign()[p.cells], p.norm, lr * p.eps))


def zoo(p: Pairs, places: Iterator[int], *, h: float, lr: float,
        betas: tuple[float, float]) -> Iterator[torch.Tensor]:  # fmt: skip
    """Adam of a coordinate of its own."""
    count = int(p.cells.max()) + 1
    m, v, t = [0.0] * count, [0.0] * count, [0] * count
    while True:
        i = next(places)
        e = torch.zeros(count, dtype=p.x.dtype)
        e[i] = 1
        yield from p.slope(e, h)
        t[i] += 1
        m[i] = betas[0] * m[i] + (1 - betas[0]) * p.rho
        v[i] = betas[1] * v[i] + (1 - betas[1]) * p.rho**2
        adam = m[i] / (1 - betas[0] ** t[i]) / (math.sqrt(v[i] / (1 - betas[1] ** t[i])) + 1e-8)
        size = lr * p.eps if p.norm == "linf" else lr * p.eps / p.centre.numel() ** 0.5
        p.move(size * adam * e[p.cells])


def signhunter(
    margin: Margin, x: torch.Tensor, norm: str, eps: float, queries: int
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """One pass over all levels, by rows; what was asked, and the signs."""
    d = x.numel()
    s = torch.ones(d, dtype=x.dtype)
    asked = [edge(s.view_as(x), x, norm, eps)]
    best = margin(asked[-1])
    for level in itertools.count():
        length = math.ceil(d / 2**level)
        for start in range(0, d, length):
            if len(asked) == queries:
                return asked, s
            s[start : start + length] *= -1
            asked.append(edge(s.view_as(x), x, norm, eps))
            found = margin(asked[-1])
            if found <= best:
                best = found
            else:
                s[start : start + length] *= -1
        if length == 1:
            return asked, s
    raise AssertionError


def side_of(step: int, queries: int, p_init: float, height: int, width: int) -> int:
    """Side of a square that covers the share of pixels."""
    share = share_of_pixels(step, queries, p_init)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def square_linf(
    margin: Margin, x: torch.Tensor, eps: float, queries: int, p_init: float,
    draw: Callable[[str, int], list[int]],
) -> list[torch.Tensor]:  # fmt: skip
    """Stripes, then squares. draw(kind, n): a sign for each of n, or a number below n."""
    channels, height, width = x.shape
    best = x.clone()
    stripes = draw("signs", channels * width)
    for c, i, j in itertools.product(range(channels), range(height), range(width)):
        best[c, i, j] = min(max(float(x[c, i, j]) + eps * stripes[c * width + j], 0), 1)
    asked, lowest = [best], margin(best)
    for step in range(queries - 1):
        side = side_of(step, queries + 1, p_init, height, width)
        (top,), (left,) = draw("below", height - side + 1), draw("below", width - side + 1)
        signs, (turned,) = draw("signs", channels), draw("below", channels)
        for turn in range(2):
            new = best.clone()
            for c in range(channels):
                sign = -signs[c] if turn and c == turned else signs[c]
                window = (c, slice(top, top + side), slice(left, left + side))
                new[window] = (x[window] + eps * sign).clamp(0, 1)
            if not torch.equal(new, best):
                break
        asked.append(new)
        if margin(new) < lowest:
            best, lowest = new, margin(new)
    return asked


def square_l2(
    margin: Margin, x: torch.Tensor, eps: float, queries: int, p_init: float,
    draw: Callable[[str, int], list[int]],
) -> list[torch.Tensor]:  # fmt: skip
    """A grid of bumps, then windows: algorithm 3, channel by channel."""
    channels, height, width = x.shape

    def bumps(side: int) -> list[torch.Tensor]:
        half = side // 2
        flat = torch.cat([hill(half, side), -hill(side - half, side)])
        flat = flat / float(flat.norm())
        (lying,) = draw("signs", 1)
        return [sign * (flat if lying > 0 else flat.T) for sign in draw("signs", channels)]

    nu = torch.zeros_like(x)
    tile = max(min(height, width) // 5, 1)
    for top in range((height % tile) // 2, height - tile + 1, tile):
        for left in range((width % tile) // 2, width - tile + 1, tile):
            for c, eta in enumerate(bumps(tile)):
                nu[c, top : top + tile, left : left + tile] = eta
    best = edge(nu, x, "l2", eps)
    asked, lowest = [best], margin(best)
    for step in range(queries - 1):
        side = max(side_of(step, queries + 1, p_init, height, width), 3)
        side = min(side if side % 2 else side + 1, height, width)
        corners = [draw("below", n - side + 1)[0] for n in (height, width, height, width)]
        nu = best - x
        unused = max(eps**2 - float(nu.square().sum()), 0)
        one = (slice(corners[0], corners[0] + side), slice(corners[1], corners[1] + side))
        two = (slice(corners[2], corners[2] + side), slice(corners[3], corners[3] + side))
        for c, eta in enumerate(bumps(side)):
            union = torch.zeros(height, width, dtype=torch.bool)
            union[one] = union[two] = True
            free = math.sqrt(float(nu[c][union].square().sum()) + unused / channels)
            mixed = eta + nu[c][one] / max(float(nu[c][one].norm()), 1e-12)
            nu[c][two] = 0
            nu[c][one] = mixed / float(mixed.norm()) * free
        new = edge(nu, x, "l2", eps)
        asked.append(new)
        if margin(new) < lowest:
            best, lowest = new, margin(new)
    return asked
