"""The scorer against a fake endpoint that answers from an oracle: requests, matrices, failures."""

import io
import json
import math
import pickle
import re
import time
from collections import Counter
from dataclasses import replace
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from prefrm.cli import run
from prefrm.errors import ConfigError, DeadlineError, OverloadedError, RequestError, ServerUnavailableError
from prefrm.media import encode_png
from prefrm.scorers import open_scorer
from prefrm.scorers.chat import ChatScorer
from prefrm.winmatrix import ConcurrentScorer, Group, IdentifiedScorer
from tests.prefrm.scorers.chat.endpoints import FakeEndpoint, choice, serving, shown, written

IMAGES = tuple(encode_png(Image.new("RGB", (4, 3), (40 * n, 0, 0))) for n in range(6))
UTILITIES = {image: (n * 7 % 5) / 2 for n, image in enumerate(IMAGES)}
FIRST_BONUS = 0.25


def log_odds(body):
    first, second = (UTILITIES[image] for image in shown(body))
    return first - second + FIRST_BONUS


def both(z):
    return {"1": -math.log1p(math.exp(-z)), "2": -math.log1p(math.exp(z))}


def digit(body):
    return [choice("1", alternatives={0: both(log_odds(body))})]


def sentence(body):
    z = log_odds(body)
    at = {0: {"Image": math.log(0.8), "Both": math.log(0.2)}, 2: both(z)}
    return [choice("Image", " ", "1" if z > 0 else "2", " is better.", alternatives=at)]


def thought(body):
    winner = 1 if log_odds(body) > 0 else 2
    return [choice(f"<think>...</think><answer>Image {winner} is better")] * body["n"]


def group(*places, prompt="a red cube"):
    return Group(prompt=prompt, candidates=tuple(IMAGES[n] for n in places))


def score(endpoint, query, *groups):
    with ChatScorer.connect(endpoint.url + query) as judge:
        return judge.score(groups)


def expected(places):
    u = np.array([UTILITIES[IMAGES[n]] for n in places])
    return 1 / (1 + np.exp(u[None, :] - u[:, None]))


def test_both_orders_of_every_pair_are_asked_and_merged():
    with serving(FakeEndpoint(digit)) as endpoint:
        (matrix,) = score(endpoint, "dialect=plain", group(0, 1, 2, 3))
    np.testing.assert_allclose(matrix.p, expected([0, 1, 2, 3]), atol=1e-6)
    assert matrix.valid.all() and matrix.order_gap[0, 1] > 0.05
    orders = Counter(tuple(shown(body)) for body in endpoint.bodies)
    assert len(orders) == len(endpoint.bodies) == 4 * 3 and set(orders.values()) == {1}


def test_questions_with_the_same_first_image_follow_one_another():
    with serving(FakeEndpoint(digit)) as endpoint:
        score(endpoint, "concurrency=1", group(0, 1, 2))
    first = [shown(body)[0] for body in endpoint.bodies]
    assert first == [one for image in IMAGES[:3] for one in (image, image)]


def test_copies_of_a_candidate_are_asked_about_once():
    with serving(FakeEndpoint(digit)) as endpoint:
        (matrix,) = score(endpoint, "", group(0, 1, 0))
    assert len(endpoint.bodies) == 2
    np.testing.assert_allclose(matrix.p, expected([0, 1, 0]), atol=1e-6)


@pytest.mark.parametrize("owner", ["vllm", "sglang", "openai", "someone"])
def test_what_decides_an_answer_is_sent_under_the_names_that_the_server_knows(owner):
    with serving(FakeEndpoint(digit, owner=owner)) as endpoint:
        score(endpoint, "", group(0, 1))
    body = endpoint.bodies[0]
    assert (body["temperature"], body["top_p"], body["n"], body["seed"]) == (0.0, 1.0, 1, 0)
    assert (body["max_completion_tokens"], body["model"], body["logprobs"]) == (1, "judge", True)
    assert (body.get("repetition_penalty"), body.get("frequency_penalty")) == (
        {"openai": (None, 0.0), "someone": (1.0, 0.0)}.get(owner, (1.0, None))
    )
    assert (body.get("logprob_token_ids"), body.get("top_logprobs")) == (
        ([16, 17], None) if owner == "vllm" else (None, 20)
    )


