"""A linear layer that keeps a sketch of its input: its weight's gradient is right on average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

import torch
from torch import nn
from torch.nn import functional as F

from shoestring.activations._torch import is_transformed
from shoestring.activations.fewbit import sketches
from shoestring.activations.fewbit.second import refuse_second
from shoestring.core.errors import InputError

_SEEDS = 1 << 62


def randomized_linear(
    input: torch.Tensor,  # noqa: A002  # torch's name
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    ratio: float = 0.2,
    sketch: str = "rademacher",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return ``input @ weight.T + bias``, and keep a sketch of the input; see `RandomizedLinear`.

    Args:
        input: ``[..., in]``.
        weight: ``[out, in]``.
        bias: ``[out]``, or None.
        ratio: share of the input's rows that the sketch has, above 0 and up to 1.
        sketch: ``rademacher``, ``gaussian``, ``srht``, ``rows`` or ``importance``.
        generator: that the sketch's seed is drawn from, on the CPU; torch's own by default.

    Returns:
        ``[..., out]``, with torch's bits.

    Raises:
        InputError: an option is out of range.

    Example:
        >>> x, w = torch.randn(10, 4), torch.ones(3, 4, requires_grad=True)
        >>> randomized_linear(x, w, ratio=0.3, sketch="rows").sum().backward()
        >>> w.grad.shape
        torch.Size([3, 4])
    """
    _check(ratio, sketch)
    count = input.numel() // max(1, input.shape[-1]) if input.dim() else 1
    # Where only the input needs a gradient torch keeps the weight alone, and a sketch as large as
    # the input is worse than the input. All these cases are exact.
    plain = not torch.is_grad_enabled() or not weight.requires_grad or _size(ratio, count) >= count
    if plain or _any_transformed(input, weight, bias):
        return F.linear(input, weight, bias)
    seed = _drawn(generator) if generator is not None else draw_seed(input)
    run: Callable[..., torch.Tensor] = _RandomizedLinear.apply
    return run(input, weight, bias, seed, ratio, sketch)


