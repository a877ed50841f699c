"""Loading a tokenizer and checking that it belongs to a model."""

import hashlib
import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finlm.errors import MissingInput, UserError


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder and check what every stage relies on.

    Raises:
        MissingInput: The folder holds no tokenizer.
        UserError: It is damaged, there is no end token, or padding and end share one id.
    """
    folder = Path(folder)
    if not (folder / "tokenizer_config.json").is_file():
        raise MissingInput(f"{folder} holds no tokenizer (tokenizer_config.json); give a model folder.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files make the library fail in many ways
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{folder}: the tokenizer cannot be loaded ({type(error).__name__}: {reason}); copy the folder again."
        ) from error
    check_special_tokens(tokenizer, str(folder))
    tokenizer.padding_side = "left"
    return tokenizer


def check_special_tokens(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Check that the end token exists and is not the padding token.

    Raises:
        UserError: With the token and how to mend it.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(f"The tokenizer of {name} has no end token; set eos_token in its tokenizer_config.json.")
    if tokenizer.pad_token_id is None:
        raise UserError(f"The tokenizer of {name} has no padding token; set pad_token in its tokenizer_config.json.")
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise UserError(
            f"The tokenizer of {name} uses {tokenizer.eos_token!r} (id {tokenizer.eos_token_id}) both as padding and "
            "as end of sequence, so an answer's end would be masked; set another pad_token in tokenizer_config.json."
        )


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of the vocabulary and the special ids: equal for tokenizers that encode alike, whatever their template."""
    content = [sorted(tokenizer.get_vocab().items()), tokenizer.eos_token_id, tokenizer.pad_token_id]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode("utf-8")).hexdigest()[:16]


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, name: str) -> None:
    """Check that a model has an embedding for every token.

    Args:
        tokenizer: The tokenizer.
        rows: Rows of the model's embedding.
        name: The model, for the message.

    Raises:
        UserError: The tokenizer knows more tokens than the model.
    """
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise UserError(
            f"{name} has {rows:,} embedding rows, but its tokenizer has ids up to {highest:,}: "
            "they belong to different models; take both from one folder."
        )
