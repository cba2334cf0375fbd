"""Chosen/rejected pairs: which are written, and that each table's trainer takes it as it is."""

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prefrm import media
from prefrm.errors import ConfigError, DatasetError
from prefrm.label import DIFFUSION_DPO, TRL_DPO, PairSummary, label, write_pairs
from prefrm.records import PreferenceGroup, read_groups
from prefrm.rewards import Combination, Criteria
from prefrm.winmatrix import FakeScorer, WinMatrix

LEVELS = (40, 200, 120)


def picture(level):
    return media.encode_png(Image.new("RGB", (2, 2), (level, level, level)))


def brightness(prompt, image):
    return media.decode(image).getpixel((0, 0))[0] / 80


def make_group(id="g", levels=LEVELS, texts=True):
    return PreferenceGroup(
        id=id,
        prompt=f"a bright square, {id}",
        candidates=tuple(picture(level) for level in levels),
        comparisons=(),
        completions=tuple(f" fill {level}" for level in levels) if texts else None,
    )


def labelled(out, groups, scorer=None):
    label(scorer or FakeScorer(brightness), groups, out, judge="j")
    return groups


def rows(out, table=DIFFUSION_DPO):
    return pq.read_table(table.path(out)).to_pylist()


class Fixed:
    """A scorer that always answers with the same matrix."""

    def __init__(self, logits, errors=None, utilities=None):
        self.matrix = WinMatrix.from_order_logits(np.array(logits, float), errors=errors)
        if utilities is not None:
            self.matrix = self.matrix.with_inferred(np.subtract.outer(utilities, utilities))

    def score(self, groups):
        return [self.matrix for _ in groups]


def test_best_against_worst(tmp_path):
    groups = labelled(tmp_path, [make_group("a"), make_group("b", (90, 10, 250))])
    assert write_pairs(groups, tmp_path) == PairSummary(groups=2, pairs=2, text_pairs=2)
    first, second = rows(tmp_path)
    assert (first["id"], first["chosen_index"], first["rejected_index"]) == ("a", 1, 0)
    assert (second["chosen_index"], second["rejected_index"]) == (2, 1)
    assert (first["jpg_0"], first["jpg_1"]) == (picture(40), picture(200))
    assert (first["label_0"], first["label_1"]) == (0.0, 1.0)
    assert (first["caption"], second["caption"]) == ("a bright square, a", "a bright square, b")
    # The utilities differ by 2: P - (1 - P) = tanh(2 / 2).
    assert first["margin"] == pytest.approx(np.tanh(1.0), rel=1e-6)
    assert first["chosen_win_rate"] > 0.5 > first["rejected_win_rate"]


def test_all_pairs_above_a_margin(tmp_path):
    groups = labelled(tmp_path, [make_group()])
    # Utilities 0.5, 2.5 and 1.5: margins tanh(1), tanh(1/2) and tanh(1/2).
    assert write_pairs(groups, tmp_path, select="all") == PairSummary(groups=1, pairs=3, text_pairs=3)
    assert [(r["chosen_index"], r["rejected_index"]) for r in rows(tmp_path)] == [(1, 0), (1, 2), (2, 0)]
    summary = write_pairs(groups, tmp_path, select="all", min_margin=0.6)
    assert summary == PairSummary(groups=1, pairs=1, text_pairs=1, below_margin=2)


def test_failed_pairs_are_left_out_and_counted(tmp_path):
    broken = replace(make_group("a"), candidates=(picture(40), b"GIF89a", picture(120)))
    groups = labelled(tmp_path, [broken, make_group("b")])
    assert write_pairs(groups, tmp_path, select="all") == PairSummary(
        groups=2, pairs=4, text_pairs=4, unjudged=2
    )
    assert write_pairs(groups, tmp_path) == PairSummary(groups=2, pairs=2, text_pairs=2)
    assert rows(tmp_path)[0]["chosen_index"] == 2


def test_a_group_without_two_judged_candidates_has_no_pair(tmp_path):
    groups = labelled(tmp_path, [replace(make_group(), candidates=(picture(40), None, b"x"))])
    assert write_pairs(groups, tmp_path) == PairSummary(groups=1, unjudged=1)
    assert rows(tmp_path) == []


