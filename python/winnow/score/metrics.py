"""The metrics. Each gives a text a score from 0 to 1 by the reference answers. The definitions are those under which
the benchmarks publish their figures; results/README.md states them."""

import collections
import difflib
import re
import string
from collections.abc import Callable, Mapping, Sequence

from winnow.common.scoring import Scoring
from winnow.score.functions import similarity

Options = Mapping[str, object]
Metric = Callable[[str, Sequence[str], Options], float]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD_ENDS = str.maketrans(dict.fromkeys("\n:\"'.,?!{}", " "))
_PARTS = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W_\u3400-\u4dbf\u4e00-\u9fff]+")  # ideographs are words


def normalised(text: str) -> str:
    """SQuAD's form: lower case, without punctuation and English articles, words with one blank between."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact(text: str, references: Sequence[str], options: Options) -> float:
    return float(text.strip() in [reference.strip() for reference in references])


def _held(text: str, references: Sequence[str], options: Options) -> list[bool]:
    if options.get("normalise"):
        return [normalised(reference) in normalised(text) for reference in references]
    if options.get("case"):
        return [reference in text for reference in references]
    return [reference.lower() in text.lower() for reference in references]


def contains_any(text: str, references: Sequence[str], options: Options) -> float:
    return float(any(_held(text, references, options)))


def contains_all(text: str, references: Sequence[str], options: Options) -> float:
    """The share of the references that the text holds."""
    held = _held(text, references, options)
    return sum(held) / len(held)


def contains_word(text: str, references: Sequence[str], options: Options) -> float:
    words = (text.upper() if options.get("upper") else text).translate(_WORD_ENDS).split()
    return float(any(reference in words for reference in references))


def token_f1(text: str, references: Sequence[str], options: Options) -> float:
    """F1 of the multisets of words, or of characters; the best over the references."""

    def words(one: str) -> list[str]:
        if options.get("characters"):
            return [letter for letter in one.lower() if letter.isalnum()]
        return normalised(one).split()

    return max(_f1(words(text), words(reference)) for reference in references)


def _f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    n_common = sum((collections.Counter(found) & collections.Counter(wanted)).values())
    return 2 * n_common / (len(found) + len(wanted)) if n_common else 0.0


def rouge_l(text: str, references: Sequence[str], options: Options) -> float:
    """F1 of the longest common subsequence of words, letters and digits in lower case; the best over the references."""

    def words(one: str) -> list[str]:
        return _PARTS.findall(one.lower()) if options.get("characters") else re.findall(r"[a-z0-9]+", one.lower())

    found = words(text)
    best = 0.0
    for reference in references:
        wanted = words(reference)
        common = _common_subsequence(found, wanted)
        best = max(best, 2 * common / (len(found) + len(wanted)) if common else 0.0)
    return best


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Its length, by the bits of long integers (Hyyrö 2004): bit i is 0 where the common part grows at one[i]."""
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    whole = (1 << len(one)) - 1
    bits = whole
    for word in other:
        here = bits & places.get(word, 0)
        bits = (bits + here | bits - here) & whole
    return len(one) - bits.bit_count()


def choice(text: str, references: Sequence[str], options: Options) -> float:
    return float(chosen_letter(text) in references)


def chosen_letter(text: str) -> str | None:
    """The letter A to D that the text names: after "answer is", at its beginning, or the first that stands alone."""
    text = text.replace("*", "").strip()
    for pattern in (
        r"(?i:answer\s+is|answer:|option\s+is|option:)[\s:(\"']*([A-D])(?![A-Za-z])",
        r"\A[(\"'\s]*([A-D])(?![A-Za-z'])(?!\s+[a-z])",
        r"(?<![A-Za-z'])([B-D]|A(?!\s+[a-z]))(?![A-Za-z'])",
    ):
        found = re.search(pattern, text)
        if found:
            return found[1]
    return None


def of_class(text: str, references: Sequence[str], options: Options) -> float:
    """1 over the number of classes that the text names, where the right one is among them."""
    classes = _texts(options, "classes")
    best = 0.0
    for reference in references:
        # A class whose name is a part of the right one's is no other answer.
        named = [one for one in classes if one in text and not (one != reference and one in reference)]
        if reference in named:
            best = max(best, 1 / len(named))
    return best


def label(text: str, references: Sequence[str], options: Options) -> float:
    """1 where the first sentence names the right labels and no other."""
    sentence = text.lower().split(".")[0]
    named = {one.lower() for one in _texts(options, "labels") if one.lower() in sentence}
    return float(named == {reference.lower() for reference in references})