def test_a_field_that_an_unknown_server_refuses_is_left_out():
    def strict(body):
        return 400 if "repetition_penalty" in body else digit(body)

    refusal = "unknown field repetition_penalty"
    with serving(FakeEndpoint(strict, owner="someone", refusal=refusal)) as endpoint:
        (matrix,) = score(endpoint, "concurrency=1", group(0, 1))
    assert matrix.valid.all() and len(endpoint.bodies) == 3
    assert "repetition_penalty" not in endpoint.bodies[2]


def test_extra_fields_are_sent_and_are_part_of_the_identity():
    extra = quote('{"chat_template_kwargs": {"enable_thinking": false}}')
    with serving(FakeEndpoint(digit)) as endpoint:
        score(endpoint, f"extra={extra}", group(0, 1))
        plain, more = (ChatScorer.connect(endpoint.url + q).identity() for q in ("", f"extra={extra}"))
    assert endpoint.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False} and plain != more


@pytest.mark.parametrize("status", [404, 500, 502])
def test_a_proxy_without_tokenize_is_asked_for_likely_tokens(status):
    with serving(FakeEndpoint(digit, tokenizes=status)) as endpoint:
        (matrix,) = score(endpoint, "", group(0, 1))
    assert endpoint.bodies[0]["top_logprobs"] == 20 and matrix.valid.all()


def test_a_rank_sentence_is_read_off_its_tokens_with_the_tie():
    with serving(FakeEndpoint(sentence)) as endpoint:
        (matrix,) = score(endpoint, "dialect=unifiedreward-rank", group(0, 1))
    assert matrix.tie[0, 1] == pytest.approx(0.2)
    assert matrix.label_mass[0, 1] == pytest.approx(1.0)
    assert endpoint.bodies[0]["logprob_token_ids"] == [16, 17, 21, 22]
    assert written(endpoint.bodies[0]).startswith("[image][image]")


@pytest.mark.parametrize("owner", ["vllm", "someone"])
def test_a_judge_that_names_a_tie_is_asked_who_would_win_without_one(owner):
    def tied(body):
        if "continue_final_message" in body:
            return digit(body)
        at = {0: {"Both": math.log(0.6), "Image": math.log(0.4)}}
        return [choice("Both", " images are equally good.", alternatives=at)]

    with serving(FakeEndpoint(tied, owner=owner)) as endpoint:
        (matrix,) = score(endpoint, "dialect=unifiedreward-rank&concurrency=1", group(0, 1))
    if owner == "someone":
        assert "does not say who wins" in matrix.reason(0, 1) and len(endpoint.bodies) == 2
        return
    shares = [0.4 / (1 + math.exp(-z)) + 0.3 for z in map(log_odds, endpoint.bodies[::2])]
    there, back = (math.log(p / (1 - p)) for p in shares)
    assert matrix.tie[0, 1] == pytest.approx(0.6)
    assert matrix.p[0, 1] == pytest.approx(1 / (1 + math.exp((back - there) / 2)), abs=1e-6)
    assert endpoint.bodies[1]["messages"][-1] == {"role": "assistant", "content": "Image "}


def test_a_forced_prefix_is_continued_by_one_token():
    with serving(FakeEndpoint(digit)) as endpoint:
        (matrix,) = score(endpoint, "dialect=unifiedreward-rank&read=prefix", group(0, 1))
    body = endpoint.bodies[0]
    assert body["messages"][-1] == {"role": "assistant", "content": "Image "}
    assert (body["add_generation_prompt"], body["continue_final_message"]) == (False, True)
    assert body["max_completion_tokens"] == 1
    np.testing.assert_allclose(matrix.p, expected([0, 1]), atol=1e-6)
    assert np.isnan(matrix.tie).all()


