"""`POST /v1/score` over a real server, and what it reads of arbitrary bytes."""

import gzip
import json
import threading
from dataclasses import replace

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrm.media import ImageLimits
from prefrm.scoring import matrix_to_json
from prefrm.winmatrix import FakeScorer, Group, WinMatrix
from serving.dataplane import DataPlane
from serving.errors import InvalidRequestError
from serving.inflight import InFlightBytes
from serving.limits import Limits
from serving.models import LoadedModel, ModelInfo, ModelRepository
from serving.observing.metrics import Metrics
from serving.running import background
from serving.server import JudgeServer, Server
from serving.steps import finish
from serving.wire.score_reading import read_scoring
from serving.wire.score_schema import ScoreAnswer, request_model
from tests.serving.score_calls import as_json, b64, post, refused

LIMITS = Limits(group_size=8, request_groups=4)


@pytest.fixture(scope="module")
def mixed(groups, png):
    """Groups of two sizes, with a missing candidate and an unreadable one."""
    return [*groups, Group(prompt="two", candidates=(png(5), png(50)))]


def test_groups_of_any_sizes_are_scored_as_the_scorer_scores_them(served, scorer, mixed):
    body = as_json(mixed)
    # Clients may send a list of nothing for one that is left out.
    body["groups"][0]["texts"] = []
    response = post(served, body)
    assert response.status_code == 200
    answer = response.json()
    assert (answer["model"], answer["version"]) == ("judge", "1")
    expected = [matrix_to_json(scorer.score([group])[0]) for group in mixed]
    unreadable = expected[2]["errors"]
    assert "" not in (unreadable[1], answer["groups"][2]["errors"][1])
    expected[2]["errors"] = answer["groups"][2]["errors"]
    assert answer["groups"] == expected
    best = answer["groups"][0]
    assert best["ranking"] == [
        int(n) for n in np.argsort([-rate for rate in best["win_rate"]], kind="stable")
    ]
    # The missing candidate of the second group: null, not a number.
    assert answer["groups"][1]["win_rate"][1] is None
    assert answer["groups"][1]["win_matrix"][0][1] is None
    assert answer["groups"][1]["ranking"] == [3, 2, 0]


def test_a_group_beyond_the_limits_costs_the_others_nothing(served, scorer, group, png):
    refused = [
        Group(prompt="wide", candidates=(png(3),) * 9),
        Group(prompt="a" * 40_000, candidates=(png(3), png(4))),
    ]
    answers = post(served, as_json([refused[0], group("a"), refused[1]])).json()["groups"]
    assert answers[0]["errors"] == ["a group may have 8 candidates; received 9"] * 9
    assert answers[2]["errors"] == ["a prompt may have 32768 bytes; received 40000"] * 2
    assert answers[0]["win_rate"] == [None] * 9 and answers[2]["win_rate"] == [None] * 2
    assert answers[1] == matrix_to_json(scorer.score([group("a")])[0])


def test_candidates_of_every_kind_are_scored(served, scorer, every_kind):
    answers = post(served, as_json(every_kind[:4])).json()["groups"]
    answers += post(served, as_json(every_kind[4:])).json()["groups"]
    assert answers == [matrix_to_json(matrix) for matrix in scorer.score(every_kind)]


def test_a_context_image_or_a_text_beyond_the_limits_costs_its_own_group_or_candidate(scorer, group, png):
    limits = Limits(text_bytes=8, context_images=2, image=ImageLimits(max_bytes=200))
    large = png(1) + bytes(200)
    many, huge = (replace(group("a"), context=context) for context in ((png(1),) * 3, (png(1), large)))
    text = Group(prompt="a", candidates=("short", "a long text", "b"))
    with background(JudgeServer(scorer, ModelInfo(name="judge"), limits=limits)) as served:
        answers = post(served, as_json([many, huge, text, group("a")])).json()["groups"]
    assert answers[0]["errors"] == ["a group may have 2 context images; received 3"] * 2
    assert (
        answers[1]["errors"] == [f"context image 1: the image has {len(large)} bytes; the limit is 200"] * 2
    )
    assert answers[1]["win_matrix"] == answers[0]["win_matrix"] == [[None, None]] * 2
    assert answers[2]["errors"] == ["", "a text may have 8 bytes; received 11", ""]
    assert answers[3] == matrix_to_json(scorer.score([group("a")])[0])


