"""docs/grpo.md names every reward, and the examples there and in README.md are Python."""

import re
from pathlib import Path

import prefrm.grpo

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "grpo.md").read_text()
README = (ROOT / "README.md").read_text()


def test_every_reward_of_a_trainer_has_its_line():
    rewards = {name for name in prefrm.grpo.__all__ if name.endswith("Reward")} - {"CombinedReward"}
    assert rewards <= set(re.findall(r"`(\w+Reward)\(", TEXT.partition("##")[0]))


def test_the_examples_name_what_exists():
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) == 9
    for example in examples:
        code = compile(example, "docs/grpo.md", "exec")
        names = {name for name in re.findall(r"\b(\w+Reward)\(", example)}
        assert names and all(hasattr(prefrm.grpo, name) for name in names)
        assert code


def test_the_rewards_of_the_readme_can_be_made():
    lines = re.findall(r"\bPreferenceReward\(judge.*?\)", README)
    assert len(lines) == 2
    for line in lines:
        made = eval(line, {"PreferenceReward": prefrm.grpo.PreferenceReward, "judge": None, "render": len})
        assert made.__name__ == "preference"


def test_the_line_for_several_rewards_makes_one():
    (line,) = re.findall(r"^reward = CombinedReward\(.*$", TEXT, re.MULTILINE)
    names = {
        "PreferenceReward": lambda scorer, render: lambda **arguments: [1.0, None],
        "CombinedReward": prefrm.grpo.CombinedReward,
        "connect": lambda url: None,
        "URL": "grpc://judge:8001/judge",
        "render": None,
        "length_reward": lambda **arguments: [3.0, 5.0],
    }
    exec(line, names)
    assert names["reward"]() == [1.3, None]