def test_samples_are_drawn_at_once_or_one_at_a_time():
    with serving(FakeEndpoint(thought)) as endpoint:
        (matrix,) = score(endpoint, "dialect=unifiedreward-think&n=3", group(0, 1))
        assert [body["n"] for body in endpoint.bodies] == [3, 3]
        assert endpoint.bodies[0]["temperature"] == 0.7 and endpoint.bodies[0]["stop"] == ["</answer>"]
        assert matrix.p[0, 1] == pytest.approx(0.5 / 4)
        endpoint.answer, endpoint.bodies = lambda body: thought(body)[:1], []
        (again,) = score(endpoint, "dialect=unifiedreward-think&n=3&concurrency=1", group(0, 1))
    assert [(body["n"], body["seed"]) for body in endpoint.bodies] == [(3, 0), (2, 1), (1, 2)] * 2
    assert again.equals(matrix)


def test_a_report_has_masses_agreement_and_dimensions():
    def scores(body):
        p = 1 / (1 + math.exp(-log_odds(body)))
        return [
            choice(
                "".join(
                    f"{d} Score:\nImage 1: {p:.6f}\nImage 2: {1 - p:.6f}\n"
                    for d in ("Alignment", "Coherence", "Style")
                )
            )
        ]

    with (
        serving(FakeEndpoint(scores)) as endpoint,
        ChatScorer.connect(endpoint.url + "dialect=unifiedreward-pair-score") as judge,
    ):
        (report,) = judge.reports([group(0, 1, 2)])
    np.testing.assert_allclose(report.dimensions["Style"].p, expected([0, 1, 2]), atol=1e-4)
    np.testing.assert_allclose(report.matrix.p, report.dimensions["Alignment"].p, atol=1e-6)
    assert (report.agreement[0, 1], report.unread[0, 1]) == (1.0, 0.0) and np.isnan(report.mass).all()
    assert "logprobs" not in endpoint.bodies[0]


def test_a_judge_that_rates_is_asked_once_for_each_candidate():
    def answer(body):
        z = UTILITIES[shown(body)[0]]
        return [choice("Yes", alternatives={0: {"Yes": both(z)["1"], "No": both(z)["2"]}})]

    with (
        serving(FakeEndpoint(answer)) as endpoint,
        ChatScorer.connect(endpoint.url + "dialect=vqascore") as judge,
    ):
        (report,) = judge.reports([group(0, 1, 2)])
    assert len(endpoint.bodies) == 3
    np.testing.assert_allclose(report.matrix.p, expected([0, 1, 2]), atol=1e-6)
    assert np.isnan(report.matrix.order_gap[0, 1]) and report.mass[0, 1] == pytest.approx(1.0)


def weighted(body, mass):
    return [
        choice("1", alternatives={0: {one: x + math.log(mass) for one, x in both(log_odds(body)).items()}})
    ]


def test_the_mass_of_a_pair_is_the_least_of_its_orders():
    with serving(
        FakeEndpoint(lambda body: weighted(body, 0.9 if shown(body)[0] == IMAGES[0] else 0.7))
    ) as one:
        (matrix,) = score(one, "", group(0, 1))
    assert matrix.label_mass[0, 1] == matrix.label_mass[1, 0] == pytest.approx(0.7)


def test_the_mass_and_the_agreement_of_ratings_are_the_lesser_ones():
    def answer(body):
        if "logprobs" in body:
            p = 0.9 if shown(body)[0] == IMAGES[0] else 0.6
            return [choice("Yes", alternatives={0: {"Yes": math.log(p / 2), "No": math.log(p / 2)}})]
        no = shown(body)[0] == IMAGES[0]
        return [choice("Yes")] * 3 + [choice("No" if no else "Yes")]

    with serving(FakeEndpoint(answer)) as endpoint:
        reports = []
        for query in ("", "&read=text&n=4"):
            with ChatScorer.connect(f"{endpoint.url}dialect=vqascore{query}") as judge:
                reports += judge.reports([group(0, 1)])
    assert reports[0].mass[0, 1] == pytest.approx(0.6)
    assert reports[1].agreement[0, 1] == 0.75


