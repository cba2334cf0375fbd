"""A group's tree, worked out by hand: what each segment holds, where it stands and what it sees.

One letter is one token. Of the images, `wide` has 2 x 3 tokens and takes 3 positions, `tall` has 4 x 1 and
takes 4, and `small` is one token.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from PIL import Image

from prefrm.errors import ConfigError, RecordError
from prefrm.judge import Name, Segment, Tree, path
from prefrm.prompts import Template
from tests.prefrm.judge.families import PLAIN_TEMPLATE, SHORT, build_processor, build_tokenizer

TOKENIZER = build_tokenizer(PLAIN_TEMPLATE)
JOINT, LATE, ALONE = (SHORT[attention] for attention in ("joint", "late", "alone"))
SIZES = {"wide": (48, 32), "tall": (16, 64), "small": (16, 16)}
ALL = pytest.mark.parametrize("template", [JOINT, LATE, ALONE], ids=lambda template: template.attention)


def grow(
    template: Template,
    *names: str,
    keys: Sequence[Hashable] = (),
    prompt: str = "cat",
    max_length: int = 512,
) -> Tree:
    """The tree of images of those names in `SIZES`, by their names or by `keys`."""
    processor = build_processor(template, tokenizer=TOKENIZER)
    processor.max_length = max_length
    images = [processor.prepare_image(Image.new("RGB", SIZES[name])) for name in names]
    return processor.tree(prompt, dict(zip(keys or names, images, strict=True)))


def facts(segment: Segment) -> tuple[str, int, int, tuple[Name, ...]]:
    """Its text with the number of an image's tokens in its place, from where to where, and what it sees."""
    text = TOKENIZER.decode(segment.ids_L)
    for image in segment.images:
        text = text.replace("<|image_pad|>" * image.tokens, f"[{image.tokens}]")
    assert segment.positions_AL.min() == segment.start and segment.positions_AL.max() == segment.end - 1
    return text, segment.start, segment.end, segment.sees


def all_facts(segments: dict[Name, Segment]) -> dict[Name, tuple[str, int, int, tuple[Name, ...]]]:
    return {name: facts(segment) for name, segment in segments.items()}


def test_the_second_image_of_joint_sees_the_first():
    tree = grow(JOINT, "wide", "tall")
    w, t = ("wide",), ("tall",)
    prefix, firsts = map(all_facts, tree.levels)
    assert prefix == {(): ("P:cat 1:", 0, 8, ())}
    assert firsts == {w: ("[6]", 8, 11, ((),)), t: ("[4]", 8, 12, ((),))}
    assert all_facts(tree.answers(permutations(["wide", "tall"], 2))) == {
        ("wide", "tall"): (" 2:[4] p:cat?->", 11, 11 + 3 + 4 + 9, ((), w)),
        ("tall", "wide"): (" 2:[6] p:cat?->", 12, 12 + 3 + 3 + 9, ((), t)),
    }
    assert tree.readouts(("tall", "wide")) == (("tall", "wide"),) * 2


def test_an_answer_of_late_sees_two_suffixes_and_stands_after_the_longer_candidate():
    tree = grow(LATE, "wide", "tall", "small")
    w, t, s = ("wide",), ("tall",), ("small",)
    prefix, candidates, suffixes = map(all_facts, tree.levels)
    assert prefix == {(): ("P:cat? I:", 0, 9, ())}
    assert candidates == {
        w: ("[6] p:cat", 9, 18, ((),)),
        t: ("[4] p:cat", 9, 19, ((),)),
        s: ("[1] p:cat", 9, 16, ((),)),
    }
    # What the chat template writes between suffix and answer ends each suffix, but for its last token.
    assert suffixes == {
        (*w, "slot", 0): (" one-", 18, 23, ((), w)),
        (*w, "slot", 1): (" two!-", 23, 29, ((), w)),
        (*t, "slot", 0): (" one-", 19, 24, ((), t)),
        (*t, "slot", 1): (" two!-", 24, 30, ((), t)),
        (*s, "slot", 0): (" one-", 16, 21, ((), s)),
        (*s, "slot", 1): (" two!-", 21, 27, ((), s)),
    }
    ends = {
        ("wide", "tall"): 30,
        ("tall", "wide"): 30,
        ("wide", "small"): 29,
        ("small", "wide"): 29,
        ("tall", "small"): 30,
        ("small", "tall"): 30,
    }
    assert all_facts(tree.answers(ends)) == {
        (a, b): (">", end, end + 1, ((), (a, "slot", 0), (b, "slot", 1))) for (a, b), end in ends.items()
    }
    assert tree.readouts(("tall", "wide")) == (("tall", "wide"),) * 2


