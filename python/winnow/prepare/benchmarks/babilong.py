"""BABILong (arXiv 2406.10149): rows with input, question and target, in files named by task and length."""

import re

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.item import Item, Origin, filled, text
from winnow.prepare.rows.conversations import Record

PROMPT = (
    "Facts are hidden in a long text. Answer the question by these facts alone, in one short sentence; of facts that "
    "contradict each other the later one holds.\n\n{input}\n\nQuestion: {question}\nAnswer:"
)
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
YES_NO = ("no", "yes")
# The words that can be answers of each task of bAbI: an answer is right that names the right ones and no other.
LABELS = {
    **dict.fromkeys(("qa1", "qa2", "qa3", "qa4", "qa11", "qa12", "qa13"), PLACES),
    **dict.fromkeys(("qa6", "qa9", "qa17", "qa18"), YES_NO),
    "qa5": ("Bill", "Fred", "Jeff", "Mary", "apple", "football", "milk"),
    "qa7": ("none", "one", "three", "two"),
    "qa8": ("apple", "football", "milk", "nothing"),
    "qa10": ("maybe", "no", "yes"),
    "qa14": ("bedroom", "cinema", "kitchen", "office", "park", "school"),
    "qa15": ("cat", "mouse", "sheep", "wolf"),
    "qa16": ("gray", "green", "white", "yellow"),
    "qa19": tuple(f"{a},{b}" for a in "ensw" for b in "ensw"),
    "qa20": ("bedroom", "bored", "garden", "hungry", "kitchen", "thirsty", "tired"),
}


def read(record: Record, origin: Origin) -> list[Item]:
    question, target = text(record, "question"), text(record, "target")
    where = f"{origin.folder}/{origin.file}"
    task = _found(r"qa\d+", where) or text(record, "task", optional=True) or "babilong"
    # Words of the question are never its answer.
    labels = [word for word in LABELS.get(task, ()) if word.lower() not in question.lower()]
    is_list = "," in target and len(target) > len("n,w")
    references = tuple(target.split(",")) if is_list else (target,)
    scoring = Scoring(
        task=task,
        metric="label" if labels else "contains_all",
        references=references,
        gold_answer=target.replace(",", ", ") if is_list else target,
        length_bin=_found(r"(?<![a-zA-Z\d])\d+[kM](?![a-zA-Z])", where),
        options={"labels": labels} if labels else {},
    )
    prompt = filled(origin.prompts.get(task, PROMPT), {"input": text(record, "input"), "question": question})
    return [Item(f"{task}/{scoring.length_bin or 'any'}/{origin.number()}", prompt, scoring)]


def _found(pattern: str, where: str) -> str:
    found = re.findall(pattern, where)
    return str(found[-1]) if found else ""
