"""Which of a model's LoRA adapters is on.

PEFT's own switches (`set_adapter`, `disable_adapter`) also switch `requires_grad`, so that a trained adapter silently
stops training. Here an adapter is put on and taken off by two attributes of each LoRA layer and nothing else.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

State = list[tuple[list[str], bool]]
"""Of each LoRA layer: which adapters are on, and True if all are off."""


class AdapterSwitch:
    """Puts an adapter of a model on and takes it off, and touches nothing else."""

    def __init__(self, model: PeftModel) -> None:
        self._layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]

    @contextmanager
    def __call__(self, adapter: str | None) -> Iterator[None]:
        """Put an adapter on for the `with` block; None: none."""
        if adapter is None:
            state: State = [(layer._active_adapter, True) for layer in self._layers]
        else:
            state = [([adapter], False) for _ in self._layers]
        with self.wearing(state):
            yield

    @contextmanager
    def wearing(self, state: State) -> Iterator[None]:
        """Go back to a `state` for the `with` block."""
        before = self.state()
        self._put(state)
        try:
            yield
        finally:
            self._put(before)

    def state(self) -> State:
        """Return what is on."""
        return [(layer._active_adapter, layer._disable_adapters) for layer in self._layers]

    def _put(self, state: State) -> None:
        for layer, (active, is_off) in zip(self._layers, state, strict=True):
            layer._active_adapter, layer._disable_adapters = active, is_off
