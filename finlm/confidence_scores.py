"""Scores of sampled answers, by a reward model, prompt by prompt; what was scored is kept."""

from pathlib import Path

from finlm import jsonl, model, scorer
from finlm.confidence import ScoredPrompt, answers_of, read_scores
from finlm.progress import bar
from finlm.records import Prompt

PROMPTS_AT_ONCE = 16
"""Prompts between two writes of the scores so far."""


def score_candidates(
    prompts: list[Prompt], candidates: str, reward_model: str, *, kept: Path, dtype: str
) -> dict[str, ScoredPrompt]:
    """Score the answers to the prompts, as far as there are any.

    Args:
        prompts: The prompts; answers to others are not scored.
        candidates: File of Candidates records.
        reward_model: Folder of the reward model.
        kept: File of the scores so far; a prompt that is in it is not scored again.
        dtype: auto, bfloat16 or float32.

    Returns:
        Prompt id -> its scores.
    """
    answers = answers_of(candidates, [prompt.id for prompt in prompts])
    found = read_scores(kept) if kept.is_file() else {}
    waiting = [item for name, item in answers.items() if name not in found]
    if not waiting:
        jsonl.write(kept, found.values())
        return found
    device = model.device_of_this_process()
    judge = scorer.Scorer.load(reward_model, dtype=model.choose_dtype(dtype, device), device=device)
    with bar() as progress:
        task = progress.add_task("scores", total=len(answers), completed=len(found), note="prompts")
        for start in range(0, len(waiting), PROMPTS_AT_ONCE):
            batch = waiting[start : start + PROMPTS_AT_ONCE]
            rows = [(item.prompt.messages, one.text, one.ended) for item in batch for one in item.responses]
            scores = iter(judge.score(rows))
            for item in batch:
                own = tuple(next(scores) for _ in item.responses)
                found[item.prompt.id] = ScoredPrompt(prompt_id=item.prompt.id, scores=own)
            jsonl.write(kept, found.values())
            progress.advance(task, len(batch))
    return found
