"""Offline labelling over any scorer: win matrices of a dataset, and tables of pairs that trainers read.

`label` scores every group and writes `win_matrices/`, which `read_matrices` reads; it can be stopped at any
moment and started again. `write_pairs` turns them into the tables of `prefrm.label.tables`, as often as you
like, without scoring again, and `write_ranking` into a list of files.
"""

from prefrm.label.pairs import PairSummary, Select, write_pairs
from prefrm.label.ranking import write_ranking
from prefrm.label.run import label
from prefrm.label.shards import LabelledGroup, Summary, read_matrices
from prefrm.label.tables import DIFFUSION_DPO, TRL_DPO, Table

__all__ = [
    "DIFFUSION_DPO",
    "TRL_DPO",
    "LabelledGroup",
    "PairSummary",
    "Select",
    "Summary",
    "Table",
    "label",
    "read_matrices",
    "write_pairs",
    "write_ranking",
]
