"""MRCR as OpenAI published it: a conversation as JSON in prompt, answer, random_string_to_prepend, n_needles."""

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.item import Item, Origin, text
from winnow.prepare.rows.conversations import Record
from winnow.prepare.rows.messages import read_messages


def read(record: Record, origin: Origin) -> list[Item]:
    answer, start = text(record, "answer"), text(record, "random_string_to_prepend")
    needles = text(record, "n_needles", optional=True)
    task = f"mrcr_{needles}_needles" if needles else "mrcr"
    scoring = Scoring(task, "sequence_ratio", (answer,), answer, options={"prefix": start})
    return [Item(f"{task}/{origin.number()}", read_messages(record.get("prompt"), "prompt"), scoring)]
