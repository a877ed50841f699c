"""What chooses among several models' answers: a reward model of this project, in this process or behind its server."""

import asyncio
from collections.abc import Sequence

import httpx

from finlm.errors import UserError
from selfqa.crew import Scores


def scores_of(scorer: str) -> Scores:
    """Return the scores by `finlm reward serve` at a URL, or by the reward model in a folder.

    Raises:
        UserError: There is no reward model.
    """
    return _by_server(scorer) if scorer.startswith(("http://", "https://")) else _by_model(scorer)


def _by_server(url: str) -> Scores:
    async def scores(question: str, answers: Sequence[str]) -> list[float]:
        body = {"prompts": [question] * len(answers), "responses": list(answers)}
        try:
            async with httpx.AsyncClient(timeout=60.0) as client:
                reply = await client.post(f"{url.rstrip('/')}/score", json=body)
                reply.raise_for_status()
        except httpx.HTTPError as fault:
            said = fault.response.text[:200] if isinstance(fault, httpx.HTTPStatusError) else type(fault).__name__
            raise UserError(f"the reward server at {url} did not score: {said}; see `finlm reward serve`.") from fault
        return [float(score) for score in reply.json()["scores"]]

    return scores


def _by_model(folder: str) -> Scores:
    from finlm import model  # torch, which a run that scores nothing does without
    from finlm.records import Message
    from finlm.scorer import Scorer

    device = model.device_of_this_process()
    scorer = Scorer.load(folder, dtype=model.choose_dtype("auto", device), device=device)
    alone = asyncio.Lock()

    async def scores(question: str, answers: Sequence[str]) -> list[float]:
        asked = [((Message(role="user", content=question),), answer, True) for answer in answers]
        async with alone:
            return await asyncio.to_thread(scorer.score, asked)

    return scores
