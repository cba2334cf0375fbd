"""UnifiedReward: the verdict is read from the answer alone, and the prompt from inside the instruction."""

from pathlib import Path
from typing import Any

from tests.data_recipes.sources import build, preferences, write_image, write_json

EXAMPLE = "For example: <think>\n1. ...\n</think>\n<answer>Image 1 is better</answer>\n"
CAPTION = "a sign [in red] that says [HI]"


def instruction(caption: str) -> str:
    """The wording of the published training data, with a verdict in its example."""
    return f"Compare these two images. {EXAMPLE}Your task is provided as follows:\nText Caption: [{caption}]"


def paths(images: str) -> list[str]:
    return [f"part/{name}.png" for name in images]


def conversation(images: str, answer: str, caption: str = CAPTION) -> dict[str, Any]:
    """A row for supervised training, with or without reasoning."""
    turns = [{"from": "human", "value": instruction(caption)}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, "images": paths(images)}


def problem(images: str, solution: str) -> dict[str, Any]:
    """A row for GRPO."""
    return {"problem": instruction(CAPTION), "solution": solution, "images": paths(images)}


def write(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The options of a build from these rows."""
    for name in ("a", "b", "c", "d"):
        write_image(folder / "images" / "part" / f"{name}.png")
    write_image(folder / "images" / "part" / "x.png", "broken")
    return {"source": write_json(folder / "train_data.json", rows), "images": folder / "images"}


THOUGHT = "<think>Image 1 is better in colors.\nImage 1: 8+7=15\nImage 2: 9+9=18</think>\n"


def test_conversations_with_and_without_reasoning(tmp_path: Path) -> None:
    rows = [
        conversation("ab", "Image 2 is better than Image 1."),
        conversation("cb", "Image 1 is better than Image 2."),
        conversation("ac", "Both images are equally good."),
        conversation("ad", THOUGHT + "<answer>Image 2 is better</answer>"),
        conversation("ax", "Image 1 is better than Image 2."),  # x is broken
        conversation("ab", "Video 1 is better than Video 2."),
        conversation("a", "Final Score: 4"),
        conversation("ab", "I cannot tell."),
    ]
    built = build("unifiedreward", tmp_path / "out", **write(tmp_path, rows))
    assert preferences(tmp_path / "out", *"abcd", split="train") == {
        (CAPTION, "a", "b"): (0.0, 1.0),
        (CAPTION, "b", "c"): (0.0, 1.0),
        (CAPTION, "a", "c"): (0.5, 1.0),
        (CAPTION, "a", "d"): (0.0, 1.0),
    }
    assert built.info.splits["train"].left_out == {
        "broken image": 1,
        "no verdict on two images of a caption": 2,
        "not two images": 1,
    }


def test_problems_with_solutions(tmp_path: Path) -> None:
    rows = [
        problem("ab", "Image 2 is better"),
        problem("bc", "Image 1 is better"),
        problem("ab", "Video 1 is better"),
    ]
    built = build("unifiedreward", tmp_path / "out", **write(tmp_path, rows))
    assert preferences(tmp_path / "out", *"abc") == {
        (CAPTION, "a", "b"): (0.0, 1.0),
        (CAPTION, "b", "c"): (1.0, 1.0),
    }
    assert built.info.splits["train"].left_out == {"no verdict on two images of a caption": 1}


def test_chosen_and_rejected(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "caption": "a cat", "jpg_0": "part/a.png", "jpg_1": "part/b.png", "label_0": 1},
        {"id": "2", "caption": "a cat", "jpg_0": "part/c.png", "jpg_1": "part/x.png", "label_0": 1},
        {"id": "3", "image": "part/a.png", "prompt": "What is it?", "chosen": "A cat.", "rejected": "A dog."},
        {"id": "4", "image": "part/a.png", "prompt": "What is it?"},
    ]
    built = build("unifiedreward", tmp_path / "out", **write(tmp_path, rows))
    assert preferences(tmp_path / "out", *"ab") == {("a cat", "a", "b"): (1.0, 1.0)}
    assert built.info.splits["train"].left_out == {"answers in words": 1, "bad row": 1, "broken image": 1}