def test_alone_reads_each_image_by_itself():
    tree = grow(ALONE, "wide", "tall", "small")
    (prefix,) = map(all_facts, tree.levels)
    assert prefix == {(): ("P:cat I:", 0, 8, ())}
    answers = tree.answers([("wide", "tall"), ("tall", "wide")])
    assert all_facts(answers) == {
        ("wide",): ("[6]?->", 8, 14, ((),)),
        ("tall",): ("[4]?->", 8, 15, ((),)),
    }
    assert tree.readouts(("tall", "wide")) == (("tall",), ("wide",))


READ = Template(id="r", turn="I:{candidate}a<V>b:{prompt}c<T>d")


def grow_readouts(*readouts: str, prompt: str = "cat", positions: str = "family") -> Tree:
    """The tree of two images of a judge that reads at those tokens, asked with `READ`."""
    tokenizer = build_tokenizer(PLAIN_TEMPLATE)
    tokenizer.add_tokens(["<V>", "<T>"], special_tokens=True)
    fields = {"readouts": readouts, "positions": positions}
    processor = build_processor(READ, tokenizer=tokenizer, **fields)
    images = {name: processor.prepare_image(Image.new("RGB", SIZES[name])) for name in ("wide", "tall")}
    return processor.tree(prompt, images)


def test_what_follows_a_readout_is_not_read():
    tree = grow_readouts("<T>")
    answers = tree.answers([("wide", "tall")])
    assert [len(answer) for answer in answers.values()] == [6 + len("ab:catc") + 2, 4 + len("ab:catc") + 2]
    assert len(tree.prefix) == len("I:") and tree.readouts(("wide", "tall")) == (("wide",), ("tall",))


def test_several_readouts_of_a_candidate_share_its_image():
    tree = grow_readouts("<V>", "<T>")
    _, images = tree.levels
    assert {name: (len(image), image.sees) for name, image in images.items()} == {
        ("wide",): (6, ((),)),
        ("tall",): (4, ((),)),
    }
    w, t = ("wide",), ("tall",)
    first, second = tree.readouts(("tall", "wide"))[:2], tree.readouts(("tall", "wide"))[2:]
    answers = tree.answers([("tall", "wide")])
    assert [(len(answers[name]), answers[name].start, answers[name].sees) for name in first] == [
        (2, 6, ((), t)),
        (9, 6, ((), t)),
    ]
    assert [(len(answers[name]), answers[name].start, answers[name].sees) for name in second] == [
        (2, 5, ((), w)),
        (9, 5, ((), w)),
    ]
    # The readout before the prompt does not depend on it.
    other = grow_readouts("<V>", "<T>", prompt="dog").answers([("tall", "wide")])
    same = [torch.equal(answers[name].ids_L, other[name].ids_L) for name in first]
    assert same == [True, False]


def test_a_readout_must_be_once_in_the_text_after_the_image():
    for readout in ("<X>", "I:"):
        with pytest.raises(ConfigError, match=f"must have the readout '{readout}' once"):
            grow_readouts(readout)


