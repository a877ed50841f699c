"""A scratch copy of a model with one adapter merged, for sampling; the base itself is never touched.

Sampling through an unmerged adapter costs a third of its speed. Merging into the base and subtracting later would wear
the base down: bfloat16 rounds both ways. So the copy is built from the pristine base each time, rounded so that small
updates survive (finlm/rounding.py), and what survives is measured.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from finlm.joined import join
from finlm.rounding import Chance, stochastically


class SamplingCopy:
    """A model of the same layers that shares its weights with the base, but for adapted maps, which are its own.

    It has a configuration of its own, so that it can attend in another way than the base does.

    Args:
        model: The model to copy, with or without adapters.
        merge: True merges an adapter at each `refresh`; False shares the adapted maps too, which then sample in
            whatever role is on (no second copy of the weights; a third slower on a GPU).

    Attributes:
        model: The copy. Merged weights are undefined until the first `refresh`.
        is_filled: False until then.
        is_merged: True if an adapter's weights are merged into maps of its own.
    """

    def __init__(self, model: PeftModel | LlamaForCausalLM, *, merge: bool = True) -> None:
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        with torch.device("meta"):
            self.model = LlamaForCausalLM(copy.deepcopy(base.config))
        self._merge = merge
        self._pairs: list[tuple[LoraLinear, nn.Linear]] = []
        self._share(base, self.model)
        join(self.model, [own for _, own in self._pairs])
        self.model.training = False
        self.is_merged = bool(self._pairs)
        self.is_filled = not self._pairs

    def _share(self, original: nn.Module, shell: nn.Module) -> None:
        """Fill `shell` with the original's leaves, or with linear maps of its own where an adapter sits."""
        shell.training = original.training
        for name, part in original.named_children():
            if isinstance(part, LoraLinear) and self._merge:
                own = _empty_like(cast(nn.Linear, part.get_base_layer()))
                self._pairs.append((part, own))
                setattr(shell, name, own)
            elif isinstance(part, LoraLinear) or not any(True for _ in part.children()):
                setattr(shell, name, part)
            else:
                self._share(part, getattr(shell, name))

    @torch.no_grad()
    def refresh(self, adapter: str | None) -> float:
        """Merge the adapter as it is now: W' = W + scaling B A, in float32, rounded once to the base's dtype.

        In bfloat16 it is rounded by chance, the same each time, so that an update too small for it is there on average.

        Args:
            adapter: Its name; None takes the base's weights as they are. Other adapters may sit on more maps.

        Returns:
            The share of the update that survives the rounding, <W' - W, D> / <D, D> over all adapted maps; 1 where the
            adapter is still zero or nothing is merged.
        """
        sums = []
        for number, (lora, own) in enumerate(self._pairs):
            base_OI = lora.get_base_layer().weight
            if adapter not in lora.lora_A:
                own.weight.copy_(base_OI)
                continue
            delta_OI: Tensor = lora.get_delta_weight(adapter)
            chance = (
                Chance.of(base_OI.shape[0], base_OI.shape[1], number, base_OI.device)
                if base_OI.dtype == torch.bfloat16
                else None
            )
            sums.append(_write_merged(base_OI.is_cuda)(own.weight, base_OI, delta_OI, chance))
        self.is_filled = True
        along, size = torch.stack(sums).double().sum(dim=0).tolist() if sums else (0.0, 0.0)
        return along / size if size else 1.0


def _merge(own_OI: Tensor, base_OI: Tensor, delta_OI: Tensor, chance: Chance | None) -> Tensor:
    """Write base + update, rounded; return <what moved, update> and <update, update>, (2,), float32."""
    delta_OI = delta_OI.float()
    merged_OI = base_OI.float() + delta_OI
    rounded_OI = stochastically(merged_OI, chance) if chance else merged_OI.to(base_OI.dtype)
    own_OI.copy_(rounded_OI)
    moved_OI = rounded_OI.float() - base_OI.float()
    return torch.stack([(moved_OI * delta_OI).sum(), delta_OI.square().sum()])


@cache
def _write_merged(on_cuda: bool) -> Callable[..., Tensor]:
    # on CUDA one pass over the weights in place of fifteen
    return torch.compile(_merge, dynamic=True) if on_cuda else _merge


def _empty_like(linear: nn.Linear) -> nn.Linear:
    """Return a linear map of the same shape with weights yet to be written; a bias is shared."""
    own = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
    own.weight = nn.Parameter(torch.empty_like(linear.weight), requires_grad=False)
    own.bias = linear.bias
    return own