def test_the_best_against_the_worst_may_be_no_judged_pair(tmp_path):
    logits = [[0, np.nan, 3.0], [0, 0, -3.0], [-3.0, 3.0, 0]]
    groups = labelled(tmp_path, [make_group()], Fixed(logits))
    assert write_pairs(groups, tmp_path) == PairSummary(groups=1, unjudged=1)


def test_an_inferred_pair_may_be_the_best_against_the_worst_but_is_none_of_all_the_judged(tmp_path):
    chain = [[0, 1.0, np.nan], [-1.0, 0, 2.0], [np.nan, -2.0, 0]]
    groups = labelled(tmp_path, [make_group()], Fixed(chain, utilities=[3.0, 2.0, 0.0]))
    assert write_pairs(groups, tmp_path) == PairSummary(groups=1, pairs=1, text_pairs=1)
    (row,) = rows(tmp_path)
    assert (row["chosen_index"], row["rejected_index"]) == (0, 2)
    assert row["margin"] == pytest.approx(np.tanh(1.5), rel=1e-6)
    assert write_pairs(groups, tmp_path, select="all") == PairSummary(
        groups=1, pairs=2, text_pairs=2, unjudged=1
    )


def test_an_undecided_group_has_no_pair(tmp_path):
    groups = labelled(tmp_path, [make_group(levels=(80, 80, 80))])
    assert write_pairs(groups, tmp_path, select="all") == PairSummary(groups=1, below_margin=3)
    assert write_pairs(groups, tmp_path) == PairSummary(groups=1, below_margin=1)


def test_the_highest_win_rate_may_lose_against_the_lowest(tmp_path):
    # 0 narrowly loses to 3 and beats the others; 3 beats only 0.
    logits = np.zeros((4, 4))
    for i, j, z in ((0, 1, 5), (0, 2, 5), (3, 0, 0.1), (1, 3, 5), (2, 3, 5)):
        logits[i, j], logits[j, i] = z, -z
    groups = labelled(tmp_path, [make_group(levels=(1, 2, 3, 4))], Fixed(logits))
    assert write_pairs(groups, tmp_path) == PairSummary(groups=1, below_margin=1)


def test_without_texts_there_is_no_table_for_text_policies(tmp_path):
    groups = labelled(tmp_path, [make_group(texts=False)])
    assert write_pairs(groups, tmp_path) == PairSummary(groups=1, pairs=1)
    assert [path.parent.name for path in tmp_path.glob("*/train.*")] == ["diffusion_dpo"]


def test_a_pair_that_lacks_a_text_is_in_the_table_of_images_alone(tmp_path):
    half = replace(make_group("b"), completions=(None, "x", "y"))
    groups = labelled(tmp_path, [make_group("a", texts=False), half, make_group("c")])
    assert write_pairs(groups, tmp_path) == PairSummary(groups=3, pairs=3, text_pairs=1)
    assert [row["id"] for row in rows(tmp_path)] == ["a", "b", "c"]
    assert [row["id"] for row in rows(tmp_path, TRL_DPO)] == ["c"]


def test_a_text_is_apart_from_the_prompt_that_it_follows(tmp_path):
    prompts = ("a single", "a single ", "a single\n", "a single", "a single")
    texts = ("star", "star", "star", "\nstar", "")
    groups = [
        replace(make_group(str(n)), prompt=prompt, completions=(text,) * 3)
        for n, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    ]
    write_pairs(labelled(tmp_path, groups), tmp_path)
    glued = [row["prompt"] + row["chosen"] for row in rows(tmp_path, TRL_DPO)]
    assert glued == ["a single star", "a single star", "a single\nstar", "a single\nstar", "a single "]
    write_pairs(groups, tmp_path, conversational=True)
    assert rows(tmp_path, TRL_DPO)[0]["prompt"] == [{"role": "user", "content": "a single"}]
    assert rows(tmp_path, TRL_DPO)[0]["chosen"] == [{"role": "assistant", "content": "star"}]


