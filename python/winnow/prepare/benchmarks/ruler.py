"""RULER (arXiv 2404.06654): TASK/validation.jsonl as its scripts write it. lm-evaluation-harness has gen_prefix."""

from winnow.common.scoring import Scoring, length_bin
from winnow.prepare.benchmarks.item import Item, Origin, text, texts
from winnow.prepare.rows.conversations import Record


def read(record: Record, origin: Origin) -> list[Item]:
    task = text(record, "task", optional=True) or origin.task
    references = texts(record, "outputs")
    is_question = task.startswith("qa")  # of these one answer is enough, of all others every part counts
    separator = " " if task.startswith("vt") else ", "
    prefix = text(record, "answer_prefix", optional=True) or text(record, "gen_prefix", optional=True)
    length = record.get("length")
    scoring = Scoring(
        task=task,
        metric="contains_any" if is_question else "contains_all",
        references=references,
        gold_answer=references[0] if is_question else separator.join(references),
        answer_prefix=prefix,
        # The file's lengths have the answer's room in them, up to the length that was asked for.
        length_bin=length_bin(length) if isinstance(length, int) and length > 0 else "",
    )
    place = [task, scoring.length_bin, text(record, "index", optional=True) or origin.number()]
    return [Item("/".join(filter(None, place)), text(record, "input"), scoring)]