def test_sequential_positions_count_the_tokens_of_an_image():
    tree = grow_readouts("<T>", positions="sequential")
    answer = tree.answers([("wide", "tall")])["wide",]
    assert answer.positions_AL.tolist() == [list(range(2, 2 + 6 + 9))]


def test_a_context_image_stands_in_the_prefix():
    template = Template(id="c", turn="S:{context} E:{candidate} p:{prompt}?")
    processor = build_processor(template, tokenizer=TOKENIZER)
    wide, tall = (processor.prepare_image(Image.new("RGB", SIZES[name])) for name in ("wide", "tall"))
    tree = processor.tree("cat", {"wide": wide, "tall": tall}, [tall])
    assert facts(tree.prefix) == ("S:[4] E:", 0, 2 + 4 + 3, ())
    assert tree.prefix.images == (tall,)
    assert all_facts(tree.answers([("wide", "tall")]))["wide",] == ("[6] p:cat?->", 9, 9 + 3 + 9, ((),))
    with pytest.raises(RecordError, match="needs a context image; received none"):
        processor.tree("cat", {"wide": wide, "tall": tall})


PLACES = {
    "joint": Template(
        id="j", turn="S{context}\nP{prompt} 1{candidate} 2{candidate}\nC{criterion}\n?", answers=("1", "2")
    ),
    "late": Template(
        id="l",
        turn="S{context}\nP{prompt} I{candidate}p{prompt}",
        suffixes=("\nC{criterion}\none", "\nC{criterion}\ntwo"),
        answers=("1", "2"),
    ),
    "alone": Template(id="a", turn="S{context}\nP{prompt} I{candidate}\nC{criterion}\n?"),
}
"""Templates with lines for a context and a criterion."""


def grow_places(attention: str, context: int = 0, criterion: str = "", kind: str = "image") -> Tree:
    """The tree of a tall image and a small one, or of two texts, with that number of wide images before."""
    processor = build_processor(PLACES[attention], tokenizer=TOKENIZER, kind=kind)
    images = {name: processor.prepare_image(Image.new("RGB", size)) for name, size in SIZES.items()}
    candidates = {name: (images[name],) for name in ("tall", "small")}
    if kind == "text":
        candidates = {"tall": processor.prepare_text("yes."), "small": processor.prepare_text("no")}
    return processor.tree("cat", candidates, [images["wide"]] * context, criterion)


def texts(tree: Tree) -> dict[Name, str]:
    """The text of each segment."""
    segments = tree.shared | tree.answers([("tall", "small")])
    return {name: facts(segment)[0] for name, segment in segments.items()}


def test_a_context_and_a_criterion_stand_in_their_lines():
    assert texts(grow_places("joint", 2, "hue")) == {
        (): "S[6][6]\nPcat 1",
        ("tall",): "[4]",
        ("small",): "[1]",
        ("tall", "small"): " 2[1]\nChue\n?->",
    }
    assert texts(grow_places("late", 1, "hue")) == {
        (): "S[6]\nPcat I",
        ("tall",): "[4]pcat",
        ("small",): "[1]pcat",
        ("tall", "slot", 0): "\nChue\none-",
        ("small", "slot", 0): "\nChue\none-",
        ("tall", "slot", 1): "\nChue\ntwo-",
        ("small", "slot", 1): "\nChue\ntwo-",
        ("tall", "small"): ">",
    }
    assert texts(grow_places("alone", 1, "hue")) == {
        (): "S[6]\nPcat I",
        ("tall",): "[4]",
        ("small",): "[1]",
        ("tall", "readout", 0): "\nChue\n?->",
        ("small", "readout", 0): "\nChue\n?->",
    }