def test_an_image_that_its_exif_turns_is_upright_in_the_table_of_images(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    group = make_group()
    with Image.open(io.BytesIO(group.candidates[0])) as image:
        wide = image.resize((4, 2))
    buffer = io.BytesIO()
    wide.save(buffer, format="PNG", exif=exif)
    turned = replace(group, candidates=(buffer.getvalue(), *group.candidates[1:]))
    labelled(tmp_path, [turned])
    write_pairs([turned], tmp_path, select="all")
    kept = {row[f"jpg_{place}"] for row in rows(tmp_path) for place in "01"}
    assert buffer.getvalue() not in kept
    assert {Image.open(io.BytesIO(data)).size for data in kept} == {(2, 2), (2, 4)}


def test_each_table_names_its_consumer(tmp_path):
    write_pairs(labelled(tmp_path, [make_group()]), tmp_path)
    for table, consumer in ((TRL_DPO, "TRL's DPOTrainer"), (DIFFUSION_DPO, "Diffusion-DPO's train.py")):
        assert json.loads(pq.read_schema(table.path(tmp_path)).metadata[b"prefrm"]) == {"consumer": consumer}


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([make_group("a"), make_group("c")], "other data than the 2 groups from 'a' on"),
        ([make_group("a"), make_group("b", (1, 2, 3))], "other data than the 2 groups from 'a' on"),
        ([], "other data than a dataset that ends before it"),
        ([make_group("a"), make_group("b"), make_group("c")], "no labels of the group 'c'"),
    ],
)
def test_pairs_of_other_groups_are_refused(tmp_path, others, message):
    labelled(tmp_path, [make_group("a"), make_group("b")])
    with pytest.raises(DatasetError, match=message):
        write_pairs(others, tmp_path)
    assert not list(tmp_path.glob("*/train.*"))


def test_pairs_of_a_folder_without_labels_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no win matrices; label a dataset"):
        write_pairs([make_group()], tmp_path / "absent")


def test_a_margin_out_of_range_is_refused(tmp_path):
    groups = labelled(tmp_path, [make_group()])
    with pytest.raises(ConfigError, match="min_margin"):
        write_pairs(groups, tmp_path, min_margin=1.0)


# As data_recipes.shapes.painter has it: one token for each word, and "a singlestar" is none.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
)


def loaded(out, table):
    from datasets import load_dataset

    return load_dataset(str(out / table.name), split="train", cache_dir=str(out / "datasets-cache"))


# TRL itself still uses the old names of transformers' activation checkpointing.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
@pytest.mark.slow
@pytest.mark.parametrize("conversational", [False, True])
def test_a_text_policy_trains_on_the_table_of_texts(tmp_path, conversational):
    """The policy of the shapes world, `datasets.load_dataset`, and one step of TRL's own `DPOTrainer`."""
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    from data_recipes.shapes.painter.model import build_tokenizer, save, untrained
    from data_recipes.shapes.recipe import RECIPE

    RECIPE.build(tmp_path / "data", seed=0, train=6, validation=1, test=1)
    groups = list(read_groups(tmp_path / "data", "train"))
    labelled(tmp_path, groups, FakeScorer(lambda prompt, image: float(len(image))))
    written = write_pairs(groups, tmp_path, conversational=conversational).text_pairs
    assert written >= 4
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    save(untrained(tokenizer, width=16, layers=1), tokenizer, tmp_path / "policy")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(
            output_dir=str(tmp_path / "dpo"),
            max_steps=1,
            per_device_train_batch_size=written,
            learning_rate=1e-2,
            warmup_steps=0,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=loaded(tmp_path, TRL_DPO),
        processing_class=tokenizer,
    )
    by_id = {group.id: group for group in groups}
    for row, example in zip(rows(tmp_path, TRL_DPO), trainer.train_dataset, strict=True):
        group, eos = by_id[row["id"]], f" {tokenizer.eos_token}"
        prompt = tokenizer.decode(example["prompt_ids"]).removeprefix(f"{tokenizer.bos_token} ")
        assert prompt == group.prompt
        for side in ("chosen", "rejected"):
            assert tokenizer.decode(example[f"{side}_ids"]) == group.completions[row[f"{side}_index"]] + eos
    result = trainer.train()
    # Policy and reference are equal at first: -log sigmoid(0).
    assert result.training_loss == pytest.approx(np.log(2), rel=1e-4)
    assert any(not a.equal(b.detach()) for a, b in zip(before, model.parameters(), strict=True))


