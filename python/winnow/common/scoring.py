"""How a text that a model wrote is judged: what winnow prepare records and winnow score reads."""

import dataclasses
from collections.abc import Mapping

METRICS = (
    "exact",
    "contains_any",
    "contains_all",
    "contains_word",
    "token_f1",
    "rouge_l",
    "choice",
    "class",
    "label",
    "first_number",
    "last_number",
    "number_share",
    "leading_numbers",
    "code_line",
    "sequence_ratio",
    "set_f1",
    "best_function",
    "judge",
)


@dataclasses.dataclass(frozen=True)
class Scoring:
    """task: part of the benchmark. metric: one of METRICS, with its options. references: the right answers.
    gold_answer: the one that teacher-forced figures score. answer_prefix: begins the answer and belongs to the prompt.
    length_bin: as the data name it, or empty for that of the prompt's tokens."""

    task: str
    metric: str
    references: tuple[str, ...]
    gold_answer: str
    answer_prefix: str = ""
    length_bin: str = ""
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)


def length_bin(n_tokens: int) -> str:
    """The name of the smallest power of two, from 1k on, that is not below the number of tokens."""
    size = 1024
    while size < n_tokens:
        size *= 2
    return f"{size >> 20}M" if size >= 2**20 else f"{size >> 10}k"
