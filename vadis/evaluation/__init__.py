"""The paper's test: a dataset split through a model, and how often it was right.

protocol   what a model says of each video       answers   kept line by line, so that a test goes on where it stopped
metrics    answers → accuracies, confusion       records   the same from what ``vadis classify`` wrote
runs       finished tests: of one split, and the mean over several
paper      the figures of the paper's tables 2 to 5      cells     which of them stands where, and what it is of
finished   which cells the runs below a folder fill      effort    what a run takes: operations, bytes
reproduction   the commands for the cells that are missing
"""

from vadis.evaluation.metrics import Metrics, confusion_csv, metrics, per_class_csv
from vadis.evaluation.paper_tables import paper_mean_top1, paper_top1
from vadis.evaluation.predictions import Answer, AnswerFile
from vadis.evaluation.protocol import (
    about_part,
    answer,
    check_classes,
    evaluate,
    learnt_from_the_test,
    settings_of,
)

__all__ = [
    "Answer",
    "AnswerFile",
    "Metrics",
    "about_part",
    "answer",
    "check_classes",
    "confusion_csv",
    "evaluate",
    "learnt_from_the_test",
    "metrics",
    "paper_mean_top1",
    "paper_top1",
    "per_class_csv",
    "settings_of",
]
