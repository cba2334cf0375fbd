"""The benchmark of the chat scorer, in its tiniest form."""

import json

from prefrm.cli import run


def test_both_clients_are_measured_against_the_same_endpoint(capsys):
    tiny = ["--in-flight", "8", "--seconds", "0.02", "--groups", "1", "--rounds", "1"]
    assert run(["bench", "chat", *tiny, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ratio"] == report["scorer"] / report["bare"]
    # No client can have more of the endpoint than there is.
    assert 0 < report["scorer"] <= 8 / 0.02 and report["question_bytes"] > 50_000
