"""Real models behind real endpoints: what the scorer reads is what the engine reads of the same prompt."""

import math
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn

from data_recipes.shapes.candidates import make_candidates
from data_recipes.shapes.captioner import CHECKPOINT
from data_recipes.shapes.prompts import split_prompts
from data_recipes.shapes.render import render
from data_recipes.shapes.viewer import CHECKPOINT as VIEWER
from prefrm.engine import Engine
from prefrm.judge import Judge, JudgeSpec
from prefrm.media import encode_png
from prefrm.scorers.chat import ChatScorer
from prefrm.scorers.chat.showing import data_url
from prefrm.scorers.chat.wording import parse_wording
from prefrm.winmatrix import Group
from tests.prefrm.scorers.chat.captioner import NAME, Captioner
from tests.prefrm.scorers.chat.endpoints import FakeEndpoint, serving

TWICE = (
    "Prompt:\n{prompt}\nImage 1:{image}\nImage 2:{image}\nPrompt:\n{prompt}\n"
    "Which image matches better, 1 or 2?"
)
"""The wording of the built-in template match-twice-v1, which the captioner was taught."""


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("templates") / "twice.txt"
    file.write_text(TWICE)
    return file


@pytest.fixture(scope="module")
def group() -> Group:
    prompt = split_prompts("test")[0]
    scenes = make_candidates(prompt, 3, np.random.default_rng(0))
    return Group(prompt=prompt.text, candidates=tuple(encode_png(render(scene)) for scene in scenes))


@pytest.fixture(scope="module")
def judge() -> Judge:
    spec = JudgeSpec(base_model="shipped:shapes-captioner", attention="joint", template="match-twice-v1")
    return Judge.from_base(spec, device="cpu")


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner()


def log_odds(matrix):
    p = matrix.p.astype(np.float64)
    return np.log(p) - np.log1p(-p)


@pytest.mark.parametrize("tokenizes", [200, 404])
def test_verdicts_are_those_of_the_engine(tokenizes, captioner, judge, group, template):
    (expected,) = Engine(judge).score([group])
    endpoint = FakeEndpoint(captioner.complete, model=NAME, ids=captioner.ids, tokenizes=tokenizes)
    with serving(endpoint), ChatScorer.connect(f"{endpoint.url}template={template}") as scorer:
        (report,) = scorer.reports([group])
    assert ("logprob_token_ids" in endpoint.bodies[0]) == (tokenizes == 200)
    np.testing.assert_allclose(log_odds(report.matrix), log_odds(expected), atol=1e-4)
    np.testing.assert_allclose(report.matrix.order_gap, expected.order_gap, atol=1e-4)
    assert np.nanmin(report.mass) > 0.9


EDITS = "{prompt}\nContext:{context}\nImage 1:{candidate}\nImage 2:{candidate}\n{prompt}\nWhich fits, 1 or 2?"
ANSWERS = (
    "{prompt}\nContext:{context}\n1:\n{candidate}\n2:\n{candidate}\nBy:\n{criterion}\nWhich fits, 1 or 2?"
)
TEXTS = ("There are three yellow squares", "Two.", "Red star, no yellow square above 12 green triangles")


@pytest.fixture(scope="module")
def viewer() -> Captioner:
    return Captioner(VIEWER)


@pytest.mark.parametrize("contexts", [1, 2])
def test_verdicts_on_edits_are_those_of_the_engine(contexts, viewer, group, tmp_path):
    edits = replace(group, context=group.candidates[:contexts])
    compare_with_engine(viewer, edits, EDITS, EDITS.replace("candidate", "image"), tmp_path)


@pytest.mark.parametrize(("contexts", "criterion"), [(0, ""), (1, ""), (1, "detail")])
def test_verdicts_on_texts_are_those_of_the_engine(contexts, criterion, viewer, group, tmp_path):
    answers = Group(
        prompt="how many squares", candidates=TEXTS, context=group.candidates[:contexts], criterion=criterion
    )
    compare_with_engine(viewer, answers, ANSWERS, ANSWERS.replace("candidate", "text"), tmp_path)


