"""GraphWalks as OpenAI published it: prompt, answer_nodes, problem_type. The prompt asks for "Final Answer: [...]"."""

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.item import Item, Origin, text
from winnow.prepare.rows.conversations import Record
from winnow.prepare.unusable import Unusable


def read(record: Record, origin: Origin) -> list[Item]:
    nodes = record.get("answer_nodes", record.get("answer"))
    if not isinstance(nodes, list) or not all(isinstance(node, str) for node in nodes):
        raise Unusable("field answer_nodes is not a list of names")
    task = text(record, "problem_type", optional=True) or "graphwalks"
    # A walk may end nowhere: an empty reference stands for the empty set.
    scoring = Scoring(task, "set_f1", tuple(nodes) or ("",), f"Final Answer: [{', '.join(nodes)}]")
    return [Item(f"{task}/{origin.number()}", text(record, "prompt"), scoring)]
