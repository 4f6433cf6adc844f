"""Find a model's repeated blocks from its structure: layers, residual blocks, stages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from torch import nn

Named: TypeAlias = tuple[str, nn.Module]

_INDEXED: Final = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
_LEAST_SHARE: Final = 0.05  # of the largest run, for like modules held as plain attributes


def repeated_blocks(model: nn.Module) -> tuple[Named, ...]:
    """Return the modules that repeat: siblings of one class, at the outermost such level.

    Like siblings are looked for in containers and among plain attributes. Modules inside a
    block are not reported again. Where the siblings are stages (of other widths, each with a
    list of like modules inside, as in ResNet or Swin) or whole towers (as the two stacks of
    T5), the modules inside them are reported instead. Layers without sub-modules, such as the
    linear layers of a perceptron, are no blocks. No class of a library is known by name.

    Args:
        model: any module; parameters may be fake or on the meta device.

    Returns:
        (dotted path, module), each module once, in the order of ``named_modules()``; several
        runs, such as encoder and decoder, are all there. Empty where nothing repeats.

    Example:
        >>> block = lambda: nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4))
        >>> [path for path, _ in repeated_blocks(nn.Sequential(nn.Linear(8, 4), block(), block()))]
        ['1', '2']
    """
    runs = list(_runs([("", model)], descended=False))
    largest = max((_size(run) for run, _ in runs), default=0)
    chosen = {
        id(module): path
        for run, indexed in runs
        if indexed or _size(run) >= _LEAST_SHARE * largest
        for path, module in reversed(run)
    }
    return tuple((path, m) for path, m in model.named_modules() if id(m) in chosen)


def _runs(cohort: list[Named], *, descended: bool) -> Iterator[tuple[list[Named], bool]]:
    """Yield (run, whether it lies in containers) below modules that stand at one level."""
    in_list = all(isinstance(parent, nn.ModuleList) for _, parent in cohort)
    found = False
    others: list[list[Named]] = []
    for group, siblings, indexed in _groups(cohort):
        if not (siblings and all(_is_block(module) for _, module in group)):
            others.append(group)
        elif not descended and _are_stages(group, indexed):
            yield from _runs(group, descended=True)
        else:
            found = True
            yield group, indexed
    for group in others:
        if found and in_list and all(_is_block(module) for _, module in group):
            yield group, True  # the one layer of another class in a list of layers
        else:
            # Like modules of several stages stay together, so that a stage with a single
            # block is treated as its neighbours are.
            yield from _runs(group, descended=descended)


def _groups(cohort: list[Named]) -> list[tuple[list[Named], bool, bool]]:
    """Group the children of like modules by sort: (group, two in one parent, in containers)."""
    groups: dict[object, list[Named]] = {}
    siblings: set[object] = set()
    indexed: dict[object, bool] = {}
    for path, parent in cohort:
        seen: set[object] = set()
        for name, child in parent._modules.items():
            if child is None or name == "parametrizations":
                continue
            sort = _sort(child)
            if sort in seen:
                siblings.add(sort)
            seen.add(sort)
            indexed[sort] = indexed.get(sort, True) and isinstance(parent, _INDEXED)
            groups.setdefault(sort, []).append((f"{path}.{name}" if path else name, child))
    return [(group, sort in siblings, indexed[sort]) for sort, group in groups.items()]


def _sort(module: nn.Module) -> object:
    """What like modules have in common: their class, and for plain sequences what is in them."""
    if type(module) is nn.Sequential:
        return (nn.Sequential, frozenset(type(child) for child in module))
    return type(module)


def _is_block(module: nn.Module) -> bool:
    """Whether it has a forward, parameters, and parts: modules, or more than weight and bias."""
    if type(module).forward is nn.Module.forward:
        return False
    if not any(True for _ in module.parameters()):
        return False
    parts = [name for name in module._modules if name != "parametrizations"]
    return bool(parts) or sum(1 for _ in module.parameters(recurse=False)) > 2


def _are_stages(group: list[Named], indexed: bool) -> bool:
    """Whether like modules only hold the real blocks: stages of a network, or towers."""
    if indexed:
        # Layers of one width are blocks, whatever lists they hold (of experts, say);
        # stages differ from one another.
        distinct = {
            tuple((name, tuple(p.shape)) for name, p in module.named_parameters())
            for _, module in group
        }
        if 2 * len(distinct) <= len(group):
            return False
    return any(
        inside and all(_num_contractions(module) >= 2 for _, module in run)
        for _, member in group
        for run, inside in _runs([("", member)], descended=True)
    )


def _num_contractions(module: nn.Module) -> int:
    """Count the weights that multiply: a convolution with its normalisation has one."""
    return sum(1 for p in module.parameters() if p.dim() >= 2)


def _size(run: list[Named]) -> int:
    return sum(p.numel() for p in {p for _, module in run for p in module.parameters()})
