"""An output embedding whose rows come in eights, so that CUDA's fast products take a vocabulary of any size.

The 6B's 39,438 pieces are no multiple of eight: a product with that many columns runs on kernels of an older
generation, at a third of the speed. Rows of zeros behind the embedding, in the same memory, make the product one of
39,440 columns; the weights themselves stay as they are, and whoever knows nothing of it sees the model's own.
"""

from weakref import WeakValueDictionary

from torch import Tensor, nn
from torch.nn.functional import pad

ROWS = 8
_WHOLE: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
"""Address of an embedding -> the same with its rows of zeros; lives as long as the embedding does."""


def install(head: nn.Linear) -> None:
    """Move an output embedding to where there is room behind it, if its rows are no multiple of eight."""
    count, width = head.weight.shape
    if count % ROWS == 0:
        return
    whole_WD = head.weight.new_zeros(-(-count // ROWS) * ROWS, width, requires_grad=False)
    whole_WD[:count] = head.weight.detach()
    head.weight.data = whole_WD[:count]
    whole_WD.finlm_rows = count  # type: ignore[attr-defined]
    head.weight.finlm_whole = whole_WD  # type: ignore[attr-defined]
    _WHOLE[whole_WD.data_ptr()] = whole_WD


def whole(head_VD: Tensor) -> Tensor:
    """Return an output embedding with the rows of zeros behind it, (W, D); itself where there are none."""
    found = _WHOLE.get(head_VD.data_ptr())
    if found is None or head_VD.shape != (getattr(found, "finlm_rows", 0), found.shape[1]):
        return head_VD
    return found


def aligned(head_VD: Tensor) -> Tensor:
    """Return an output embedding in rows of eights: `whole`, or on CUDA a copy with rows of zeros.

    Copying is the way of embeddings that `install` cannot move, such as one that is put together of shards for each
    pass: 0.3 GB a pass with the 6B.
    """
    found = whole(head_VD)
    missing = -len(found) % ROWS
    return pad(found, (0, 0, 0, missing)) if missing and found.is_cuda else found