class RandomizedLinear(nn.Linear):
    r"""A linear layer that keeps a random part of its input: memory for noise in one gradient.

    .. math::

        Y = X W^T + b, \qquad dX = g W, \quad db = g^T 1, \quad dW \approx (S g)^T (S X)

    With X the input as N rows, g the gradient of Y, and S a random matrix of m = ``ratio`` N rows,
    which is made again in backward from its seed. Only :math:`S X` is kept. Y, dX and db are exact,
    with torch's bits; dW is right on average, since :math:`E[S^T S] = I`. Its variance, that of all
    entries together, is :math:`E \|(S g)^T (S X) - G\|_F^2` with :math:`G = g^T X`:

    ==============  ==============================================================================
    ``rademacher``  :math:`V / m` with :math:`V = \|X\|^2 \|g\|^2 + \|G\|^2
                    - 2 \sum_i \|x_i\|^2 \|g_i\|^2`
    ``gaussian``    :math:`(\|X\|^2 \|g\|^2 + \|G\|^2) / m`
    ``srht``        :math:`\frac{n - m}{n - 1} V / m`, n being N padded to the order of a Hadamard
                    matrix
    ``rows``        :math:`\frac{N - m}{N - 1} (N \sum_i \|x_i\|^2 \|g_i\|^2 - \|G\|^2) / m`
    ``importance``  :math:`(\sum_j \|x_j\| \sum_i \|x_i\| \|g_i\|^2 - \|G\|^2) / m`
    ==============  ==============================================================================

    The first two have m independent rows. The product of one of signs s has the square
    :math:`\sum_{ijkl} s_i s_j s_k s_l (g_i \cdot g_k) (x_j \cdot x_l)`, of which only equal pairs
    stay on average: i=j, k=l gives :math:`\|G\|^2`; i=k, j=l gives
    :math:`\|X\|^2 \|g\|^2`; i=l, j=k gives :math:`\|G\|^2` again; and i=j=k=l was counted thrice,
    which is right for normal numbers alone, as :math:`E[s^4] = 3`. The ``srht`` draws m of n such
    rows without replacement, and ``rows`` m of N terms :math:`N g_i x_i^T`: hence their factors.
    The last draws terms :math:`g_i x_i^T / p_i` with replacement.

    A dense sketch costs ``2 m N`` operations for each column of X and g, ``srht`` about
    ``n log2(n)``, and is less noisy than signs; the last two cost next to nothing.

    The weight's gradient is exact where nothing would be saved: with m = N. With the weight frozen
    nothing of X is kept, and no number is drawn. Under transforms of ``torch.func`` it is torch's
    own layer. ``train()`` and ``eval()`` make no difference.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether there is one.
        device: of the parameters.
        dtype: of the parameters.
        ratio: m / N, above 0 and up to 1.
        sketch: one of the table.
        generator: that each forward draws the sketch's seed from, on the CPU; torch's own by
            default, as dropout does, so that checkpointing repeats it.

    Raises:
        InputError: an option is out of range.
        RuntimeError: it is differentiated twice.

    Source: Bershatsky et al., Memory-efficient backpropagation through large linear layers (2022),
    algorithm 1; Drineas et al., Fast Monte Carlo algorithms for matrices I (2006), for importance.

    Example:
        >>> layer = RandomizedLinear(4, 3, ratio=0.5)
        >>> layer(torch.randn(8, 4)).sum().backward()
        >>> layer.bias.grad.tolist()
        [8.0, 8.0, 8.0]
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,  # as torch has it
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        ratio: float = 0.2,
        sketch: str = "rademacher",
        generator: torch.Generator | None = None,
    ) -> None:
        _check(ratio, sketch)
        super().__init__(in_features, out_features, bias, device, dtype)
        self.ratio = ratio
        self.sketch = sketch
        self.generator = generator

    @classmethod
    def of(
        cls,
        linear: nn.Linear,
        *,
        ratio: float = 0.2,
        sketch: str = "rademacher",
        generator: torch.Generator | None = None,
    ) -> Self:
        """Return a layer with the very parameters of another.

        Args:
            linear: of torch's own class; it is not changed.
            ratio: as of the class.
            sketch: as of the class.
            generator: as of the class.

        Raises:
            InputError: a subclass, whose forward may be another.

        Example:
            >>> plain = nn.Linear(4, 3)
            >>> RandomizedLinear.of(plain).weight is plain.weight
            True
        """
        if type(linear) is not nn.Linear:
            raise InputError(
                f"a {type(linear).__name__} is no torch.nn.Linear.",
                hint="give one of torch's own class: a subclass may compute something else.",
            )
        made = cls(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            device="meta",  # where nothing is held and no number is drawn
            ratio=ratio,
            sketch=sketch,
            generator=generator,
        )
        made.weight, made.bias = linear.weight, linear.bias
        return made.train(linear.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name
        """Return the output.

        Args:
            input: ``[..., in_features]``.
        """
        return randomized_linear(
            input,
            self.weight,
            self.bias,
            ratio=self.ratio,
            sketch=self.sketch,
            generator=self.generator,
        )

    def extra_repr(self) -> str:
        """Return the options, as ``print`` shows them."""
        return f"{super().extra_repr()}, ratio={self.ratio}, sketch={self.sketch!r}"


def _check(ratio: float, sketch: str) -> None:
    if not 0 < ratio <= 1:
        raise InputError(f"ratio={ratio} is no share of the rows.", hint="above 0, and up to 1.")
    if sketch not in sketches.KINDS:
        raise InputError(
            f"there is no sketch called {sketch!r}.", hint=f"one of {', '.join(sketches.KINDS)}."
        )


def _size(ratio: float, count: int) -> int:
    """Return the rows of a sketch of some rows."""
    return max(1, round(ratio * count))


def _drawn(generator: torch.Generator | None) -> torch.Tensor:
    return torch.randint(_SEEDS, (), generator=generator)


def _any_transformed(*tensors: torch.Tensor | None) -> bool:
    if torch.compiler.is_compiling():
        return False
    return any(tensor is not None and is_transformed(tensor) for tensor in tensors)


# --- operators: compilers take them as they are ------------------------------------------
# A compiler that saves memory runs cheap operators again in backward, and takes torch.randint for
# one of them: another seed would come of it.


@torch.library.custom_op(
    "shoestring::draw_seed", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,)
)
def draw_seed(like: torch.Tensor) -> torch.Tensor:
    """Return a seed from torch's generator of the CPU, as a tensor.

    Args:
        like: any tensor; it ties the draw to its place.
    """
    return _drawn(None)


@draw_seed.register_fake
def _(like: torch.Tensor) -> torch.Tensor:
    return torch.empty((), dtype=torch.int64)


@torch.library.custom_op("shoestring::sketched", mutates_args=())
def sketched(rows: torch.Tensor, seed: torch.Tensor, ratio: float, kind: str) -> torch.Tensor:
    """Return a sketch of rows; see `sketches.sketched`.

    Args:
        rows: ``[N, d]``.
        seed: of the sketch, a tensor of one number on the CPU.
        ratio: rows of the result, over N.
        kind: of the sketch.
    """
    return sketches.sketched(rows, size=_size(ratio, len(rows)), kind=kind, seed=int(seed))


@sketched.register_fake
def _(rows: torch.Tensor, seed: torch.Tensor, ratio: float, kind: str) -> torch.Tensor:
    return rows.new_empty(_size(ratio, rows.shape[0]), rows.shape[1])


@torch.library.custom_op("shoestring::importance", mutates_args=())
def importance(
    rows: torch.Tensor, seed: torch.Tensor, ratio: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which rows stand for all, and their weights; see `sketches.importance`.

    Args:
        rows: ``[N, d]``.
        seed: of the draw, a tensor of one number on the CPU.
        ratio: how many are drawn, over N.
    """
    return sketches.importance(rows, size=_size(ratio, len(rows)), seed=int(seed))