@pytest.mark.parametrize("attention", PLACES)
def test_without_context_and_criterion_the_layout_is_that_of_a_template_without_their_lines(attention: str):
    whole = PLACES[attention]
    plain = replace(
        whole,
        turn=whole.turn.replace("S{context}\n", "").replace("\nC{criterion}", ""),
        suffixes=whole.suffixes and ("\none", "\ntwo"),
    )
    found, expected = texts(grow_places(attention)), texts(grow(plain, "tall", "small"))
    if attention == "alone":
        # There the candidate and the question are one segment.
        expected = {(): expected[()], **{name: text[:3] for name, text in expected.items() if name}} | {
            (*name, "readout", 0): text[3:] for name, text in expected.items() if name
        }
    assert found == expected


@pytest.mark.parametrize("attention", PLACES)
def test_segments_before_the_criterion_level_are_the_same_for_all_criteria(attention: str):
    trees = [grow_places(attention, 1, criterion) for criterion in ("hue", "composition", "")]
    assert {tree.criterion_level for tree in trees} == {2}
    levels = [[*tree.levels, tree.answers([("tall", "small")])] for tree in trees]
    for depth in range(3):
        same = {
            str({name: (s.ids_L, s.positions_AL) for name, s in level[depth].items()}) for level in levels
        }
        assert len(same) == (1 if depth < 2 else 3)


def test_a_template_may_state_the_criterion_before_the_candidates():
    template = Template(id="e", turn="{criterion}P{prompt} I{candidate}?")
    processor = build_processor(template, tokenizer=TOKENIZER)
    image = processor.prepare_image(Image.new("RGB", SIZES["small"]))
    tree = processor.tree("cat", {"small": image}, criterion="hue")
    assert tree.criterion_level == 0
    assert facts(tree.prefix)[0] == "huePcat I"
    with pytest.raises(RecordError, match="template 'e' of this judge needs a criterion; received none"):
        processor.tree("cat", {"small": image})


def test_a_template_without_a_place_refuses_a_context_and_a_criterion():
    processor = build_processor(LATE, tokenizer=TOKENIZER)
    image = processor.prepare_image(Image.new("RGB", SIZES["small"]))
    with pytest.raises(
        RecordError, match="reads no context image; received 2; its template 'l' has no place"
    ):
        processor.tree("cat", {}, [image, image])
    with pytest.raises(RecordError, match="reads no criterion; received 1; its template 'l' has no place"):
        processor.tree("cat", {}, criterion="hue")


@pytest.mark.parametrize("attention", PLACES)
def test_a_text_stands_in_a_candidates_place_without_delimiters(attention: str):
    tree = grow_places(attention, 1, "hue", "text")
    found = texts(tree)
    assert found["tall",] == ("yes.pcat" if attention == "late" else "yes.")
    assert tree.prefix.images and not any(tree.shared[key,].images for key in ("tall", "small"))


def test_a_text_that_is_too_long_costs_its_own_pairs():
    processor = build_processor(PLACES["late"], tokenizer=TOKENIZER, kind="text")
    candidates = {"a": processor.prepare_text("yes"), "b": processor.prepare_text("x" * 500)}
    tree = processor.tree("cat", candidates | {"c": processor.prepare_text("no")})
    assert tree.readable(permutations("abc", 2)) == [("a", "c"), ("c", "a")]
    assert "the texts 500 tokens; shorten the prompt or the texts" in tree.refused["a", "b"]
    images = [processor.prepare_image(Image.new("RGB", SIZES["wide"]))] * 2
    tree = processor.tree("cat", candidates, images, "hue")
    tree.readable([("a", "b")])
    assert tree.refused["a", "b"].endswith(
        "the prompt has 3 tokens, the criterion 3, the context images 12 and the texts 500 tokens; "
        "shorten the prompt, the criterion, the texts or send fewer context images"
    )


def test_an_image_spans_a_grid_of_positions():
    """Time, height and width of multimodal rotary positions, from where the segment starts."""
    tree = grow(ALONE, "wide", "tall")
    positions_AL = tree.answers([("wide", "tall")])["wide",].positions_AL
    assert (positions_AL - 8).tolist() == [
        [0, 0, 0, 0, 0, 0, 3, 4, 5],
        [0, 0, 0, 1, 1, 1, 3, 4, 5],
        [0, 1, 2, 0, 1, 2, 3, 4, 5],
    ]