def test_the_reason_of_a_pair_is_answered():
    matrix = WinMatrix.from_order_logits(np.full((2, 2), np.nan), pair_errors={(0, 1): "it said: perhaps"})
    answer = finish(scoring(json.dumps(one()).encode()).answer([matrix], "judge", "1"))
    (entry,) = ScoreAnswer.model_validate_json(answer).groups[0].pair_errors
    assert (entry.pair, entry.reason) == ([0, 1], "it said: perhaps")


def test_a_data_url_a_gzip_body_and_all_fields(served, group, png):
    body = as_json([group("a")]) | {"model": "judge", "version": "1", "timeout": 20}
    plain = post(served, body).json()
    body["groups"][0]["images"][0] = f"data:image/png;base64,{b64(png(3))}"
    squeezed = post(served, gzip.compress(json.dumps(body).encode()), **{"Content-Encoding": "gzip"})
    assert squeezed.json() == plain
    assert plain["groups"][0]["win_rate"] is not None


def scoring(body, limits=LIMITS):
    return finish(read_scoring(body, request_model(limits), limits, InFlightBytes(limits).lease()))


def of_texts(**fields):
    return {"groups": [{"prompt": "a", "texts": ["a", None]} | fields]}


def one(images=("aGFsbG8=", None), **fields):
    return {"groups": [{"prompt": "a", "images": list(images)}]} | fields


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the request is no JSON: Expecting value"),
        (b"\xff\xfe{}", "the request is no JSON: "),
        (b"[" * 800, "the request is no JSON: "),
        (b"[" * 100_000, "more than 896 commas and brackets"),
        ([], "the request is a list; send an object"),
        ({}, "groups is missing; send it"),
        (
            {"prompt": "a", "images": ["aa", "bb"]},
            "as /docs shows; prompt is no field of a request",
        ),
        ({"groups": []}, "groups has 0 of at least 1 items; send more"),
        (
            {"groups": [{"prompt": "a", "images": [None, None]}] * 5},
            "groups has 5 items, and this server takes 4 at most; send fewer",
        ),
        (one(images=["aGFsbG8="]), "groups[0].images has 1 of at least 2 items"),
        (one(images=[None] * 17), "groups[0].images has 17 items, and this server takes 16"),
        (one(images=[3, None]), "groups[0].images[0] is the number 3; send a string"),
        ({"groups": [{"images": [None, None]}]}, "groups[0].prompt is missing"),
        (one(images=["", None]), "groups[0].images[0] is empty; send null"),
        (one(images=[None, "data:image/png;base64,"]), "groups[0].images[1] is empty"),
        (one(images=["data:image/png,abc", None]), "groups[0].images[0] is a data URL that is not in base64"),
        (one(images=["http://example.org/a.png", None]), "groups[0].images[0] is a URL; nothing is fetched"),
        (one(images=["HTTPS://example.org/a.png", None]), "is a URL; nothing is fetched"),
        (one(images=["file:///etc/passwd", None]), "is a URL; nothing is fetched"),
        (one(images=["aGFs\nbG8=", None]), "groups[0].images[0] is no base64"),
        (one(images=["aGFsbG8", None]), "is no base64"),
        (one(images=["aGFsbG8==", None]), "is no base64"),
        (one(images=["aGF-bG8_", None]), "is no base64"),
        (one(images=["äöü=", None]), "is no base64"),
        ({"groups": [{"prompt": "a"}]}, "groups[0] needs one of images and texts; received neither"),
        (
            {"groups": [{"prompt": "a", "images": [None] * 2, "texts": ["a", "b"]}]},
            "groups[0] needs one of images and texts; received both",
        ),
        ({"groups": [{"prompt": "a", "texts": ["a"]}]}, "groups[0].texts has 1 of at least 2 items"),
        (
            {"groups": [{"prompt": "a", "texts": ["a", 3]}]},
            "groups[0].texts[1] is the number 3; send a string",
        ),
        (b'{"groups": [{"prompt": "a", "texts": ["a", "\\ud800"]}]}', "groups[0].texts[1]: 'utf-8' codec"),
        (
            {"groups": [{"prompt": "a", "texts": ["a", "b" * 200_000]}]},
            "groups[0].texts[1]: a text has 200000",
        ),
        (of_texts(context=[None]), "groups[0].context[0] is null; send a string"),
        (of_texts(context=[""]), "groups[0].context[0] is empty; leave it out"),
        (one(images=[]), "groups[0] needs one of images and texts; received neither"),
        (of_texts(context=["http://example.org"]), "groups[0].context[0] is a URL; nothing is fetched"),
        (of_texts(context=[""] * 65), "groups[0].context has 65 items, and this server takes 64"),
        (of_texts(criterion=None), "groups[0].criterion is null; send a string"),
        (one(timeout=0), "timeout is the number 0; send a number above 0"),
        (one(timeout="soon"), "timeout is a string; send a number"),
        (
            b'{"groups": [{"prompt": "a", "images": [null, null]}], "timeout": NaN}',
            "the request is no JSON: NaN is not a JSON value",
        ),
        (one(version=1), "version is the number 1; send a string"),
        (one(version=10**60), "version is a number beyond all bounds; send a string"),
        (one(version=True), "version is true; send a string"),
        (one(version={}), "version is an object; send a string"),
        (one(version="1" * 300), "version has 300 characters of at most 256; send a shorter string"),
        ({"groups": 1}, "groups is the number 1; send a list"),
        ({"groups": [None]}, "groups[0] is null; send an object"),
        (one(temperature=1), "temperature is no field of a request; leave it out"),
        (b'{"groups": [{"prompt": "\\ud800", "images": [null, null]}]}', "groups[0].prompt: 'utf-8' codec"),
    ],
)
def test_a_malformed_body_is_a_400_that_names_the_field(served, body, message):
    assert message in refused(post(served, body))