def test_an_image_is_shown_upright():
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 3)).save(buffer, "JPEG", exif=exif)
    with serving(FakeEndpoint(lambda body: [choice("1")])) as endpoint:
        score(endpoint, "", Group(prompt="p", candidates=(buffer.getvalue(), IMAGES[0])))
    assert {Image.open(io.BytesIO(image)).size for image in shown(endpoint.bodies[0])} == {(3, 4), (4, 3)}


def test_an_unreadable_answer_is_a_pair_that_was_not_judged_with_its_text():
    def answer(body):
        unsure = shown(body) == [IMAGES[1], IMAGES[0]]
        return [choice("I cannot\x1b[31m tell")] if unsure else thought(body)

    with serving(FakeEndpoint(answer)) as endpoint:
        (matrix,) = score(endpoint, "dialect=unifiedreward-think", group(0, 1, 2))
    assert not matrix.valid[0, 1] and np.isnan(matrix.p[0, 1]) and matrix.valid[0, 2] and matrix.valid[1, 2]
    assert "I cannot" in matrix.reason(0, 1) and matrix.reason(0, 1) == matrix.reason(1, 0)
    assert matrix.reason(0, 1).isprintable()
    assert "I cannot" in matrix.permuted([1, 2, 0]).reason(2, 0)


def test_a_refused_question_is_a_pair_that_was_not_judged():
    with serving(FakeEndpoint(lambda body: 400 if IMAGES[2] in shown(body) else digit(body))) as endpoint:
        (matrix,) = score(endpoint, "", group(0, 1, 2))
        assert matrix.valid[0, 1] and not matrix.valid[0, 2]
        assert matrix.reason(0, 2) == "the endpoint refused the question: that will not do"
        for query in ("", "pairs=1"):
            with pytest.raises(RequestError, match="refused every question: that will not do"):
                score(endpoint, query, group(2, 3))


def test_a_candidate_that_cannot_be_decoded_has_an_error():
    broken = Group(prompt="p", candidates=(IMAGES[0], None, IMAGES[1][:45], IMAGES[3]))
    with serving(FakeEndpoint(digit)) as endpoint:
        (matrix,) = score(endpoint, "", broken)
    assert matrix.errors[1] == "the candidate is missing" and "truncated or corrupt" in matrix.errors[2]
    assert matrix.valid[0, 3] and len(endpoint.bodies) == 2


def test_a_full_endpoint_is_asked_again():
    with serving(FakeEndpoint(digit, refusals=[429, 503, 504])) as endpoint:
        (matrix,) = score(endpoint, "concurrency=1", group(0, 1))
    assert matrix.valid.all() and len(endpoint.bodies) == 5


def test_an_endpoint_that_stays_full_or_refuses_a_token_is_an_error():
    with serving(FakeEndpoint(digit, refusals=[429] * 9, retry_after="60")) as endpoint:
        with pytest.raises(OverloadedError, match="that will not do"):
            ChatScorer.connect(endpoint.url, deadline=1).score([group(0, 1)])
        endpoint.refusals, endpoint.retry_after = [401] * 9, None
        with pytest.raises(RequestError, match="refused the request: that will not do"):
            ChatScorer.connect(endpoint.url).score([group(0, 1)])


def test_what_to_do_about_a_question_that_takes_too_long():
    said = r"its timeout of 0\.4 s; raise it .*, or lower concurrency$"
    with (
        serving(FakeEndpoint(lambda body: time.sleep(0.5) or digit(body))) as endpoint,
        pytest.raises(DeadlineError, match=said) as late,
    ):
        ChatScorer.connect(endpoint.url, deadline=0.4).score([group(0, 1)])
    assert str(late.value).count("raise it") == 1


def test_nobody_at_the_address_is_an_error():
    with serving(FakeEndpoint(digit)) as endpoint:
        pass
    with pytest.raises(ServerUnavailableError):
        ChatScorer.connect(endpoint.url, unavailable_timeout=0).score([group(0, 1)])