def first_number(text: str, references: Sequence[str], options: Options) -> float:
    found = re.search(r"\d+\.\d+|\d+" if options.get("decimal") else r"\d+", text)
    if found is None:
        return 0.0
    if not options.get("decimal"):
        return float(found[0] in references)
    return float(any(float(found[0]) == float(reference) for reference in references))


def last_number(text: str, references: Sequence[str], options: Options) -> float:
    """Whether the last word is the number."""
    words = re.sub("[\n.`'\":]", " ", text).split()
    return float(bool(words) and re.fullmatch(r"[+-]?\d+", words[-1]) is not None and _is_in(words[-1], references))


def _is_in(number: str, references: Sequence[str]) -> bool:
    return any(re.fullmatch(r"[+-]?\d+", one.strip()) and int(one) == int(number) for one in references)


def number_share(text: str, references: Sequence[str], options: Options) -> float:
    """The share of the text's numbers that are the number of the reference."""
    numbers = re.findall(r"\d+", text)
    best = 0.0
    for reference in references:
        wanted = re.search(r"\d+", reference)
        if wanted and numbers:
            best = max(best, numbers.count(wanted[0]) / len(numbers))
    return best


def leading_numbers(text: str, references: Sequence[str], options: Options) -> float:
    """The share of the numbers, in their order, before the first wrong one."""
    found = re.findall(r"\d+", text)
    n_right = 0
    for number, reference in zip(found, references, strict=False):
        if int(number) != abs(int(reference)):
            break
        n_right += 1
    return n_right / len(references)


def code_line(text: str, references: Sequence[str], options: Options) -> float:
    """Similarity (2 M / T of matching characters, in whole percent) of the first line that is no comment or fence."""
    lines = text.lstrip("\n").split("\n")
    line = next((one for one in lines if not any(mark in one for mark in ("`", "#", "//"))), "")
    return max(
        round(100 * difflib.SequenceMatcher(None, line, reference).ratio()) / 100 if line and reference else 0.0
        for reference in references
    )


def sequence_ratio(text: str, references: Sequence[str], options: Options) -> float:
    """difflib's ratio of text and reference after the prefix; 0 where the text does not begin with it."""
    prefix = str(options.get("prefix", ""))
    if not text.startswith(prefix):
        return 0.0
    rest = text.removeprefix(prefix)
    return max(
        float(difflib.SequenceMatcher(None, rest, reference.removeprefix(prefix)).ratio()) for reference in references
    )


def set_f1(text: str, references: Sequence[str], options: Options) -> float:
    """F1 of the set in "Final Answer: [a, b]" on the last line; two empty sets agree."""
    lines = text.strip().split("\n")
    found = re.search(r"Final Answer: ?\[(.*)\]", lines[-1])
    if found is None:
        return 0.0
    named = {one.strip() for one in found[1].split(",")} - {""}
    wanted = set(references) - {""}
    if not named and not wanted:
        return 1.0
    return 2 * len(named & wanted) / (len(named) + len(wanted))


def best_function(text: str, references: Sequence[str], options: Options) -> float:
    """1 where the code is most like the right function of all of its repository's, and alike enough."""
    code = _first_block(text)
    wanted = max(similarity(code, reference) for reference in references)
    others = max((similarity(code, other) for other in _texts(options, "others")), default=0.0)
    return float(wanted >= 0.8 and wanted > others)


def _first_block(text: str) -> str:
    found = re.search(r"^```(?:\w+)?\s*\n(.*?)^```", text.strip(), re.DOTALL | re.MULTILINE)
    return found[1] if found else text


def _texts(options: Options, name: str) -> list[str]:
    value = options.get(name)
    return [str(one) for one in value] if isinstance(value, list) else []


METRICS: dict[str, Metric] = {
    "exact": exact,
    "contains_any": contains_any,
    "contains_all": contains_all,
    "contains_word": contains_word,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "choice": choice,
    "class": of_class,
    "label": label,
    "first_number": first_number,
    "last_number": last_number,
    "number_share": number_share,
    "leading_numbers": leading_numbers,
    "code_line": code_line,
    "sequence_ratio": sequence_ratio,
    "set_f1": set_f1,
    "best_function": best_function,
}


def score(text: str, scoring: Scoring) -> float:
    """The score of a text by the metric of its example, from 0 to 1. Raises KeyError for "judge"."""
    if scoring.options.get("first_line"):
        text = text.lstrip("\n").split("\n")[0]
    return METRICS[scoring.metric](text, scoring.references, scoring.options)
