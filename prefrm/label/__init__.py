"""Offline labelling over any scorer: win matrices of a whole dataset, and chosen/rejected pairs from them.

`label` asks the scorer and writes `win_matrices/`; it can be stopped at any moment and started again.
`write_pairs` turns what is there into `pairs.parquet`, as often as you like, without asking again.
"""

from prefrm.label.pairs import PairSummary, Select, write_pairs
from prefrm.label.run import label
from prefrm.label.shards import LabelledGroup, Summary, read_matrices

__all__ = ["LabelledGroup", "PairSummary", "Select", "Summary", "label", "read_matrices", "write_pairs"]
