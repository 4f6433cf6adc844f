"""The best few-bit table for the derivative of an activation."""

from __future__ import annotations

import dataclasses
import json
from typing import Final, cast

import numpy as np
import torch

from shoestring.activations.fewbit import bends, polish, primitive
from shoestring.activations.fewbit.callables import OnArrays, as_function
from shoestring.activations.fewbit.fitting import best_tables
from shoestring.activations.fewbit.functions import (
    NAMES,
    Elementwise,
    Function,
    Parameters,
)
from shoestring.activations.fewbit.functions import function as named
from shoestring.activations.fewbit.integrals import samples
from shoestring.activations.fewbit.options import DOMAIN as DOMAIN
from shoestring.activations.fewbit.options import (
    check_bits,
    check_objective,
    check_table,
    checked_domain,
    floats,
)
from shoestring.activations.fewbit.pieces import Pieces, rounded_down
from shoestring.activations.fewbit.weights import Given, as_weight
from shoestring.core.documents import parse_document
from shoestring.core.errors import InputError

_SCHEMA: Final = "shoestring/quantizer/1"


@dataclasses.dataclass(frozen=True)
class Quantizer:
    r"""A step function in place of a derivative: a code of a few bits stands for each input.

    .. math::

        E = \int (f'(x) - y_{c(x)})^2 \, w(x) \, dx

    With :math:`f'` the derivative, :math:`c(x)` the code of x's interval, :math:`y` the levels and
    w the weight, which is 1 on the domain, or a density. The interval of x is the number of borders
    strictly below x; NaN is in the lowest.

    Args:
        bits: of a code; there are ``2 ** bits`` levels.
        levels: y, the values that the step function takes.
        borders: between the intervals, ascending.
        codes: the level of each interval, from the lowest; one more than borders.
        error: E, or the error of the primitive where that was the objective.
        function: name of the function.
        parameters: of the function, by torch's names.
        objective: ``derivative`` or ``primitive``: of what the error was made small.

    Raises:
        InputError: the parts do not fit together.

    Source: Novikov et al., Few-bit backward: quantized gradients of activation functions for
    memory footprint reduction (2022), its dynamic program. Levels shared by intervals are ours.

    Example:
        >>> found = Quantizer.fit("gelu", bits=2)
        >>> [round(border, 4) + 0.0 for border in found.borders]
        [-0.4536, 0.0, 0.4536]
    """

    bits: int
    levels: tuple[float, ...]
    borders: tuple[float, ...]
    codes: tuple[int, ...]
    error: float
    function: str
    parameters: Parameters = ()
    objective: str = "derivative"

    def __post_init__(self) -> None:
        check_objective(self.objective)
        check_table(self.bits, self.levels, self.borders, self.codes, self.error)

    @classmethod
    def fit(
        cls,
        function: str | Function | Elementwise | OnArrays,
        bits: int = 3,
        *,
        weight: Given = "uniform",
        sharing: bool = True,
        objective: str = "derivative",
        domain: tuple[float, float] | None = None,
    ) -> Quantizer:
        """Find the table of least error.

        A dynamic program finds the best table on a grid of about 500 places or, with shared levels,
        of about 500 values of the derivative; Newton's method then moves its borders until each
        lies where its two levels are equally far from the derivative. Functions that consist of
        straight pieces, named, get their exact table, whatever the weight.

        Args:
            function: a name as `functions.function` takes it, what that returned, or a smooth
                elementwise callable on float64 tensors or arrays.
            bits: from 1 to 8; 1 for functions of straight pieces.
            weight: where errors count: ``uniform``; ``normal`` for the standard normal density; a
                `weights.Histogram` of what was seen; or a callable on float64 arrays that returns
                numbers from 0 up.
            sharing: whether intervals may share a level. Then every input has the level that is
                nearest to f', which takes more borders and has never more error. Where the error is
                the same, the table of fewer borders is returned.
            objective: ``derivative`` for E, or ``primitive`` for the error of the function that has
                these derivatives and the same asymptotes; there each level has one interval.
            domain: from where to where errors count; -100 to 100 if None. The outermost intervals
                reach beyond it.

        Returns:
            The table.

        Raises:
            InputError: an option is out of its range; the function is no elementwise one or not
                finite on the domain; the weight is negative, or zero everywhere.

        Source: the same, and for the primitive Yang et al., Reducing fine-tuning memory overhead by
        approximate and memory-sharing backpropagation (2024), ReGELU2.

        Example:
            >>> separate = Quantizer.fit(torch.tanh, bits=2, sharing=False)
            >>> separate.error > 3 * Quantizer.fit(torch.tanh, bits=2).error
            True
        """
        check_bits(bits)
        check_objective(objective)
        bounds = checked_domain(domain)
        given = as_function(function, bounds)
        if given.pieces is not None:
            return _exact(given, given.pieces, bits, objective)
        density = as_weight(weight)
        if objective == "primitive":
            samples(given, density, bounds)  # says what is wrong with the weight
            found = primitive.fitted(given, density, bounds, 2**bits)
            best = polish.Table(found.borders, np.arange(2**bits), found.slopes, found.error)
        else:
            best = best_tables(samples(given, density, bounds), (bits,), sharing=sharing)[bits]
        return from_table(best, given, bits, objective)

    def error_under(
        self,
        weight: Given,
        *,
        function: Function | Elementwise | OnArrays | None = None,
        domain: tuple[float, float] | None = None,
        objective: str | None = None,
    ) -> float:
        """Return the error that this table has under some weight.

        Args:
            weight: as `fit` takes it.
            function: the callable whose table it is; not needed for a named function.
            domain: from where to where errors count; -100 to 100 if None.
            objective: ``derivative`` or ``primitive``; the table's own if None. The primitive is
                equal to the function at the domain's start.

        Returns:
            The integral of the squared error.

        Raises:
            InputError: an option is out of its range, or the function is not known.

        Example:
            >>> table = Quantizer.fit("silu", bits=2)
            >>> abs(table.error_under("uniform") - table.error) < 1e-9
            True
        """
        aim = self.objective if objective is None else objective
        check_objective(aim)
        bounds = checked_domain(domain)
        known = self._known() if function is None else as_function(function, bounds)
        density = as_weight(weight)
        sampled = samples(known, density, bounds)
        levels, borders = np.asarray(self.levels), np.asarray(self.borders)
        if aim == "primitive":
            steps = (borders, levels[list(self.codes)])
            return bends.error_of(known, density, bounds, steps)
        inside = (borders > bounds[0]) & (borders < bounds[1])
        first = int((borders <= bounds[0]).sum())
        codes = np.asarray(self.codes)[first : first + int(inside.sum()) + 1]
        return polish.error_of(sampled, polish.Table(borders[inside], codes, levels, 0.0))

    def borders_in(self, dtype: torch.dtype) -> tuple[float, ...]:
        """Return borders that are numbers of a dtype, and tell its numbers apart as these do.

        A border is rounded down, so that no number of the dtype changes sides. The kinks of
        functions of straight pieces are those that torch compares with in that dtype.

        Args:
            dtype: a floating-point dtype.

        Example:
            >>> Quantizer.fit("relu6", bits=1).borders_in(torch.float16)
            (0.0, 5.99609375)
        """
        straight = self._known().pieces if self.function in NAMES else None
        if straight is not None:
            return straight.borders(dtype)
        return rounded_down(self.borders, dtype)

    def derivative(self, x: torch.Tensor) -> torch.Tensor:
        """Return the level of each number, in its dtype.

        Args:
            x: a tensor of floating-point numbers.

        Example:
            >>> Quantizer.fit("relu", bits=1).derivative(torch.tensor([-1.0, 0.0, 2.0])).tolist()
            [0.0, 0.0, 1.0]
        """
        borders = torch.tensor(self.borders_in(x.dtype), dtype=torch.float64, device=x.device)
        wide = x.to(torch.float64).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        values = [self.levels[code] for code in self.codes]
        return torch.tensor(values, dtype=x.dtype, device=x.device)[
            torch.bucketize(wide.contiguous(), borders)
        ]

    def to_json(self) -> str:
        """Return the table as a JSON document."""
        fields = dataclasses.asdict(self)
        fields["parameters"] = dict(self.parameters)
        return json.dumps({"schema": _SCHEMA, **fields})

    @classmethod
    def from_json(cls, text: str) -> Quantizer:
        """Read a table from what `to_json` wrote.

        Args:
            text: the document; it may come from anywhere.

        Raises:
            InputError: it is no such document, or its numbers make no table.

        Example:
            >>> table = Quantizer.fit("mish", bits=1)
            >>> Quantizer.from_json(table.to_json()) == table
            True
        """
        document = parse_document(text, _SCHEMA)
        try:
            parts = cast("dict[str, list[object]]", document)
            return cls(
                bits=cast("int", document["bits"]),
                levels=floats(document["levels"]),
                borders=floats(document["borders"]),
                codes=tuple(cast("int", code) for code in parts["codes"]),
                error=cast("float", document["error"]),
                function=str(document["function"]),
                parameters=tuple(dict(cast("dict[str, float]", document["parameters"])).items()),
                objective=str(document["objective"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"the document is no quantizer: {error!r}.", hint="write it again with to_json."
            ) from None

    def _known(self) -> Function:
        if self.function not in NAMES:
            raise InputError(
                f"the function {self.function} has to be given again.",
                hint="pass the callable as function=.",
            )
        return named(self.function, dict(self.parameters))


def from_table(
    best: polish.Table, given: Function, bits: int, objective: str = "derivative"
) -> Quantizer:
    """Return the record of a table.

    Args:
        best: the table.
        given: whose derivative it stands for.
        bits: of a code.
        objective: of what its error is.
    """
    return Quantizer(
        bits=bits,
        levels=tuple(best.levels.tolist()),
        borders=tuple(best.borders.tolist()),
        codes=tuple(best.codes.tolist()),
        error=best.error,
        function=given.name,
        parameters=given.parameters,
        objective=objective,
    )


def _exact(given: Function, straight: Pieces, bits: int, objective: str) -> Quantizer:
    if bits != 1:
        raise InputError(
            f"{given.name} has a derivative of two values; {bits} bits hold no more than 1.",
            hint="take bits=1, which is exact.",
        )
    return Quantizer(
        bits=1,
        levels=straight.levels,
        borders=straight.borders(torch.float64),
        codes=straight.codes,
        error=0.0,
        function=given.name,
        parameters=given.parameters,
        objective=objective,
    )