def test_a_token_is_sent_and_never_shown():
    with serving(FakeEndpoint(lambda body: [choice("secret-token")])) as endpoint:
        judge = ChatScorer.connect(endpoint.url + "dialect=unifiedreward-think", token="secret-token")
        (matrix,) = judge.score([group(0, 1)])
        judge.close()
    assert endpoint.headers[0]["Authorization"] == "Bearer secret-token"
    assert "[token]" in matrix.reason(0, 1) and "secret" not in repr(judge) + matrix.reason(0, 1)


def test_as_many_questions_are_in_flight_as_were_allowed_and_no_more():
    with serving(FakeEndpoint(digit, hold=5)) as endpoint:
        matrices = score(endpoint, "concurrency=5", *[group(0, 1, 2, prompt=str(n)) for n in range(4)])
    assert endpoint.most_in_flight == 5 and len(endpoint.bodies) == 24
    assert all(matrix.valid.all() for matrix in matrices)


def test_a_budget_of_pairs_infers_the_others():
    with serving(FakeEndpoint(digit)) as endpoint:
        (matrix, other) = score(endpoint, "pairs=5", group(0, 1, 2, 3, 4), group(5, 0))
    assert np.triu(matrix.valid, 1).sum() == 5 and matrix.known.all()
    assert len(endpoint.bodies) == 2 * 5 + 2
    np.testing.assert_allclose(matrix.p, expected([0, 1, 2, 3, 4]), atol=1e-3)
    np.testing.assert_allclose(other.p, expected([5, 0]), atol=1e-6)


def test_a_budget_connects_all_candidates():
    with serving(FakeEndpoint(digit)) as endpoint:
        (matrix,) = score(endpoint, "pairs=1", group(0, 1, 2))
    assert len(endpoint.bodies) == 2 * 2 and matrix.known.all()


def test_the_model_is_looked_up_again_if_it_was_not_clear():
    with serving(FakeEndpoint(digit, other="second")) as endpoint, ChatScorer.connect(endpoint.url) as judge:
        with pytest.raises(ConfigError, match="it serves judge, second"):
            judge.score([group(0, 1)])
        endpoint.other = ""
        assert judge.score([group(0, 1)])[0].valid.all()


def test_an_endpoint_that_is_not_ready_is_not_one_without_a_list_of_models():
    with serving(FakeEndpoint(digit, listing=503)) as endpoint:
        with pytest.raises(ServerUnavailableError):
            ChatScorer.connect(endpoint.url + "model=judge", unavailable_timeout=0).score([group(0, 1)])
        endpoint.listing = 404
        assert score(endpoint, "model=judge", group(0, 1))[0].valid.all()


def test_replicas_that_serve_different_models_are_refused():
    with serving(FakeEndpoint(digit)) as one, serving(FakeEndpoint(digit, model="another")) as two:
        host = two.url.partition("://")[2].partition("/")[0]
        with pytest.raises(ConfigError, match="the replicas serve different judges"):
            ChatScorer.connect(one.url.replace("/v1", f",{host}/v1")).score([group(0, 1, 2, 3)])


def test_a_template_is_asked_in_its_own_words(tmp_path):
    file = tmp_path / "own words.txt"
    file.write_text("{image}{image}Mine: {prompt}\n{answer}\nA\nB\n")
    odds = {0: {"A": math.log(0.8), "B": math.log(0.2)}}
    with serving(FakeEndpoint(lambda body: [choice("A", alternatives=odds)], tokenizes=404)) as endpoint:
        judge = ChatScorer.connect(f"{endpoint.url}template={str(file).replace(' ', '%20')}")
        (matrix,) = judge.score([group(0, 1)])
        assert judge.identity() != ChatScorer.connect(endpoint.url).identity()
    assert written(endpoint.bodies[0]) == "[image][image]Mine: a red cube"
    assert matrix.p[0, 1] == 0.5 and matrix.order_gap[0, 1] == pytest.approx(0.6)


