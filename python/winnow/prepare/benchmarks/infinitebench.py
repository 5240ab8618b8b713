"""InfiniteBench (arXiv 2402.13718): TASK.jsonl with id, context, input, answer, options.

Prompts are in words of winnow's, unless --task-prompts has others.
"""

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.item import Item, Origin, Task, filled, letter_prompt, text, texts
from winnow.prepare.rows.conversations import Record
from winnow.prepare.unusable import Unusable

LETTERS = "ABCD"
ASK = "{context}\n\n{input}"
BRIEF = "Read the text and answer the question in as few words as you can.\n\n{context}\n\nQuestion: {input}\nAnswer:"
BRIEF_ZH = "阅读文章，然后用尽量少的词回答问题。\n\n{context}\n\n问题：{input}\n回答："
CHOOSE = "{context}\n\n" + letter_prompt("{input}")
CALCULATE = "Calculate from left to right and list each intermediate result, as in [34, 2, 58].\n\n{context}{input}"
NAME = "One name in this dialogue is hidden as $$MASK$$. Answer with the name alone.\n\n{context}\n\n{input}"


TASKS = {
    "passkey": Task(ASK, "first_number"),
    "number_string": Task(ASK, "first_number"),
    "kv_retrieval": Task(ASK, "contains_word"),
    "longdialogue_qa_eng": Task(NAME, "contains_word", {"upper": True}),
    "longbook_sum_eng": Task("Summarise the book in about a page.\n\n{context}\n\nSummary:", "rouge_l"),
    "longbook_choice_eng": Task(CHOOSE, "choice"),
    "longbook_qa_eng": Task(BRIEF, "token_f1"),
    "longbook_qa_chn": Task(BRIEF_ZH, "token_f1", {"characters": True}),
    "math_find": Task(ASK, "first_number", {"decimal": True}),
    "math_calc": Task(CALCULATE, "leading_numbers"),
    "code_run": Task(ASK, "last_number"),
    "code_debug": Task(CHOOSE, "choice"),
}


def read(record: Record, origin: Origin) -> list[Item]:
    name = origin.task
    task = TASKS.get(name)
    if task is None:
        raise Unusable("a task that InfiniteBench does not have: the file's name says it", name[:60])
    fields = {"context": text(record, "context"), "input": text(record, "input", optional=True)}
    references = _answers(record)
    gold = references[0]
    if task.metric == "choice":
        options = texts(record, "options")
        if len(options) != len(LETTERS):
            raise Unusable("not four options")
        fields |= {f"OPTION_{letter}": option for letter, option in zip(LETTERS, options, strict=True)}
        gold = _letter(references, options)
        references = (gold,)
    elif task.metric == "leading_numbers":
        gold = "[" + ", ".join(references) + "]"
    prompt = filled(origin.prompts.get(name, task.prompt), fields)
    scoring = Scoring(name, task.metric, references, gold, options=task.options)
    return [Item(f"{name}/{text(record, 'id', optional=True) or origin.number()}", prompt, scoring)]


def _answers(record: Record) -> tuple[str, ...]:
    value = record.get("answer")
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return texts({"answer": value}, "answer")


def _letter(answers: tuple[str, ...], options: tuple[str, ...]) -> str:
    """The answer is the text of an option, or that and its letter."""
    found = next((one for one in answers if one in options), None)
    letter = next((one for one in answers if one in LETTERS), None)
    if found is None and letter is None:
        raise Unusable("the answer is none of the options")
    return LETTERS[options.index(found)] if found is not None else str(letter)
