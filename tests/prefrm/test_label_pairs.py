"""Chosen/rejected pairs: which are written, and that `datasets` and TRL take them as they are."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from prefrm import media
from prefrm.errors import ConfigError, DatasetError
from prefrm.label import PairSummary, label, write_pairs
from prefrm.records import PreferenceGroup
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
        images=tuple(picture(level) for level in levels),
        comparisons=(),
        texts=tuple(f" fill {level}" for level in levels) if texts else None,
    )


def labelled(out, groups, scorer=None):
    label(scorer or FakeScorer(brightness), groups, out, judge="j")
    return groups


def rows(out):
    return pq.read_table(out / "pairs.parquet").to_pylist()


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
    assert write_pairs(groups, tmp_path) == PairSummary(groups=2, pairs=2)
    first, second = rows(tmp_path)
    assert (first["id"], first["chosen_index"], first["rejected_index"]) == ("a", 1, 0)
    assert (second["chosen_index"], second["rejected_index"]) == (2, 1)
    assert (first["chosen"], first["rejected"]) == (" fill 200", " fill 40")
    assert first["chosen_image"]["bytes"] == picture(200) and first["rejected_image"]["bytes"] == picture(40)
    # The utilities differ by 2: P - (1 - P) = tanh(2 / 2).
    assert first["margin"] == pytest.approx(np.tanh(1.0), rel=1e-6)
    assert first["chosen_win_rate"] > 0.5 > first["rejected_win_rate"]


def test_all_pairs_above_a_margin(tmp_path):
    groups = labelled(tmp_path, [make_group()])
    # Utilities 0.5, 2.5 and 1.5: margins tanh(1), tanh(1/2) and tanh(1/2).
    assert write_pairs(groups, tmp_path, select="all") == PairSummary(groups=1, pairs=3)
    assert [(r["chosen_index"], r["rejected_index"]) for r in rows(tmp_path)] == [(1, 0), (1, 2), (2, 0)]
    summary = write_pairs(groups, tmp_path, select="all", min_margin=0.6)
    assert summary == PairSummary(groups=1, pairs=1, below_margin=2)


def test_failed_pairs_are_left_out_and_counted(tmp_path):
    broken = replace(make_group("a"), images=(picture(40), b"GIF89a", picture(120)))
    groups = labelled(tmp_path, [broken, make_group("b")])
    assert write_pairs(groups, tmp_path, select="all") == PairSummary(groups=2, pairs=4, unjudged=2)
    assert write_pairs(groups, tmp_path) == PairSummary(groups=2, pairs=2)
    assert rows(tmp_path)[0]["chosen_index"] == 2


def test_a_group_without_two_judged_candidates_has_no_pair(tmp_path):
    groups = labelled(tmp_path, [replace(make_group(), images=(picture(40), None, b"x"))])
    assert write_pairs(groups, tmp_path) == PairSummary(groups=1, unjudged=1)
    assert rows(tmp_path) == []


def test_the_best_against_the_worst_may_be_no_judged_pair(tmp_path):
    logits = [[0, np.nan, 3.0], [0, 0, -3.0], [-3.0, 3.0, 0]]
    groups = labelled(tmp_path, [make_group()], Fixed(logits))
    assert write_pairs(groups, tmp_path) == PairSummary(groups=1, unjudged=1)


def test_an_inferred_pair_may_be_the_best_against_the_worst_but_is_none_of_all_the_judged(tmp_path):
    chain = [[0, 1.0, np.nan], [-1.0, 0, 2.0], [np.nan, -2.0, 0]]
    groups = labelled(tmp_path, [make_group()], Fixed(chain, utilities=[3.0, 2.0, 0.0]))
    assert write_pairs(groups, tmp_path) == PairSummary(groups=1, pairs=1)
    (row,) = rows(tmp_path)
    assert (row["chosen_index"], row["rejected_index"]) == (0, 2)
    assert row["margin"] == pytest.approx(np.tanh(1.5), rel=1e-6)
    assert write_pairs(groups, tmp_path, select="all") == PairSummary(groups=1, pairs=2, unjudged=1)


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


def test_without_texts_there_are_no_text_columns(tmp_path):
    groups = labelled(tmp_path, [make_group(texts=False)])
    assert write_pairs(groups, tmp_path).pairs == 1
    names = pq.read_schema(tmp_path / "pairs.parquet").names
    assert "chosen_image" in names and "chosen" not in names and "rejected" not in names


def test_a_pair_that_lacks_a_text_among_others_that_do_not_is_left_out_and_counted(tmp_path):
    half = replace(make_group("b"), texts=(None, "x", "y"))
    groups = labelled(tmp_path, [make_group("a", texts=False), half, make_group("c")])
    assert write_pairs(groups, tmp_path) == PairSummary(groups=3, pairs=1, without_text=2)
    assert [row["id"] for row in rows(tmp_path)] == ["c"]


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
    assert not list(tmp_path.glob("pairs.*"))


def test_pairs_of_a_folder_without_labels_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no win matrices; label a dataset"):
        write_pairs([make_group()], tmp_path / "absent")


def test_a_margin_out_of_range_is_refused(tmp_path):
    groups = labelled(tmp_path, [make_group()])
    with pytest.raises(ConfigError, match="min_margin"):
        write_pairs(groups, tmp_path, min_margin=1.0)


CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A vision-language policy: the folder of a LLaVA with random weights, and a processor of letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokens = ["<pad>", "<eos>", "<unk>", "<image>", "\n", *map(chr, range(32, 127))]
    letters = Tokenizer(models.WordLevel({token: n for n, token in enumerate(tokens)}, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=["<image>"],
    )
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**size, image_size=16, patch_size=8),
        text_config=LlamaConfig(**size, **ids, vocab_size=len(tokens)),
        image_token_id=tokens.index("<image>"),
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=16, crop_size=16),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
    )
    folder = tmp_path_factory.mktemp("policy")
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder, processor


def loaded(out):
    from datasets import load_dataset

    return load_dataset(
        "parquet", data_files=str(out / "pairs.parquet"), split="train", cache_dir=str(out / "datasets-cache")
    )


def test_datasets_reads_the_images_as_images(tmp_path):
    groups = labelled(tmp_path, [make_group("a"), make_group("b")])
    write_pairs(groups, tmp_path, select="all")
    data = loaded(tmp_path)
    assert data.num_rows == 6
    assert data[0]["chosen_image"].getpixel((0, 0)) == (200, 200, 200)
    assert data[0]["rejected_image"].getpixel((0, 0)) == (40, 40, 40)


# TRL itself still uses the old names of transformers' activation checkpointing.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("conversational", [False, True])
def test_trl_trains_a_vision_language_model_on_the_file_as_it_is(tmp_path, policy, conversational):
    """`datasets.load_dataset`, then TRL's own `DPOTrainer` for one step: no column is touched in between."""
    from transformers import LlavaForConditionalGeneration
    from trl import DPOConfig, DPOTrainer

    groups = labelled(tmp_path, [make_group(f"g{n}") for n in range(4)])
    write_pairs(groups, tmp_path, conversational=conversational)
    folder, processor = policy
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(
            output_dir=str(tmp_path / "dpo"),
            max_steps=1,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            warmup_steps=0,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=loaded(tmp_path),
        processing_class=processor,
    )
    example = trainer.train_dataset[0]
    chosen, rejected = (
        processor.decode(example[f"{side}_ids"]).replace(" ", "") for side in ("chosen", "rejected")
    )
    assert chosen.startswith("fill200") and rejected.startswith("fill40")
    result = trainer.train()
    # Policy and reference are equal at first: -log sigmoid(0).
    assert result.training_loss == pytest.approx(np.log(2), rel=1e-4)
    assert any(not a.equal(b.detach()) for a, b in zip(before, model.parameters(), strict=True))


