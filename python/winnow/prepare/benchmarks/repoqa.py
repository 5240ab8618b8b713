"""RepoQA (arXiv 2406.06025): functions of repositories, to be found by their descriptions. One object:
{language: [{repo, content: {path: text}, needles: [{name, path, start_byte, end_byte, description}]}]}."""

from winnow.common.scoring import Scoring
from winnow.prepare.benchmarks.item import Item, Origin, filled, text
from winnow.prepare.benchmarks.room import longest
from winnow.prepare.rows.conversations import Record
from winnow.prepare.unusable import Unusable

PROMPT = (
    "Find the function that the description is about, and repeat it exactly, in a block of code between ```.\n\n"
    "{code}\n\nDescription:\n{description}\n\nRepeat that function exactly, in a block of code between ```."
)
COMMENTS = {"python": "#"}


def read(record: Record, origin: Origin) -> list[Item]:
    made = []
    for language, repositories in record.items():
        if not isinstance(repositories, list):
            raise Unusable("expected {language: [repositories]}")
        for repository in repositories:
            made += _items(language, repository, origin)
    return made


def _items(language: str, repository: Record, origin: Origin) -> list[Item]:
    content, needles = repository.get("content"), repository.get("needles")
    if not isinstance(content, dict) or not isinstance(needles, list):
        raise Unusable("a repository without content and needles")
    mark = COMMENTS.get(language, "//")
    functions = [_function(content, needle) for needle in needles]
    lines: list[str] = []
    first_line = {}
    for path, source in content.items():
        first_line[path] = len(lines)
        lines += [f"{mark} Path: {path}", *str(source).split("\n")]
    made = []
    for needle, function in zip(needles, functions, strict=True):
        before = str(content[needle["path"]]).encode()[: needle["start_byte"]].decode("utf-8", "replace").count("\n")
        begin = first_line[needle["path"]] + 1 + before
        others = [one for one in functions if one != function]
        name = f"{text(repository, 'repo')}/{text(needle, 'name')}"
        scoring = Scoring(
            f"repoqa_{language}", "best_function", (function,), f"```\n{function}\n```", options={"others": others}
        )
        for most in origin.room.lengths:
            made.append(
                _item(f"{name}/{most}", lines, (begin, begin + function.count("\n") + 1), needle, scoring, most, origin)
            )
    return made


def _function(content: Record, needle: Record) -> str:
    try:
        code = str(content[needle["path"]]).encode()[needle["start_byte"] : needle["end_byte"]].decode()
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise Unusable("a needle that is not in its file", str(error)[:100]) from error
    if not code.strip():
        raise Unusable("an empty needle")
    return code


def _item(
    name: str,
    lines: list[str],
    place: tuple[int, int],
    needle: Record,
    scoring: Scoring,
    most: int,
    origin: Origin,
) -> Item:
    """As many lines around the function as there is room for, the function at a random depth of them."""
    depth = origin.room.chance("repoqa", name).random()
    begin, end = place

    def make(n: int) -> Item:
        first = max(0, begin - int(n * depth))
        last = min(len(lines), end + n - int(n * depth))
        code = "\n".join(lines[first:last])
        template = origin.prompts.get("repoqa", PROMPT)
        return Item(name, filled(template, {"code": code, "description": text(needle, "description")}), scoring)

    return longest(make, origin.tokens, most, 0)
