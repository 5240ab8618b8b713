"""LongMemEval (arXiv 2410.10813): a history of dated sessions, then a question. A model of language judges the answers:
winnow score writes them in its form, and reads its verdicts."""

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.item import Item, Origin, text
from winnow.prepare.rows.conversations import Fields, Record, session_prompt
from winnow.prepare.unusable import Unusable


def read(record: Record, origin: Origin) -> list[Item]:
    sessions = record.get("haystack_sessions")
    if sessions is None:
        raise Unusable("no field haystack_sessions")
    prompt = session_prompt(sessions, Fields(record, {}), ())
    name, answer = text(record, "question_id"), text(record, "answer")
    task = text(record, "question_type", optional=True) or "longmemeval"
    return [Item(name, prompt, Scoring(task, "judge", (answer,), answer))]