def compare_with_engine(model, group, template, wording, folder):
    (folder / "wording.txt").write_text(wording)
    spec = JudgeSpec(
        base_model="shipped:shapes-viewer",
        attention="joint",
        template=f"{template}\n{{answer}}\n1\n2",
        kind=group.kind,
    )
    (expected,) = Engine(Judge.from_base(spec, device="cpu")).score([group])
    endpoint = FakeEndpoint(model.complete, model=NAME, ids=model.ids)
    url = f"template={folder / 'wording.txt'}&min_mass=0"
    with serving(endpoint), ChatScorer.connect(endpoint.url + url) as scorer:
        (matrix,) = scorer.score([group])
    assert expected.valid.all() and np.abs(log_odds(expected)).max() > 0.02
    np.testing.assert_allclose(log_odds(matrix), log_odds(expected), atol=1e-4)
    np.testing.assert_allclose(matrix.order_gap, expected.order_gap, atol=1e-4)


@pytest.fixture(scope="module")
def served_by_transformers(captioner):
    """The address of `transformers serve` with the shipped captioner."""
    pytest.importorskip("openai", reason="transformers serve needs it: pip install 'transformers[serving]'")
    from transformers.cli.serve import Serve
    from transformers.cli.serving.model_manager import ModelManager

    processor = captioner.processor
    processor.chat_template = captioner.tokenizer.chat_template
    with pytest.MonkeyPatch.context() as patch:
        # The processor that it would make itself needs torchvision, for videos.
        patch.setattr(ModelManager, "_load_processor", lambda *_, **__: processor)
        # It would take the loggers of this process, which other tests read.
        patch.setattr(uvicorn.Config, "configure_logging", lambda _: None)
        server = Serve(str(CHECKPOINT), device="cpu", port=0, non_blocking=True)
        try:
            while not server.server.started:
                time.sleep(0.01)
            yield f"http://localhost:{server.server.servers[0].sockets[0].getsockname()[1]}/v1"
        finally:
            server.kill_server()


@pytest.mark.slow
def test_words_from_transformers_serve_are_the_verdicts_of_the_engine(
    served_by_transformers, judge, group, template
):
    (expected,) = Engine(judge).score([group])
    url = f"chat+{served_by_transformers}?model={CHECKPOINT}&template={template}"
    with ChatScorer.connect(url) as scorer:
        (report,) = scorer.reports([group])
    assert report.matrix.valid.all() and np.isnan(report.mass).all()
    # One verdict in each order: equal ones are a clear preference, and others cancel.
    agreed = np.abs(log_odds(report.matrix)) > 0.5
    assert (np.sign(log_odds(report.matrix)) == np.sign(log_odds(expected)))[agreed].all()


@pytest.mark.slow
def test_the_log_odds_of_transformers_serve_are_those_of_the_engine(
    served_by_transformers, captioner, judge, group
):
    """It returns no log-probabilities. The bias of "2" at which greedy decoding flips is the log-odds."""
    (expected,) = Engine(judge).score([group])
    one, two = (captioner.ids(label)[0] for label in "12")
    url, wording = f"{served_by_transformers}/chat/completions", parse_wording(TWICE, name="twice")

    def flips_at(first, second):
        messages = wording.messages(group.prompt, [data_url(group.candidates[n]) for n in (first, second)])
        body = {"model": str(CHECKPOINT), "messages": messages, "temperature": 0, "max_completion_tokens": 1}
        low, high = -4.0, 4.0
        while high - low > 5e-5:
            # A verdict other than these two is impossible under this bias.
            bias = {str(one): 100.0, str(two): 100.0 + (low + high) / 2}
            answer = httpx.post(url, json=body | {"logit_bias": bias}, timeout=60)
            said = answer.raise_for_status().json()["choices"][0]["message"]["content"]
            low, high = ((low + high) / 2, high) if said == "1" else (low, (low + high) / 2)
        return (low + high) / 2

    there, back = flips_at(0, 1), flips_at(1, 0)
    assert (there - back) / 2 == pytest.approx(log_odds(expected)[0, 1], abs=1e-4)
    gap = abs(1 / (1 + math.exp(-there)) - 1 / (1 + math.exp(back)))
    assert gap == pytest.approx(expected.order_gap[0, 1], abs=1e-4)
