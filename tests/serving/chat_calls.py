"""Clients of generative judges, written like those of UnifiedReward and Pref-GRPO; the instructions are ours.

They encode each candidate as a JPEG, put both images of a pair before an instruction with the caption, send
one request for each pair of a group (lower index first, many at once), and parse the text that comes back.
"""

import base64
import io
import itertools
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
from PIL import Image

__all__ = [
    "FLEX", "RANK", "SCORES", "THINK", "THINK_QWEN3", "ask", "content", "data_url", "final_answer",
    "flex_winner", "jpeg", "messages", "pair_scores", "win_rates",
]  # fmt: skip

THINK = (
    "Compare the two pictures. Reason inside <think> and </think>, then give the verdict inside <answer> and "
    "</answer>.\n\nText Caption: [{prompt}]"
)
THINK_QWEN3 = (
    "The pictures were drawn for 「{prompt}」. Compare them.\nReason inside <think> and </think>.\n"
    "Give the verdict inside <answer> and </answer>.\n"
)
RANK = "Compare the two pictures and say which is better.\nText Caption: [{prompt}]"
SCORES = (
    "Share one point between the two pictures, three times:\n\nAlignment Score:\n Image 1: X\n Image 2: Y\n\n"
    "Text Caption: [{prompt}]"
)
FLEX = (
    "Compare the two pictures.\n**Prompt:** [{prompt}]\n\n[Image 1] \n[Image 2] \n\nAnswer in JSON:\n"
    '```json\n{{"categories": [...], "winner": "Image 1/2"}}\n'
)
WORKERS = 16


def jpeg(image: bytes) -> bytes:
    """A candidate as the clients send it."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(image)) as picture:
        picture.convert("RGB").save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def data_url(image: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"


def messages(images, text):
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def ask(served, images, text, **fields):
    """One request, with the fields that the clients send."""
    body = {"model": "judge", "messages": messages(images, text), "do_sample": False, "max_tokens": 4096}
    url = f"http://{served.http}/v1/chat/completions"
    return httpx.post(url, content=json.dumps(body | fields), timeout=30)


def content(response) -> str:
    response.raise_for_status()
    return response.json()["choices"][0]["message"]["content"]


def final_answer(text: str) -> int | None:
    """1 or 2 from the tag of Think; None counts half to each."""
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    verdict = found[1].strip() if found else ""
    return 1 if "Image 1 is better" in verdict else 2 if "Image 2 is better" in verdict else None


def flex_winner(text: str) -> int | None:
    """The overall winner of Flex, where an answer has no categories."""
    parsed = json.loads(text)
    assert parsed.get("categories", [])[:3] == []
    named = [n for n in (1, 2) if re.search(rf"\bimage\s*{n}\b", str(parsed.get("winner", "")).lower())]
    return named[0] if len(named) == 1 else None


def pair_scores(text: str) -> list[tuple[float, float]]:
    """The shares of both images by dimension."""
    pattern = r"(Alignment|Coherence|Style) Score:\s*Image 1:\s*([0-9.]+)\s*Image 2:\s*([0-9.]+)"
    return [(float(first), float(second)) for _, first, second in re.findall(pattern, text)]


def win_rates(served, group, template: str, parse: Callable[[str], int | None]) -> list[float]:
    """The rewards of a group as Pref-GRPO computes them: each pair once, a tie half to each, three places."""
    images = [jpeg(image) for image in group.candidates]
    text = template.format(prompt=group.prompt)
    pairs = list(itertools.combinations(range(group.size), 2))
    with ThreadPoolExecutor(WORKERS) as pool:
        answers = pool.map(lambda pair: content(ask(served, [images[n] for n in pair], text)), pairs)
    wins = [0.0] * group.size
    for (i, j), verdict in zip(pairs, map(parse, answers), strict=True):
        wins[i] += {1: 1.0, 2: 0.0, None: 0.5}[verdict]
        wins[j] += {1: 0.0, 2: 1.0, None: 0.5}[verdict]
    return [round(won / (group.size - 1), 3) for won in wins]