def test_an_error_never_holds_what_was_sent(served):
    secret = "c2VjcmV0" * 50_000
    for body in (
        one(images=[secret + "!", None]),
        one(images=["http://" + secret, None]),
        one(images=[[secret], None]),
        one(**{secret: 1}),
        one(model=secret),
        one(version=secret),
        {"groups": [{"prompt": [secret], "images": [secret]}] * 4},
    ):
        assert len(refused(post(served, body))) < 600


def test_what_the_other_wires_answer(served, group):
    assert "unknown model: 'nobody'" in refused(
        post(served, as_json([group("a")]) | {"model": "nobody"}), 404
    )
    assert "unknown model: 'judge' version 9" in refused(
        post(served, as_json([group("a")]) | {"version": "9"}), 404
    )
    assert refused(httpx.get(f"http://{served.http}/v1/score"), 405).startswith("GET /v1/score")


def test_limits_come_before_any_decoding(png, scorer, until):
    image = ImageLimits(max_bytes=200)
    small = Limits(request_bytes=2000, image=image)
    with background(JudgeServer(scorer, ModelInfo(name="judge"), limits=small)) as served:
        assert "the limit is 2000" in refused(post(served, b"{" + b" " * 2000), 413)
        body = as_json([Group(prompt="a", candidates=(png(1), b"x" * 201, png(9), None))])
        score = post(served, body).json()["groups"][0]
        assert score["errors"] == ["", "the image has 201 bytes; the limit is 200", "", score["errors"][3]]
        assert score["win_rate"][1] is None
        assert score["ranking"] == [2, 0]
    # No base64 at all, yet it is not looked at.
    asked = scoring(json.dumps(one(images=["!" * 300, None])).encode(), small)
    assert asked.groups[0].candidates == (None, None)
    assert asked.refusals[0] == ["the image has 225 bytes; the limit is 200", ""]