def test_the_features_are_those_that_datasets_itself_would_write(tmp_path):
    from datasets import Features, Image, List, Value

    groups = labelled(tmp_path, [make_group()])
    message = List({"role": Value("string"), "content": Value("string")})
    for conversational, text in ((False, Value("string")), (True, message)):
        write_pairs(groups, tmp_path, conversational=conversational)
        written = json.loads(pq.read_schema(tmp_path / "pairs.parquet").metadata[b"huggingface"])
        expected = Features(
            {
                "id": Value("string"),
                "prompt": text,
                "chosen": text,
                "rejected": text,
                "chosen_image": Image(),
                "rejected_image": Image(),
                "margin": Value("float64"),
                "chosen_index": Value("int32"),
                "rejected_index": Value("int32"),
                "chosen_win_rate": Value("float32"),
                "rejected_win_rate": Value("float32"),
            }
        )
        assert written["info"]["features"] == expected.to_dict()


def test_rows_are_written_in_large_groups(tmp_path):
    groups = labelled(tmp_path, [make_group(str(n)) for n in range(90)])
    assert write_pairs(groups, tmp_path, select="all").pairs == 270
    with pq.ParquetFile(tmp_path / "pairs.parquet") as file:
        assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [256, 14]


def test_a_typo_in_select_is_a_mistake(tmp_path):
    groups = labelled(tmp_path, [make_group()])
    with pytest.raises(ConfigError, match="one of best_worst, all; received 'best-worst'"):
        write_pairs(groups, tmp_path, select="best-worst")
