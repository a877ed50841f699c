"""PPO-ptx: text and instructions mixed into the policy's steps, so that it keeps what it learned before.

    loss = PPO's - gamma_ptx E[log pi(x)]

Ouyang et al. 2022 (InstructGPT, arXiv 2203.02155), equation 2; here the expectation is the mean over learned tokens.
Axes: B rows, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedTokenizerBase

from alignment.layouts import Layout
from alignment.lessons import Part, Totals
from alignment.ppo_config import PPOConfig
from finlm import data
from finlm.generation import pad_right
from finlm.likelihood import token_log_probs
from finlm.records import Removal
from finlm.scorer import last_hidden


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that pass through the model together.

    Example:
        Rows((Row(stream="text", ids=(216, 24248, 2), labels=(216, 24248, 2), record_id="9f…"),))
    """

    all: tuple[data.Row, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.all)

    @property
    def tokens(self) -> int:
        """Size with padding, in tokens."""
        return len(self.all) * max(len(row.ids) for row in self.all)

    @property
    def learned(self) -> int:
        """Tokens that the loss counts: the first of a row is never predicted."""
        return sum(label != data.IGNORE for row in self.all for label in row.labels[1:])

    def rows(self, start: int, stop: int) -> "Rows":
        """Return some of the rows."""
        return Rows(self.all[start:stop])


class Mixture:
    """Rows for each step, drawn from the seed that the step gives and from nothing else.

    Attributes:
        instructions: Rows whose answers are learned.
        text: Rows of which every token is learned.
        removals: What was set aside.
    """

    def __init__(
        self,
        instructions: Sequence[data.Row],
        text: Sequence[data.Row],
        *,
        text_share: float,
        removals: Sequence[Removal] = (),
    ) -> None:
        self.instructions = list(instructions)
        self.text = list(text)
        self.removals = list(removals)
        self._text_share = text_share

    @classmethod
    def read(cls, args: PPOConfig, tokenizer: PreTrainedTokenizerBase) -> "Mixture":
        """Read and encode what the settings name, without the held-out groups.

        Raises:
            MissingInput: A file is not there.
            UserError: No instruction is left, or text is asked for and there is none.
        """
        found = data.read_conversations(args.ptx_instructions)
        kept = [each for each in found if not data.is_held_out(each, test_share=args.ptx_test_share)]
        removals = data.beyond(found, kept, rule="held-out", reason=f"ptx_test_share is {args.ptx_test_share}")
        instructions, too_long = data.instruction_rows(kept, tokenizer, max_length=args.ptx_max_length)
        paths = args.ptx_text if args.ptx_text_share else []
        paragraphs = [paragraph for path in paths for paragraph in data.read_text(path)]
        text = data.text_rows(paragraphs, tokenizer, max_length=args.ptx_max_length)
        made = cls(instructions, text, text_share=args.ptx_text_share, removals=[*removals, *too_long])
        made.take(1, seed=0)
        return made

    def take(self, count: int, *, seed: int) -> list[data.Row]:
        """Return `count` rows, text in its share.

        Raises:
            UserError: There are no instructions, or text is asked for and there is none.
        """
        return data.interleave(self.instructions, self.text, text_share=self._text_share, count=count, seed=seed)


def micro_batches(rows: Sequence[data.Row], *, size: int) -> list[Rows]:
    """Group rows of similar length into micro-batches of `size`."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    return [Rows(tuple(ordered[start : start + size])) for start in range(0, len(ordered), size)]


def gradients(
    roles: Layout,
    rows: Rows,
    parameters: Sequence[nn.Parameter],
    *,
    coefficient: float,
    learned_tokens: float,
    pad: int,
) -> Part:
    """Return the policy's gradients of the mixed-in loss, divided by the learned tokens of the whole step.

    Args:
        roles: The model.
        rows: The rows.
        parameters: The policy's parameters.
        coefficient: gamma_ptx, the weight of this loss beside PPO's.
        learned_tokens: Learned tokens of the whole step, over all processes.
        pad: Id of the padding.
    """
    ids_BT, is_token_BT = pad_right([row.ids for row in rows.all], pad, roles.device)
    labels_BT, _ = pad_right([row.labels for row in rows.all], data.IGNORE, roles.device)
    with roles("policy"):
        hidden_BTD, head_VD = last_hidden(roles.model, ids_BT, is_token_BT), roles.head_VD
    is_learned_BT = labels_BT[:, 1:] != data.IGNORE
    logp_N, _ = token_log_probs(hidden_BTD[:, :-1][is_learned_BT], labels_BT[:, 1:][is_learned_BT], head_VD)
    loss = -logp_N.sum()
    found = roles.gradients(coefficient * loss / learned_tokens, list(parameters))
    return Part(found, Totals(ptx=float(loss.detach())))