def test_the_size_is_that_of_the_decoded_image():
    for size in (1, 2, 3, 4, 300):
        exact, less = (Limits(image=ImageLimits(max_bytes=size - cut)) for cut in (0, 1))
        body = json.dumps(one(images=[b64(b"x" * size), None])).encode()
        assert scoring(body, exact).groups[0].candidates[0] == b"x" * size
        assert scoring(body, less).groups[0].candidates[0] is None


def test_a_body_of_nothing_but_structure_is_not_parsed():
    for filler in (b"1,", b"[],", b"{},"):
        body = b'{"groups": [' + filler * (LIMITS.request_groups * 1100) + b"1]}"
        with pytest.raises(InvalidRequestError, match="more than 896 commas and brackets"):
            scoring(body)


def test_a_body_with_a_thousand_errors_is_not_described_at_length():
    body = json.dumps(one(**{f"field {n}": n for n in range(1000)})).encode()
    with pytest.raises(InvalidRequestError, match="1000 things are wrong with the request; /docs says"):
        scoring(body, Limits())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["groups", "prompt", "images", "model", "timeout"]) | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
SHAPED = st.fixed_dictionaries(
    {
        "groups": st.lists(
            st.fixed_dictionaries(
                {
                    "prompt": st.text(max_size=5),
                    "images": st.lists(st.none() | st.text(max_size=12) | JSON, max_size=3),
                }
            ),
            max_size=3,
        )
    }
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=200) | (JSON | SHAPED).map(lambda value: json.dumps(value).encode()))
def test_whatever_is_sent_is_read_or_refused(body):
    try:
        asked = scoring(body)
    except InvalidRequestError as error:
        assert 0 < len(str(error)) < 600
    else:
        assert all(2 <= group.size <= 16 for group in asked.groups)
        assert [len(reasons) for reasons in asked.refusals] == [group.size for group in asked.groups]


def test_a_deadline(gated, group):
    with background(JudgeServer(gated, ModelInfo(name="judge"))) as served:
        message = refused(post(served, as_json([group("a")]) | {"timeout": 0.2}), 504)
        assert "deadline" in message
        gated.gate.set()


def test_a_full_queue_says_when_to_come_back(gated, group, metric, until):
    limits = Limits(queued_cost=1)
    with background(JudgeServer(gated, ModelInfo(name="judge"), limits=limits)) as served:
        answers = []
        threads = []
        for n in range(2):
            body = as_json([group(str(n))])
            threads.append(threading.Thread(target=lambda body=body: answers.append(post(served, body))))
            threads[-1].start()
            # The first is scored, and the second waits.
            until(lambda: len(gated.calls) == 1)
            until(lambda n=n: metric(served, 'prefrm_queue_groups{model="judge",version="1"}') == n)
        response = post(served, as_json([group("third")]))
        refused(response, 429)
        assert int(response.headers["Retry-After"]) >= 1
        gated.gate.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]


def test_a_server_of_several_models_wants_a_name(group):
    models = [
        LoadedModel(info=ModelInfo(name=name), scorer=FakeScorer(lambda prompt, image, s=sign: s * image[40]))
        for name, sign in (("bright", 1), ("dark", -1))
    ]
    metrics = Metrics()
    plane = DataPlane(ModelRepository(models, LIMITS, metrics), LIMITS, metrics)
    with background(Server(plane)) as served:
        assert "name one of 'bright', 'dark'" in refused(post(served, as_json([group("a")])))
        rates = [
            post(served, as_json([group("a")]) | {"model": name}).json()["groups"][0]["win_rate"]
            for name in ("bright", "dark")
        ]
        assert rates[0] == pytest.approx(rates[1][::-1])