def read_as_diffusion_dpo(data, side=8):
    """Batches as the preprocessing and the collation of Diffusion-DPO's train.py make them, in its own words.

    `jpg_0` and `jpg_1` are decoded from their bytes, transformed and concatenated along the channels, the
    preferred one first; captions are tokenized. Rows without a decision are left out.
    """
    import torch

    def transformed(image):
        pixels = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def preprocess_train(examples):
        columns = [
            [transformed(Image.open(io.BytesIO(jpg)).convert("RGB")) for jpg in examples[name]]
            for name in ("jpg_0", "jpg_1")
        ]
        pairs = zip(*columns, examples["label_0"], strict=True)
        examples["pixel_values"] = [
            torch.cat((first, second) if label_0 else (second, first)) for first, second, label_0 in pairs
        ]
        examples["input_ids"] = [torch.tensor(list(text.encode()[:16])) for text in examples["caption"]]
        return examples

    def collate_fn(examples):
        pixels = torch.stack([example["pixel_values"] for example in examples])
        return {"pixel_values": pixels, "input_ids": torch.stack([one["input_ids"] for one in examples])}

    decided = [n for n, label_0 in enumerate(data["label_0"]) if label_0 in (0, 1)]
    train = data.select(decided).with_transform(preprocess_train)
    return torch.utils.data.DataLoader(train, batch_size=4, collate_fn=collate_fn, drop_last=True)


def test_a_diffusion_policy_trains_on_the_table_of_images(tmp_path):
    """One step of Diffusion-DPO's loss on a denoiser of one layer, over the columns that its script reads."""
    import torch
    from torch.nn.functional import logsigmoid

    groups = labelled(tmp_path, [make_group(f"g{n}", texts=False) for n in range(4)])
    write_pairs(groups, tmp_path)
    (batch,) = read_as_diffusion_dpo(loaded(tmp_path, DIFFUSION_DPO))
    # Preferred, then the other, in one tensor: the brighter square first.
    images = torch.cat(batch["pixel_values"].chunk(2, dim=1))
    assert images[:4].eq(200 / 127.5 - 1).all() and images[4:].eq(40 / 127.5 - 1).all()
    assert batch["input_ids"].shape == (4, 16)

    torch.manual_seed(0)
    policy, reference = torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Conv2d(3, 3, 3, padding=1)
    reference.load_state_dict(policy.state_dict())
    noise = torch.randn(4, 3, 8, 8).repeat(2, 1, 1, 1)
    losses = [(model(images + noise) - noise).square().mean(dim=(1, 2, 3)) for model in (policy, reference)]
    advantages = [better - worse for better, worse in (loss.chunk(2) for loss in losses)]
    loss = -logsigmoid(-2.5 * (advantages[0] - advantages[1])).mean()
    assert loss.item() == pytest.approx(np.log(2), rel=1e-5)
    loss.backward()
    torch.optim.SGD(policy.parameters(), lr=0.1).step()
    assert not policy.weight.equal(reference.weight)


def test_rows_are_written_in_large_groups(tmp_path):
    groups = labelled(tmp_path, [make_group(str(n)) for n in range(90)])
    assert write_pairs(groups, tmp_path, select="all").pairs == 270
    with pq.ParquetFile(DIFFUSION_DPO.path(tmp_path)) as file:
        assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [256, 14]


def test_a_typo_in_select_is_a_mistake(tmp_path):
    groups = labelled(tmp_path, [make_group()])
    with pytest.raises(ConfigError, match="one of best_worst, all; received 'best-worst'"):
        write_pairs(groups, tmp_path, select="best-worst")


class ByCriterion:
    """Prefers longer answers by "detail" and shorter ones by "brevity"."""

    def score(self, groups):
        signs = [{"detail": 1, "brevity": -1}[group.criterion] for group in groups]
        return [
            FakeScorer(lambda prompt, text, sign=sign: sign * len(text) / 4).score([group])[0]
            for group, sign in zip(groups, signs, strict=True)
        ]


