"""The benchmark of the chat scorer, in its tiniest form."""

import json

from prefrm.cli import run


def test_both_clients_are_measured_against_the_same_endpoint(capsys):
    assert run(["bench", "chat", "--in-flight", "64", "--seconds", "0.02", "--rounds", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ratio"] == report["scorer"] / report["bare"]
    # No client can have more of the endpoint than there is.
    assert 0 < report["scorer"] <= 64 / 0.02 and report["question_bytes"] > 50_000
