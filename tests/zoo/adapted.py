"""Models of the zoo with peft's adapters and bitsandbytes' 4-bit layers, as they are trained."""

from __future__ import annotations

from torch import nn

from shoestring.measure.tracing.blocks import repeated_blocks


def linear_layers(model: nn.Module) -> list[str]:
    """Return the paths of the layers that adapters go to: the linear ones of the blocks.

    Args:
        model: any module.
    """
    blocks = [path for path, _ in repeated_blocks(model)]
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        if any(path.startswith(block + ".") for block in blocks)
    ]


def with_lora(model: nn.Module, rank: int) -> nn.Module:
    """Adapt a model as ``peft.get_peft_model`` does: adapters of a low base are in float32.

    Args:
        model: changed in place.
        rank: of the adapters.
    """
    import peft

    config = peft.LoraConfig(r=rank, target_modules=linear_layers(model))
    adapted: nn.Module = peft.inject_adapter_in_model(config, model)
    for path, parameter in adapted.named_parameters():
        parameter.requires_grad_("lora_" in path)
        if "lora_" in path:
            parameter.data = parameter.data.float()
    return adapted


def in_4_bits(model: nn.Module) -> nn.Module:
    """Quantise the linear layers of the blocks with bitsandbytes, as transformers chooses them.

    Args:
        model: changed in place; bitsandbytes knows no Conv1D.
    """
    import bitsandbytes as bnb

    options = {"quant_type": "nf4", "compress_statistics": True}
    for path in linear_layers(model):
        parent, _, name = path.rpartition(".")
        if name in (getattr(model, "_keep_in_fp32_modules", None) or ()):
            continue
        old = model.get_submodule(path)
        assert isinstance(old, nn.Linear)
        new = bnb.nn.Linear4bit(old.in_features, old.out_features, bias=False, **options)
        new.weight = bnb.nn.Params4bit(old.weight.data, requires_grad=False, **options)
        new.bias = old.bias
        setattr(model.get_submodule(parent), name, new.to("cpu"))
    setattr(model, "is_loaded_in_4bit", True)  # noqa: B010  # what peft goes by
    return model