def test_edits_show_the_source_of_their_group_or_the_one_named(tmp_path):
    (tmp_path / "source.png").write_bytes(IMAGES[5])
    edited = [choice("Edited image 1 is better.")]
    own = Group(prompt="p", candidates=IMAGES[:2], context=(IMAGES[4],))
    with serving(FakeEndpoint(lambda body: edited)) as endpoint:
        query = "dialect=unifiedreward-edit&concurrency=1"
        score(endpoint, f"{query}&context={tmp_path / 'source.png'}", group(0, 1), own)
        (matrix,) = score(endpoint, query, group(0, 1))
        (refused,) = score(endpoint, "dialect=unifiedreward-rank", own)
        assert "the group has a context, which this judge does not read" in refused.errors[0]
        with pytest.raises(ConfigError, match="shows 0 images of the context"):
            score(endpoint, f"dialect=vqascore&context={tmp_path / 'source.png'}", group(0, 1))
    assert sorted(shown(body)[0] for body in endpoint.bodies) == sorted([IMAGES[5], IMAGES[4]] * 2)
    assert not matrix.valid.any() and "shows 1 images of the context and the group has 0" in matrix.errors[0]


@pytest.mark.parametrize("context", [(), IMAGES[:1], IMAGES[:2]], ids=len)
def test_a_plain_question_shows_the_context_first(context):
    with serving(FakeEndpoint(lambda body: digit(body | {"messages": last_two(body)}))) as endpoint:
        (matrix,) = score(endpoint, "", Group(prompt="p", candidates=IMAGES[2:4], context=context))
    np.testing.assert_allclose(matrix.p, expected([2, 3]), atol=1e-6)
    for body in endpoint.bodies:
        assert tuple(shown(body)[:-2]) == context
        start = f"Prompt:\np\nContext:{'[image]' * len(context)}\n" if context else "Prompt:\np\n"
        assert written(body).startswith(f"{start}Image 1:[image]\nImage 2:[image]\n")


def last_two(body):
    images = [item for item in body["messages"][0]["content"] if item["type"] == "image_url"]
    return [{"role": "user", "content": images[-2:]}]


def test_texts_are_compared_about_an_image_and_by_a_criterion():
    """The fake judge prefers the longer answer."""
    texts = ("Two birds.", 'Two "birds" on a fence.', "Two birds.", None)

    def longer(body):
        first, second = re.search("1:\n(.*)\nAnswer 2:\n(.*)\nQuestion", written(body)).groups()
        return [choice("1", alternatives={0: both((len(first) - len(second)) / 10)})]

    about = Group(prompt="how many?", candidates=texts, context=IMAGES[:1], criterion="detail")
    alone = Group(prompt="how many?", candidates=texts[:2])
    with serving(FakeEndpoint(longer)) as endpoint:
        query = "dialect=plain-text&concurrency=1"
        one, other = score(endpoint, query, about, alone)
        assert ChatScorer.connect(endpoint.url + query).inputs().kinds == ("text",)
        refused = score(endpoint, query, group(0, 1), about)[0].errors[0]
    assert refused == "the candidates are images; this judge reads texts"
    assert one.p[1, 0] == one.p[1, 2] == pytest.approx(1 / (1 + math.exp(-1.3))) == other.p[1, 0]
    assert one.p[0, 2] == 0.5 and one.errors == ("", "", "", "the candidate is missing")
    assert len(endpoint.bodies) == 3 * 2
    assert shown(endpoint.bodies[0]) == [IMAGES[0]] and "\nCriterion: detail\n" in written(endpoint.bodies[0])
    assert shown(endpoint.bodies[2]) == [] and "Criterion" not in written(endpoint.bodies[2])


def test_a_wording_that_names_a_criterion_needs_one(tmp_path):
    (tmp_path / "by.txt").write_text("{image}{image}{prompt}, by {criterion}: 1 or 2?")
    with serving(FakeEndpoint(digit)) as endpoint:
        by = replace(group(0, 1), criterion="detail")
        named, unnamed = score(endpoint, f"template={tmp_path / 'by.txt'}", by, group(0, 1))
    assert named.valid.all() and "the group has no criterion, which this judge needs" in unnamed.errors[0]
    assert {written(body) for body in endpoint.bodies} == {"[image][image]a red cube, by detail: 1 or 2?"}


