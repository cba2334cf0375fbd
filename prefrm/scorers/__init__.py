"""Every way to judge behind the `Scorer` protocol, and one function that opens whatever a name stands for.

    from prefrm.scorers import open_scorer

    with open_scorer("ensemble.yaml") as judge:
        matrices = judge.score(groups)

A name is the folder of a bundle, `hf://org/name[@revision]`, the URL of a server (`grpc://`, `http://`) or of
a chat endpoint (`chat+http://`), or a scorer file: a YAML that combines scorers (`Ensemble`) or calibrates
one. Importing this loads no torch.
"""

from prefrm.scorers.credentials import with_own_tokens
from prefrm.scorers.ensemble import Ensemble, Member
from prefrm.scorers.files import ScorerFile, Source, read_scorer_file, write_calibrated, write_scorer_file
from prefrm.scorers.opening import connect_url, open_scorer
from prefrm.scorers.targets import is_chat, is_scorer_file, is_url, sources

__all__ = [
    "Ensemble",
    "Member",
    "ScorerFile",
    "Source",
    "connect_url",
    "is_chat",
    "is_scorer_file",
    "is_url",
    "open_scorer",
    "read_scorer_file",
    "sources",
    "with_own_tokens",
    "write_calibrated",
    "write_scorer_file",
]
