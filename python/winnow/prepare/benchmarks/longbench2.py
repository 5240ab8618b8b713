"""LongBench v2 (arXiv 2412.15204): data.json, an array of questions with four choices. Its three bins of length and its
domains stay."""

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.item import Item, Origin, filled, letter_prompt, text
from winnow.prepare.rows.conversations import Record
from winnow.prepare.unusable import Unusable

LETTERS = "ABCD"
PROMPT = "Read the text and answer the question about it.\n\n{context}\n\n" + letter_prompt("{question}")


def read(record: Record, origin: Origin) -> list[Item]:
    fields = {name: text(record, name) for name in ("context", "question")}
    fields |= {f"OPTION_{letter}": text(record, f"choice_{letter}") for letter in LETTERS}
    answer = text(record, "answer").strip()
    if answer not in LETTERS:
        raise Unusable("the answer is not one of A, B, C and D", answer[:60])
    task = text(record, "domain", optional=True) or "longbench2"
    prompt = filled(origin.prompts.get(task, origin.prompts.get("longbench2", PROMPT)), fields)
    bin_of_length = text(record, "length", optional=True)
    scoring = Scoring(task, "choice", (answer,), answer, length_bin=bin_of_length)
    return [Item(text(record, "_id", optional=True) or f"longbench2/{origin.number()}", prompt, scoring)]