def test_the_identity_is_that_of_the_judge_and_not_of_its_address():
    with serving(FakeEndpoint(digit)) as one, serving(FakeEndpoint(digit)) as two:
        first, second = (ChatScorer.connect(url).identity() for url in (one.url, two.url + "concurrency=2"))
        warm = ChatScorer.connect(two.url + "n=2").identity()
    assert first == second != warm and "model=judge" in first


def test_a_scorer_opens_by_its_url_survives_pickling_and_is_concurrent():
    with serving(FakeEndpoint(digit)) as endpoint, open_scorer(endpoint.url + "model=judge") as judge:
        assert isinstance(judge, ConcurrentScorer) and isinstance(judge, IdentifiedScorer)
        copy = pickle.loads(pickle.dumps(judge))  # noqa: S301
        assert copy.url == judge.url and copy.score([group(0, 1)])[0].equals(judge.score([group(0, 1)])[0])
        assert judge.score([]) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("chat+ftp://h/v1", "the scheme is 'chat\\+ftp'"),
        ("chat+http:///v1", "names no host"),
        ("chat+http://h", "no path of the API"),
        ("chat+http://h/v1?model=a&model=b", "gives a setting twice"),
        ("chat+http://h,h/v1", "names a replica twice"),
        ("chat+http://u:p@h/v1", "a user or a fragment"),
        ("chat+http://h/v1?modle=a", "unknown key modle"),
        ("chat+http://h/v1?n=many", "n must be a whole number"),
        ("chat+http://h/v1?n=0", "n must be at least 1"),
        ("chat+http://h/v1?n=2&temperature=0", "samples at temperature 0 are one"),
        ("chat+http://h/v1?min_mass=2", "min_mass must be in"),
        ("chat+http://h/v1?read=tea", "read must be one of auto, prefix, text"),
        ("chat+http://h/v1?dialect=klingon", "dialects: plain, plain-text, unifiedreward-rank"),
        ("chat+http://h/v1?read=prefix", "no start of an answer"),
        ("chat+http://h/v1?extra=3", "extra must be a JSON object"),
        ("chat+http://h/v1?extra=%7B%22n%22:4%7D", "extra: n cannot be given there"),
    ],
)
def test_a_url_that_means_nothing_is_refused(url, said):
    with pytest.raises(ConfigError, match=said):
        ChatScorer.connect(url)


def test_a_url_is_written_as_it_is_read():
    url = "chat+https://h:443,i:8000/api/v1?model=a%2Fb&dialect=vqascore&n=4&temperature=0.5&pairs=7"
    judge = ChatScorer.connect(url)
    assert judge.url == url and ChatScorer.connect(judge.url).settings == judge.settings
    assert judge.settings.model == "a/b"


def test_an_endpoint_that_cannot_do_what_is_asked_is_told_apart():
    with serving(FakeEndpoint(digit, owner="someone")) as endpoint:
        with pytest.raises(ConfigError, match="server of the kind other does not continue"):
            score(endpoint, "dialect=unifiedreward-rank&read=prefix", group(0, 1))
        with pytest.raises(ConfigError, match="server must be auto or one of vllm"):
            score(endpoint, "server=abacus", group(0, 1))


def test_the_command_line_takes_the_url(tmp_path, capsys):
    files = [tmp_path / f"{n}.png" for n in range(2)]
    for file, image in zip(files, IMAGES, strict=False):
        file.write_bytes(image)
    with serving(FakeEndpoint(thought)) as endpoint:
        url = f"{endpoint.url}model=judge&dialect=unifiedreward-think&n=4"
        assert run(["score", url, "--prompt", "a red cube", *map(str, files), "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert run(["score", url, "--pairs", "1", "--prompt", "p", *map(str, files)]) == 2
    assert answer["win_matrix"][0][1] == pytest.approx(0.5 / 5)
    assert "add pairs=1 to the URL of a chat endpoint" in capsys.readouterr().err