CRITERIA = Criteria(names=("detail", "brevity"), combination=Combination(weights={"detail": 3.0}))


def answers(id="g", texts=("two", "two birds", "four of them"), context=None):
    context = (picture(40),) if context is None else context
    return PreferenceGroup(
        id=id, prompt="how many?", candidates=tuple(texts), comparisons=(), context=context
    )


def test_answers_about_an_image_are_messages_with_their_images(tmp_path):
    groups = [answers(), answers("h", context=())]
    label(ByCriterion(), groups, tmp_path, judge="j", criteria=CRITERIA)
    assert write_pairs(groups, tmp_path) == PairSummary(groups=2, pairs=2, text_pairs=2)
    assert not DIFFUSION_DPO.path(tmp_path).exists()
    first, second = rows(tmp_path, TRL_DPO)
    assert first["prompt"] == [{"role": "user", "content": "how many?"}]
    assert first["chosen"] == [{"role": "assistant", "content": "four of them"}]
    assert first["rejected"] == [{"role": "assistant", "content": "two"}]
    assert [image["bytes"] for image in first["images"]] == [picture(40)] and second["images"] == []
    # Lengths differ by 9 / 4 nats: (3 - 1) / 4 of them in the mean.
    assert first["margin"] == pytest.approx(np.tanh(9 / 4 / 2 / 2), abs=1e-6)
    assert first["margin detail"] == pytest.approx(np.tanh(9 / 4 / 2), abs=1e-6)
    assert first["margin brevity"] == pytest.approx(-np.tanh(9 / 4 / 2), abs=1e-6)


def test_pairs_by_different_criteria_are_told_apart(tmp_path, caplog):
    groups = [replace(make_group(f"g{name}"), criterion=name) for name in ("light", "")]
    write_pairs(labelled(tmp_path, groups), tmp_path)
    for table in (DIFFUSION_DPO, TRL_DPO):
        assert [row["criterion"] for row in rows(tmp_path, table)] == ["light", ""]
    assert "mix pairs by 2 criteria (light, overall)" in caplog.text


def test_the_source_of_an_edit_that_has_no_place_is_warned_of(tmp_path, caplog):
    groups = [replace(make_group("edit"), context=(picture(40),)), make_group()]
    write_pairs(labelled(tmp_path, groups), tmp_path)
    assert "no place for context images, and 1 groups have some" in caplog.text


def test_videos_have_no_table(tmp_path):
    clips = replace(make_group(texts=False), candidates=(b"\0\0\0\x18ftypisom1", b"\0\0\0\x18ftypisom"))
    groups = labelled(tmp_path, [clips], FakeScorer(lambda prompt, data: float(len(data))))
    assert write_pairs(groups, tmp_path) == PairSummary(groups=1, pairs=1)
    assert not list(tmp_path.glob("*/train.parquet"))


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_a_vision_language_model_trains_on_answers_about_images(tmp_path):
    """`datasets.load_dataset`, and one step of TRL's own `DPOTrainer` and its collator of images."""
    from transformers import AutoModelForImageTextToText
    from trl import DPOConfig, DPOTrainer

    from tests.prefrm.grpo import tiny

    big = media.encode_png(Image.new("RGB", (32, 32), (200, 30, 30)))
    groups = [answers(name, context=(big,)) for name in "ab"]
    label(ByCriterion(), groups, tmp_path, judge="j", criteria=CRITERIA)
    write_pairs(groups, tmp_path)
    data = loaded(tmp_path, TRL_DPO)
    assert data[0]["images"][0].getpixel((0, 0)) == (200, 30, 30)
    model, processor = tiny.vision_model()
    # The trainer loads the reference from where the policy came from.
    model.save_pretrained(tmp_path / "policy")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "policy")
    settings = {**tiny.SETTINGS, "max_steps": 1, "per_device_train_batch_size": 2}
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(output_dir=str(tmp_path / "dpo"), max_length=None, **settings),
        train_dataset=data,
        processing_class=processor,
    )
    # Policy and reference are equal at first: -log sigmoid(0).
    assert trainer.train().training_loss == pytest.approx(np.log(2), abs=1e-4)
