"""The groups of a run's last steps on disk: candidates, win matrices, rewards and advantages.

A reward function writes them and any process reads them while the run goes on. A folder holds parquet files,
each whole or absent, with a row for each group:

step, evaluation          of the trainer; null where it does not tell its reward functions
prompt, images, videos, texts, context, criterion
                          as in a dataset: one of images, videos and texts holds the candidates
kind, size, context_images
                          of the candidates, their number, and that of context images
matrices                  a `name` and the fields of `prefrm.scoring.matrix_row`: of each reward that a judge
                          gives, and "REWARD/CRITERION" of each criterion where there are several
rewards                   a `name` and K `values`, NaN for a candidate without a reward
advantages                K, NaN for a candidate without one; null where they are not known
"""

from prefrm.group_log.reader import GroupLogReader
from prefrm.group_log.rows import LoggedEntry, LoggedGroup
from prefrm.group_log.writer import GroupLog

__all__ = ["GroupLog", "GroupLogReader", "LoggedEntry", "LoggedGroup"]