@importance.register_fake
def _(rows: torch.Tensor, seed: torch.Tensor, ratio: float) -> tuple[torch.Tensor, torch.Tensor]:
    size = _size(ratio, rows.shape[0])
    wide = torch.float64 if rows.dtype is torch.float64 else torch.float32
    return rows.new_empty(size, dtype=torch.int64), rows.new_empty(size, dtype=wide)


# --- autograd ----------------------------------------------------------------------------


class _Context(Protocol):
    """What autograd hands to forward and backward, as far as it is used here."""

    ratio: float
    kind: str
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype | None]
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[torch.Tensor | None, ...]

    def save_for_backward(self, *tensors: torch.Tensor | None) -> None: ...


class _RandomizedLinear(torch.autograd.Function):
    """Keeps the sketch, what makes it again, and the weight."""

    @staticmethod
    def forward(
        ctx: _Context,
        input: torch.Tensor,  # noqa: A002
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        seed: torch.Tensor,
        ratio: float,
        kind: str,
    ) -> torch.Tensor:
        """Return the output."""
        output = F.linear(input, weight, bias)
        # Under autocast the product is of rounded rows, and so is its gradient.
        rows = input.detach().reshape(-1, input.shape[-1]).to(output.dtype)
        picks: torch.Tensor | None = None
        weights: torch.Tensor | None = None
        if kind == "importance":
            picks, weights = importance(rows, seed, ratio)
            few = _picked(rows, picks, weights)
        else:
            few = sketched(rows, seed, ratio, kind)
        needed = weight if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(few, seed if picks is None else None, picks, weights, needed)
        ctx.ratio, ctx.kind = ratio, kind
        ctx.dtypes = (input.dtype, weight.dtype, None if bias is None else bias.dtype)
        return output

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of input, weight and bias."""
        refuse_second("the randomised linear layer")
        grad = grads[0]
        with torch.autocast(grad.device.type, enabled=False):
            return _gradients(ctx, grad)


def _gradients(ctx: _Context, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    few, seed, picks, weights, weight = ctx.saved_tensors
    of_input, of_weight, of_bias = ctx.dtypes
    assert few is not None
    rows = grad.reshape(-1, grad.shape[-1])
    found: list[torch.Tensor | None] = [None] * 6
    if weight is not None:
        found[0] = (grad @ weight.to(grad.dtype)).to(of_input)
    if ctx.needs_input_grad[1]:
        if picks is None or weights is None:
            assert seed is not None
            mixed = sketched(rows, seed, ctx.ratio, ctx.kind)
        else:
            mixed = _picked(rows, picks, weights)
        found[1] = (mixed.t() @ few).to(of_weight)
    if of_bias is not None and ctx.needs_input_grad[2]:
        found[2] = rows.sum(0).to(of_bias)
    return tuple(found)


def _picked(rows: torch.Tensor, picks: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return rows.index_select(0, picks).mul_(weights.to(rows.dtype).unsqueeze(1))