def test_one_causal_sequence_has_the_positions_of_one_message():
    tree = grow(JOINT, "wide", "tall")
    (answer,) = tree.answers([("wide", "tall")]).values()
    segments = path(tree, answer)
    assert [facts(segment)[0] for segment in segments] == ["P:cat 1:", "[6]", " 2:[4] p:cat?->"]
    (wide,), (tall,) = (segment.images for segment in segments[1:])
    whole_AL = build_processor(JOINT).positions([8, wide, 3, tall, 9])
    assert torch.equal(torch.cat([segment.positions_AL for segment in segments], dim=1), whole_AL)


@ALL
def test_candidates_have_any_keys_and_no_two_segments_a_name(template: Template):
    keys = ["slot", 0, 1, (), ("slot",), ("slot", "slot", 0), frozenset({"wide"}), None]
    tree = grow(template, *["wide", "tall"] * 4, keys=keys)
    pairs = list(permutations(keys, 2))
    assert tree.readable(pairs) == pairs and not tree.refused
    answers = tree.answers(pairs)
    assert {name for pair in pairs for name in tree.readouts(pair)} == set(answers)
    assert len(answers) == (8 if template is ALONE else 8 * 7)
    levels = [*tree.levels, answers]
    assert len({name for level in levels for name in level}) == sum(map(len, levels))
    # A segment sees the prefix, and what else it sees stands in one of the levels before its own.
    for depth, level in enumerate(levels[1:], start=1):
        earlier = {name for each in levels[:depth] for name in each}
        assert all(segment.sees[0] == () and earlier.issuperset(segment.sees) for segment in level.values())


@pytest.mark.parametrize(
    ("template", "length", "refused"),
    [
        # Of a pair: 8 of the prefix, 6, 4 or 1 of the first image, and 12 more than that of the second.
        (JOINT, 8 + 12 + 6 + 4, {("wide", "wide"): (32, "6 and 6")}),
        (JOINT, 8 + 12 + 6, dict.fromkeys([("wide", "tall"), ("tall", "wide")], (30, "{} and {}"))),
        # Of a candidate: 9 of the prefix, 6 of the prompt, 11 of the suffixes, the answer, and the image.
        (LATE, 27 + 4, dict.fromkeys([("wide", "tall"), ("small", "wide")], (33, "6"))),
        # Of a candidate: 8 of the prefix, 3 of the question, and the image.
        (ALONE, 11 + 4, dict.fromkeys([("wide", "tall"), ("small", "wide")], (17, "6"))),
    ],
    ids=["joint twice", "joint", "late", "alone"],
)
def test_what_is_too_long_costs_its_own_pairs(template: Template, length: int, refused: dict):
    tree = grow(template, "wide", "tall", "small", max_length=length)
    fitting = [("tall", "small"), ("small", "tall"), ("small", "small")]
    tokens = {"wide": 6, "tall": 4}
    assert tree.readable([*refused, *fitting]) == fitting
    assert tree.refused == {
        pair: f"the comparison has {count} tokens and the model reads {length}: the prompt has 3 tokens and "
        f"the images {sizes.format(*(tokens.get(name) for name in pair))} tokens; "
        "shorten the prompt or lower max_pixels"
        for pair, (count, sizes) in refused.items()
    }


@ALL
def test_a_prompt_that_is_too_long_is_refused(template: Template):
    rest = 6 if template is LATE else 5
    grow(template, "small", prompt="x" * (40 - rest), max_length=40)
    with pytest.raises(
        RecordError, match=r"has 41 tokens and the model reads 40: .* has 3\d tokens; shorten"
    ):
        grow(template, "small", prompt="x" * (41 - rest), max_length=40)
