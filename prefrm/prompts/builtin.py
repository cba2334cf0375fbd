"""The built-in templates, by id. Each is spelled out: a judge depends on every letter of its template."""

from prefrm.errors import ConfigError
from prefrm.prompts.files import FILE, INLINE, parse_template, read_template
from prefrm.prompts.template import Template

__all__ = ["NOUNS", "TEMPLATES", "default_template", "get_template", "is_builtin"]

NOUNS = {"image": "image", "video": "video", "text": "answer"}
"""What a judge calls its candidates, by their kind."""

# Nothing here may follow a change elsewhere.
TEMPLATES: dict[str, Template] = {
    template.id: template
    for template in (
        Template(
            id="match-v1",
            turn=(
                "Prompt:\n{prompt}\nImage 1:{candidate}\nImage 2:{candidate}"
                "\nWhich image matches the prompt better, 1 or 2?"
            ),
            answers=("1", "2"),
        ),
        Template(
            id="match-twice-v1",
            turn=(
                "Prompt:\n{prompt}\nImage 1:{candidate}\nImage 2:{candidate}\nPrompt:\n{prompt}"
                "\nWhich image matches better, 1 or 2?"
            ),
            answers=("1", "2"),
        ),
        Template(
            id="match-or-tie-v1",
            turn=(
                "Prompt:\n{prompt}\nImage 1:{candidate}\nImage 2:{candidate}"
                "\nWhich image matches the prompt better, 1 or 2? Answer 0 if neither does."
            ),
            answers=("1", "2", "0"),
        ),
        Template(
            id="match-or-tie-twice-v1",
            turn=(
                "Prompt:\n{prompt}\nImage 1:{candidate}\nImage 2:{candidate}\nPrompt:\n{prompt}"
                "\nWhich image matches better, 1 or 2, or 0?"
            ),
            answers=("1", "2", "0"),
        ),
        Template(
            id="match-late-v1",
            turn=(
                "Prompt:\n{prompt}\nWhich image matches better, 1 or 2?\nImage:{candidate}\nPrompt:\n{prompt}"
            ),
            suffixes=("\nHow well does image 1 match?", "\nHow well does image 2 match?"),
            answers=("1", "2"),
        ),
        Template(
            id="match-or-tie-late-v1",
            turn=(
                "Prompt:\n{prompt}\nWhich image matches better, 1 or 2, or 0?\nImage:{candidate}"
                "\nPrompt:\n{prompt}"
            ),
            suffixes=("\nHow well does image 1 match?", "\nHow well does image 2 match?"),
            answers=("1", "2", "0"),
        ),
        Template(
            id="rate-v1",
            turn="Prompt:\n{prompt}\nImage 1:{candidate}\nHow well does image 1 match the prompt?",
        ),
        Template(
            id="rate-twice-v1",
            turn=("Prompt:\n{prompt}\nImage 1:{candidate}\nPrompt:\n{prompt}\nHow well does image 1 match?"),
        ),
        # With the readout `<|Reward|>`, as in HPSv3's layout.
        Template(
            id="rate-token-v1",
            turn=(
                "{candidate}\nHow good is this image, by itself and as an answer to the prompt?"
                "\nPrompt:\n{prompt}\nRating: <|Reward|>"
            ),
        ),
        Template(
            id="shows-v1",
            turn=(
                "{candidate}Does this image show everything that the following text asks for?\n{prompt}"
                "\nAnswer Yes or No."
            ),
            answers=("Yes|yes", "No|no"),
        ),
        # For candidates of every kind, with a context and a criterion. The criterion follows the candidates,
        # so that these are read once for all criteria.
        Template(
            id="fit-late-v1",
            turn=(
                "Prompt:\n{prompt}\nContext:{context}\nWhich {noun} fits better, 1 or 2?\nThe {noun}:"
                "{candidate}\nPrompt:\n{prompt}"
            ),
            suffixes=(
                "\nCriterion: {criterion}\nHow well does {noun} 1 fit?",
                "\nCriterion: {criterion}\nHow well does {noun} 2 fit?",
            ),
            answers=("1", "2"),
        ),
        Template(
            id="fit-or-tie-late-v1",
            turn=(
                "Prompt:\n{prompt}\nContext:{context}\nWhich {noun} fits better, 1 or 2, or 0?\nThe {noun}:"
                "{candidate}\nPrompt:\n{prompt}"
            ),
            suffixes=(
                "\nCriterion: {criterion}\nHow well does {noun} 1 fit?",
                "\nCriterion: {criterion}\nHow well does {noun} 2 fit?",
            ),
            answers=("1", "2", "0"),
        ),
        Template(
            id="fit-v1",
            turn=(
                "Prompt:\n{prompt}\nContext:{context}\nThe {noun} 1:{candidate}\nThe {noun} 2:{candidate}"
                "\nPrompt:\n{prompt}\nCriterion: {criterion}\nWhich {noun} fits better, 1 or 2?"
            ),
            answers=("1", "2"),
        ),
        Template(
            id="fit-or-tie-v1",
            turn=(
                "Prompt:\n{prompt}\nContext:{context}\nThe {noun} 1:{candidate}\nThe {noun} 2:{candidate}"
                "\nPrompt:\n{prompt}\nCriterion: {criterion}\nWhich {noun} fits better, 1 or 2, or 0?"
            ),
            answers=("1", "2", "0"),
        ),
        Template(
            id="fit-alone-v1",
            turn=(
                "Prompt:\n{prompt}\nContext:{context}\nThe {noun} 1:{candidate}\nPrompt:\n{prompt}"
                "\nCriterion: {criterion}\nHow well does {noun} 1 fit?"
            ),
        ),
    )
}


def default_template(*, attention: str, ties: bool = False, kind: str = "image") -> str:
    """The id of the first template for that attention, with or without an answer for a tie.

    Of images, one that compares them by their prompt alone; of other kinds, one with a context and a
    criterion.
    """
    return next(
        t.id
        for t in TEMPLATES.values()
        if t.attention == attention and t.ties == ties and (kind == "image" or t.has_criterion)
    )


def is_builtin(name: str) -> bool:
    """Whether a template's name is an id, and not a file or the text itself, or what a bundle calls these."""
    return not name.startswith((FILE, INLINE)) and "{" not in name


def get_template(name: str, kind: str = "image") -> Template:
    """A judge's template, with the noun for its candidates.

    Args:
        name: a built-in template's id, `file:` and the path of a file with one, or the text of such a file
            itself.
        kind: of the candidates, one of `NOUNS`.

    Raises:
        ConfigError: there is no such template, and the ids are listed; or as `read_template`.
    """
    if name.startswith(FILE):
        template = read_template(name.removeprefix(FILE))
    elif not is_builtin(name):
        template = parse_template(name)
    elif name in TEMPLATES:
        template = TEMPLATES[name]
    else:
        raise ConfigError(
            f"there is no template {name!r}; templates: {', '.join(sorted(TEMPLATES))}, {FILE}PATH, or the "
            "text of such a file"
        )
    return template.named(NOUNS[kind])
