"""Preference groups: the one record of a preference dataset, its rules, and the folder on disk.

A dataset is a folder with one parquet file for each split and a `dataset.json` that says where it
came from.
"""

from prefrm.records.corrections import Correction, Corrections
from prefrm.records.info import DatasetInfo, SplitCounts, read_info, write_info
from prefrm.records.parquet import (
    SPLITS,
    arrow_schema,
    count_groups,
    count_row_groups,
    group_fields,
    import_pyarrow,
    read_groups,
    read_prompt_keys,
    read_prompts,
    read_row_groups,
    row_group_sizes,
    split_file,
    write_groups,
)
from prefrm.records.record import (
    SURROGATE,
    Comparison,
    PreferenceGroup,
    comparisons_from_ranking,
    comparisons_from_scores,
    prompt_key,
)
from prefrm.records.row import (
    Fingerprint,
    fingerprint,
    from_row,
    group_columns,
    group_of_columns,
    to_row,
)

__all__ = [
    "SPLITS",
    "SURROGATE",
    "Comparison",
    "Correction",
    "Corrections",
    "DatasetInfo",
    "Fingerprint",
    "PreferenceGroup",
    "SplitCounts",
    "arrow_schema",
    "comparisons_from_ranking",
    "comparisons_from_scores",
    "count_groups",
    "count_row_groups",
    "fingerprint",
    "from_row",
    "group_columns",
    "group_fields",
    "group_of_columns",
    "import_pyarrow",
    "prompt_key",
    "read_groups",
    "read_info",
    "read_prompt_keys",
    "read_prompts",
    "read_row_groups",
    "row_group_sizes",
    "split_file",
    "to_row",
    "write_groups",
    "write_info",
]
