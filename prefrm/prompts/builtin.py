"""The built-in templates, by id. Each is spelled out: a judge depends on every letter of its template."""

from prefrm.errors import ConfigError
from prefrm.prompts.files import FILE, read_template
from prefrm.prompts.template import Template

__all__ = ["TEMPLATES", "default_template", "get_template"]

# Nothing here may follow a change elsewhere.
TEMPLATES: dict[str, Template] = {
    template.id: template
    for template in (
        Template(
            id="match-v1",
            instruction="Prompt:\n",
            first="\nImage 1:",
            second="\nImage 2:",
            question="\nWhich image matches the prompt better, 1 or 2?",
            answers=("1", "2"),
        ),
        Template(
            id="match-twice-v1",
            instruction="Prompt:\n",
            first="\nImage 1:",
            second="\nImage 2:",
            again="\nPrompt:\n",
            question="\nWhich image matches better, 1 or 2?",
            answers=("1", "2"),
        ),
        Template(
            id="match-or-tie-v1",
            instruction="Prompt:\n",
            first="\nImage 1:",
            second="\nImage 2:",
            question="\nWhich image matches the prompt better, 1 or 2? Answer 0 if neither does.",
            answers=("1", "2", "0"),
        ),
        Template(
            id="match-or-tie-twice-v1",
            instruction="Prompt:\n",
            first="\nImage 1:",
            second="\nImage 2:",
            again="\nPrompt:\n",
            question="\nWhich image matches better, 1 or 2, or 0?",
            answers=("1", "2", "0"),
        ),
        Template(
            id="match-late-v1",
            instruction="Prompt:\n",
            question="\nWhich image matches better, 1 or 2?",
            first="\nImage:",
            again="\nPrompt:\n",
            suffixes=("\nHow well does image 1 match?", "\nHow well does image 2 match?"),
            answers=("1", "2"),
        ),
        Template(
            id="match-or-tie-late-v1",
            instruction="Prompt:\n",
            question="\nWhich image matches better, 1 or 2, or 0?",
            first="\nImage:",
            again="\nPrompt:\n",
            suffixes=("\nHow well does image 1 match?", "\nHow well does image 2 match?"),
            answers=("1", "2", "0"),
        ),
        Template(
            id="rate-v1",
            instruction="Prompt:\n",
            first="\nImage 1:",
            question="\nHow well does image 1 match the prompt?",
        ),
        Template(
            id="rate-twice-v1",
            instruction="Prompt:\n",
            first="\nImage 1:",
            again="\nPrompt:\n",
            question="\nHow well does image 1 match?",
        ),
    )
}


def default_template(*, attention: str, ties: bool = False) -> str:
    """The id of the first template for that attention, with or without an answer for a tie."""
    return next(t.id for t in TEMPLATES.values() if t.attention == attention and t.ties == ties)


def get_template(name: str) -> Template:
    """The built-in template of that id, or, of `file:PATH`, the one in that file.

    Raises:
        ConfigError: there is no such template, and the ids are listed; or as `read_template`.
    """
    if name.startswith(FILE):
        return read_template(name.removeprefix(FILE))
    if name not in TEMPLATES:
        raise ConfigError(
            f"there is no template {name!r}; templates: {', '.join(sorted(TEMPLATES))}, or {FILE}PATH"
        )
    return TEMPLATES[name]
