"""Dialects: how a judge behind a chat endpoint is asked and how its answers are read, as data.

The wordings here are prefrm's own. They ask a published judge for an answer in the form that it was trained
to give, but are not the words that it was trained with: for those, name the file that holds them
(`template=`), in the format of `prefrm.scorers.chat.wording`.
"""

from dataclasses import dataclass, replace

from prefrm.errors import ConfigError
from prefrm.scorers.chat.parsing import (
    Parser,
    Unreadable,
    json_winner,
    label,
    pair_scores,
    sentence,
    spellings,
)
from prefrm.scorers.chat.wording import Wording, parse_wording

__all__ = ["DIALECTS", "Dialect", "get_dialect"]

REASONING_TOKENS = 4096
"""Of an answer with reasoning, as the published clients allow it."""
SENTENCE_TOKENS = 16
"""Of a sentence that names the better image."""
SCORES_TOKENS = 256
"""Of UnifiedReward's pair scores: about 120."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The question of a kind of judge and the form of its answers.

    Attributes:
        name: as `dialect=` takes it.
        title: of the judges that answer so, with their source.
        wording: prefrm's own question, with one candidate (each is rated) or two (a pair is compared).
        parser: of the text of an answer.
        labels: the tokens that tell outcomes apart: of a pair those for the image shown first, the second
            and, where there is a third, a tie; of one image "yes" and "no", or the levels of `values`.
        prefix: start of the answer that precedes the label; None if the label's place is found by the parser
            alone.
        opening: start of a sentence that names the better image, up to its label, and
        tie: first token of a sentence that says that neither is better: the two part at their first tokens.
            None if there is no such sentence, or a tie is a label.
        ties: whether the answer about a pair may be that neither is better.
        values: of one image, the number that each label stands for: the utility is their expectation. ()
            for the log-odds of the first label against the second.
        max_tokens: length of an answer.
        reasons: whether the answer has text before the verdict, which several samples explore.
        stop: strings that end an answer.
    """

    name: str
    title: str
    wording: Wording
    parser: Parser
    labels: tuple[str, ...]
    prefix: str | None = None
    opening: str | None = None
    tie: str | None = None
    ties: bool = False
    values: tuple[float, ...] = ()
    max_tokens: int = 1
    reasons: bool = False
    stop: tuple[str, ...] = ()

    @property
    def compares(self) -> bool:
        """Whether one question shows two candidates; otherwise each is rated alone."""
        return self.wording.candidates == 2

    @property
    def direct(self) -> bool:
        """Whether the answer is one label, its first token."""
        return self.max_tokens == 1

    def answering(self, prefix: str, answers: tuple[str, ...]) -> "Dialect":
        """The dialect with the start of the answer and the answers of a template; () for its own.

        Of a dialect whose answers are sentences, a template may give those, or the labels in them.

        Raises:
            ConfigError: it has no use for these answers.
        """
        if not self.direct:
            return self._sentences(prefix, answers)
        if not answers:
            return replace(self, prefix=prefix)
        counts = (len(self.labels),) if self.values or not self.compares else (2, 3)
        if len(answers) not in counts:
            wanted = " or ".join(map(str, counts))
            raise ConfigError(
                f"dialect {self.name} has {wanted} labels; the template has {', '.join(answers)}"
            )
        return replace(self, prefix=prefix, labels=answers, parser=label(*answers), ties=len(answers) > 2)

    def _sentences(self, prefix: str, answers: tuple[str, ...]) -> "Dialect":
        if not answers or answers == self.labels:
            return replace(self, prefix=prefix or self.prefix)
        starts = [self._start(prefix + answer, n) for n, answer in enumerate(answers[:2])]
        if len(answers) > 2 + self.ties or len(starts) < 2 or None in starts or starts[0] != starts[1]:
            raise ConfigError(
                f"the answers of dialect {self.name} are {', '.join(self.labels) or 'not labels'} or whole "
                f"sentences that it reads; the template has {', '.join(answers)}: leave them out"
            )
        ties = [spelling.split()[0] for answer in answers[2:] for spelling in spellings(answer)]
        return replace(self, prefix=starts[0], tie="|".join(ties) or self.tie)

    def _start(self, sentence: str, label: int) -> str | None:
        """What precedes the label in a sentence that names it; None if it does not."""
        try:
            verdict = self.parser(sentence)
        except Unreadable:
            return None
        return sentence[: verdict.at] if verdict.label == label else None


