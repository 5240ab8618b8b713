"""HELMET (arXiv 2410.02694), its files of passages and of keys and values, without examples before the question.

Passages: ctxs, question, answers. Keys and values: context, question, answer, num_kvs. The rest has rankings or a
judge, or is of other benchmarks, and is not read.
"""

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.item import Item, Origin, filled, text, texts
from winnow.prepare.rows.conversations import Record
from winnow.prepare.unusable import Unusable

PASSAGES = "Answer the question from the documents, in as few words as you can.\n\n{context}\n\nQuestion: {question}"
PAIRS = "{context}\n\nWhat is the value of this key in the JSON object above?\nKey: {question}"
NORMALISED = {"normalise": True}


def read(record: Record, origin: Origin) -> list[Item]:
    if "num_kvs" in record:
        context, prompt, prefix = text(record, "context"), PAIRS, "Corresponding value:"
    else:
        context, prompt, prefix = _passages(record), PASSAGES, "Answer:"
    references = texts(record, "answers" if "answers" in record else "answer")
    prompt = filled(origin.prompts.get(origin.task, prompt), {"context": context, "question": text(record, "question")})
    scoring = Scoring(origin.task, "contains_any", references, references[0], prefix, options=NORMALISED)
    return [Item(f"{origin.task}/{text(record, 'id', optional=True) or origin.number()}", prompt, scoring)]


def _passages(record: Record) -> str:
    passages = record.get("ctxs")
    if not isinstance(passages, list) or not passages or not all(isinstance(one, dict) for one in passages):
        raise Unusable("neither ctxs nor num_kvs: a part of HELMET that is not read")
    if "label" in passages[0]:
        raise Unusable("a ranking of passages, which is not read")
    return "\n\n".join(f"Document ({text(one, 'title', optional=True)}): {text(one, 'text')}" for one in passages)
