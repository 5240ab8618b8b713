"""LongBench (arXiv 2308.14508): TASK.jsonl with input, context, answers, all_classes, language.

Each task has a prompt of its own. These are in words of winnow's; --task-prompts takes the benchmark's, from its file
config/dataset2prompt.json.
"""

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.item import Item, Origin, Task, filled, text, texts
from winnow.prepare.rows.conversations import Record
from winnow.prepare.unusable import Unusable

BRIEF = "Read the text and answer the question in as few words as you can.\n\n{context}\n\nQuestion: {input}\nAnswer:"
SUMMARY = "Summarise the text in about one page.\n\n{context}\n\nSummary:"
CODE = "Write the next line of this code.\n\n{context}{input}"
SHOTS = "{context}\n{input}"
BRIEF_ZH = "阅读文章，然后用尽量少的词回答问题。\n\n{context}\n\n问题：{input}\n回答："
SUMMARY_ZH = "阅读文章并写出总结。\n\n{context}\n\n总结："
QUERY = "Read the transcript and answer the request in a few sentences.\n\n{context}\n\nRequest: {input}\nAnswer:"
COUNT = "How many different paragraphs are there, repeated ones counted once? Answer with the number.\n\n{context}"
PARAGRAPH = (
    'Which paragraph is the abstract about? Answer as in "Paragraph 1".\n\n{context}\n\nAbstract: {input}\n\nAnswer:'
)
PARAGRAPH_ZH = "摘要出自哪一段？答案格式如“段落1”。\n\n{context}\n\n摘要：{input}\n\n答案："


CHARACTERS = {"characters": True}
FIRST_LINE = {"first_line": True}
TASKS = {
    "narrativeqa": Task(BRIEF, "token_f1"),
    "qasper": Task(BRIEF, "token_f1"),
    "multifieldqa_en": Task(BRIEF, "token_f1"),
    "multifieldqa_zh": Task(BRIEF_ZH, "token_f1", CHARACTERS),
    "hotpotqa": Task(BRIEF, "token_f1"),
    "2wikimqa": Task(BRIEF, "token_f1"),
    "musique": Task(BRIEF, "token_f1"),
    "dureader": Task(BRIEF_ZH, "rouge_l", CHARACTERS),
    "gov_report": Task(SUMMARY, "rouge_l"),
    "qmsum": Task(QUERY, "rouge_l"),
    "multi_news": Task(SUMMARY, "rouge_l"),
    "vcsum": Task(SUMMARY_ZH, "rouge_l", CHARACTERS),
    "trec": Task(SHOTS, "class", FIRST_LINE),
    "triviaqa": Task(SHOTS, "token_f1", FIRST_LINE),
    "samsum": Task(SHOTS, "rouge_l", FIRST_LINE),
    "lsht": Task(SHOTS, "class", FIRST_LINE),
    "passage_count": Task(COUNT, "number_share"),
    "passage_retrieval_en": Task(PARAGRAPH, "number_share"),
    "passage_retrieval_zh": Task(PARAGRAPH_ZH, "number_share"),
    "lcc": Task(CODE, "code_line"),
    "repobench-p": Task(CODE, "code_line"),
}


def read(record: Record, origin: Origin) -> list[Item]:
    name = (text(record, "dataset", optional=True) or origin.task).removesuffix("_e")
    task = TASKS.get(name)
    if task is None:
        raise Unusable("a task that LongBench does not have", name[:60])
    options = dict(task.options)
    if task.metric == "class":
        options["classes"] = list(texts(record, "all_classes"))
    fields = {"context": text(record, "context"), "input": text(record, "input", optional=True)}
    prompt = filled(origin.prompts.get(name, task.prompt), fields)
    references = texts(record, "answers")
    scoring = Scoring(name, task.metric, references, references[0], options=options)
    return [Item(f"{name}/{text(record, '_id', optional=True) or origin.number()}", prompt, scoring)]