def _dialect(name: str, wording: str, **settings: object) -> Dialect:
    return Dialect(name=name, wording=parse_wording(wording, name=name), **settings)  # type: ignore[arg-type]


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        _dialect(
            "plain",
            "Prompt:\n{prompt}\nContext:{context}\nImage 1:{image}\nImage 2:{image}\nPrompt:\n{prompt}\n"
            "Criterion: {criterion}\n"
            "Which image matches the prompt better? Answer with one digit: 1 or 2.",
            title="any vision-language model",
            parser=label("1", "2"),
            labels=("1", "2"),
            prefix="",
        ),
        _dialect(
            "plain-text",
            "Question:\n{prompt}\nContext:{context}\nAnswer 1:\n{text}\nAnswer 2:\n{text}\n"
            "Question:\n{prompt}\nCriterion: {criterion}\n"
            "Which answer to the question is better? Answer with one digit: 1 or 2.",
            title="any language model, on texts; with context images, any vision-language model",
            parser=label("1", "2"),
            labels=("1", "2"),
            prefix="",
        ),
        _dialect(
            "unifiedreward-rank",
            "{image}{image}Compare two generated images. Judge how well each shows the caption, then its "
            "quality. Answer with one of these sentences and nothing else: Image 1 is better. Image 2 is "
            "better. Both images are equally good.\nCaption: {prompt}",
            title="UnifiedReward 1.0 and 2.0, ranking (arXiv 2503.05236)",
            parser=sentence("Image", ties="Both images are equally good"),
            labels=("1", "2"),
            prefix="Image ",
            opening="Image ",
            tie="Both",
            ties=True,
            max_tokens=SENTENCE_TOKENS,
        ),
        _dialect(
            "unifiedreward-pair-score",
            "{image}{image}Compare two generated images in three dimensions: Alignment with the caption, "
            "Coherence of what is shown, Style. In each, divide 1 between the images. Answer in this form:\n"
            "Alignment Score:\nImage 1: 0.5\nImage 2: 0.5\nCoherence Score:\nImage 1: 0.5\nImage 2: 0.5\n"
            "Style Score:\nImage 1: 0.5\nImage 2: 0.5\nCaption: {prompt}",
            title="UnifiedReward 2.0, scores of pairs (arXiv 2503.05236)",
            parser=pair_scores,
            labels=(),
            max_tokens=SCORES_TOKENS,
        ),
        _dialect(
            "unifiedreward-think",
            "{image}{image}Compare two generated images. Between <think> and </think>, rate both out of 10 "
            "in each dimension that matters, first the alignment with the caption, and add the ratings up. "
            "Then name the better one as <answer>Image 1 is better</answer> or "
            "<answer>Image 2 is better</answer>.\nCaption: {prompt}",
            title="UnifiedReward-Think (arXiv 2505.03318)",
            parser=sentence("Image", tag="answer"),
            labels=("1", "2"),
            max_tokens=REASONING_TOKENS,
            reasons=True,
            stop=("</answer>",),
        ),
        _dialect(
            "unifiedreward-flex",
            "{image}{image}Compare two generated images by their alignment with the prompt, their quality "
            "and their aesthetics, and by what else matters here. Answer with one JSON object, such as\n"
            '{"categories": [{"name": "Alignment", "cat_winner": "Image 1"}], "winner": "Image 1"}\n'
            "Prompt: {prompt}",
            title="UnifiedReward-Flex (github.com/CodeGoat24/UnifiedReward)",
            parser=json_winner,
            labels=("1", "2"),
            max_tokens=REASONING_TOKENS,
            reasons=True,
        ),
        _dialect(
            "unifiedreward-edit",
            "{context}{image}{image}The first image was edited twice. Compare the edits: how well each "
            "follows the instruction, then how well it keeps the rest. Answer with one of these sentences "
            "and nothing else: Edited image 1 is better. Edited image 2 is better. Both edited images are "
            "equally good.\n"
            "Instruction: {prompt}",
            title="UnifiedReward-Edit, ranking (github.com/CodeGoat24/UnifiedReward)",
            parser=sentence(
                "Edited image", ties=r"Both (?:edited )?images are equally good", tag="answer", optional=True
            ),
            labels=("1", "2"),
            prefix="Edited image ",
            opening="Edited image ",
            tie="Both",
            ties=True,
            max_tokens=SENTENCE_TOKENS,
        ),
        _dialect(
            "lightrft",
            "{system}\nCompare two generated images for a caption. Reason between <think> and </think>. Then "
            "answer <answer>Image 1 is better</answer>, <answer>Image 2 is better</answer> or "
            "<answer>Both are equally good</answer>.\nCaption: {prompt}\n"
            "{user}\n**Image 1:**{image}\n{user}\n**Image 2:**{image}",
            ties=True,
            title="LightRFT's generative reward models (github.com/opendilab/LightRFT)",
            parser=sentence("Image", ties="Both are equally good", tag="answer"),
            labels=("1", "2"),
            opening="Image ",
            tie="Both",
            max_tokens=REASONING_TOKENS,
            reasons=True,
            stop=("</answer>",),
        ),
        _dialect(
            "vqascore",
            "{image}Is this what the image shows? {prompt}\nAnswer Yes or No.",
            title="VQAScore (arXiv 2404.01291) and judges that answer yes or no",
            parser=label("Yes", "No"),
            labels=("Yes", "No"),
            prefix="",
        ),
        _dialect(
            "rating",
            "{image}Rate how well the image shows the prompt, from 0 (not at all) to 5 (in every detail). "
            "Answer with one digit.\nPrompt: {prompt}",
            title="expected score of a digit, as Edit-R1 reads it (github.com/PKU-YuanGroup/Edit-R1)",
            parser=label("0", "1", "2", "3", "4", "5"),
            labels=("0", "1", "2", "3", "4", "5"),
            prefix="",
            values=(0.0, 1.0, 2.0, 3.0, 4.0, 5.0),
        ),
    )
}
"""Every dialect by its name."""


def get_dialect(name: str) -> Dialect:
    """The dialect of that name. Raises `ConfigError` that lists the names there are."""
    if name not in DIALECTS:
        raise ConfigError(f"there is no dialect {name!r}; dialects: {', '.join(DIALECTS)}")
    return DIALECTS[name]
