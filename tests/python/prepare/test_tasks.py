"""winnow prepare --generate-task: tasks that are made."""

import json
import random
import re

import pytest
from prepare_files import read_tasks

from winnow.common.scoring import METRICS
from winnow.prepare.benchmarks.room import NOISE, Room, longest, sentences_of
from winnow.prepare.generators import words
from winnow.prepare.generators.layouts import TASKS, Plan
from winnow.prepare.unusable import Unusable
from winnow.score.metrics import score

TEXT = [f"Sentence {i} tells of thing {i * 7919 % 1000}." for i in range(2000)]


def make(task, n=60, number=0, sentences=TEXT, seed=0):
    room = Room([4000], sentences, sentences is TEXT, seed)
    return TASKS[task](room, room.chance(task, number), f"{task}/{number}", n)


def text_of(item):
    return item.prompt if isinstance(item.prompt, str) else "\n".join(turn["content"] for turn in item.prompt)


@pytest.mark.parametrize("task", TASKS)
def test_every_task(task):
    for number in range(20):
        item = make(task, number=number)
        assert item.scoring.metric in METRICS and item.scoring.gold_answer
        assert score(item.scoring.gold_answer, item.scoring) == 1
        assert score("I do not know", item.scoring) == 0
        body = text_of(item)
        answers = [one.removeprefix(str(item.scoring.options.get("prefix", ""))) for one in item.scoring.references]
        assert all(answer in body for answer in answers)
        assert item == make(task, number=number) and item != make(task, number=number, seed=1)
    assert len(text_of(make(task, n=200))) > len(body)


@pytest.mark.parametrize(
    "task, n_wanted", [("niah_single", 1), ("niah_multikey", 1), ("niah_multivalue", 4), ("niah_multiquery", 4)]
)
def test_needles(task, n_wanted):
    item = make(f"ruler:{task}", n=30, sentences=sentences_of(NOISE))
    told = dict.fromkeys(re.findall(r"A secret value of (\S+) is: (\d+)\.", item.prompt))
    asked = re.findall(r"of (.+) in the text above", item.prompt)[0].replace(" and ", ", ").split(", ")
    assert {value for key, value in told if key in asked} == set(item.scoring.references)
    assert len(item.scoring.references) == n_wanted
    assert len({key for key, _ in told}) == (1 if task in ("niah_single", "niah_multivalue") else 4)


def test_dense_needles():
    item = make("ruler:niah_multikey_dense", n=50)
    told = re.findall(r"A secret value of (\S+) is: (\d+)\.", item.prompt)
    assert len(told) == 51 and len(dict(told)) == 51


def test_a_chain_of_variables():
    item = make("ruler:vt")
    given = re.findall(r"VAR (\w+) = (VAR )?(\w+)\.", item.prompt)
    held = {}
    for name, is_copy, value in given:  # in the order of the text
        held[name] = held[value] if is_copy else value
    (asked,) = re.findall(r"value (\d+), by", item.prompt)
    assert [name for name, value in held.items() if value == asked] == list(item.scoring.references) and len(held) == 5


def test_words_are_counted():
    item = make("ruler:cwe", n=40)
    listed = re.findall(r"\d+\. (\S+)", item.prompt)
    often = {word for word in listed if listed.count(word) == 30}
    assert often == set(item.scoring.references) and len(listed) == 10 * 30 + 40 * 3
    item = make("ruler:fwe", n=40)
    coded = item.prompt.split("\n\n")[1].split()
    counts = sorted(((coded.count(word), word) for word in set(coded)), reverse=True)
    assert counts[0][1] == "..." and [word for _, word in counts[1:4]] == list(item.scoring.references)
    assert counts[3][0] > counts[4][0]


def test_where_things_are():
    """A simulation of what is told gives the answers."""
    for task in ("qa1", "qa2", "qa3"):
        for number in range(50):
            item = make(f"babilong:{task}", n=0, number=number)
            body, question = re.search(r"holds\.\n\n(.*)\n\nQuestion: (.*)\n", item.prompt).groups()
            where, holder, stays = {}, {}, {}
            for fact in body.split(". "):
                if moved := re.match(r"(\w+) (?:went|moved|travelled|walked) to the (\w+)", fact):
                    where[moved[1]] = moved[2]
                elif took := re.match(r"(\w+) took the (\w+)", fact):
                    holder[took[2]] = took[1]
                elif put := re.match(r"(\w+) put the (\w+) down", fact):
                    del holder[put[2]]
                for thing in {*holder, *stays}:
                    place = where[holder[thing]] if thing in holder else stays[thing][-1]
                    track = stays.setdefault(thing, [])
                    track += [place] if track[-1:] != [place] else []
            asked = re.search(r"(?:is|was) (?:the )?(\w+)", question)[1]
            answer = where[asked] if task == "qa1" else stays[asked][-1 if task == "qa2" else -2]
            assert item.scoring.references == (answer,), item.prompt


def test_rounds():
    item = make("mrcr:4", n=20)
    (prefix, ordinal, what) = re.match(
        r"Write (\w+) and then.* your (\d)\w\w (.*), and nothing", item.prompt[-1]["content"]
    ).groups()
    same = [
        answer["content"]
        for ask, answer in zip(item.prompt[::2], item.prompt[1::2], strict=False)
        if what in ask["content"]
    ]
    assert len(same) == 4 and item.scoring.references == (prefix + same[int(ordinal) - 1],)
    with pytest.raises(Unusable, match="--haystack is missing"):
        make("mrcr:2", sentences=sentences_of(NOISE))


def test_words_are_different():
    for count in (10, 5000, 20000):
        found = words.pick(random.Random(0), count)
        assert len(set(found)) == count == len(found)


@pytest.mark.parametrize("most", [10, 57, 1000, 12345])
def test_the_longest_that_fits(most):
    for fixed, per_unit in ((3, 1), (10, 7), (0, 40)):
        if fixed + per_unit > most:
            with pytest.raises(Unusable, match=f"more than {most} tokens"):
                longest(lambda n: n, lambda n: fixed + per_unit * n, most)  # noqa: B023
            continue
        n = longest(lambda n: n, lambda n: fixed + per_unit * n, most)  # noqa: B023
        assert fixed + per_unit * n <= most and (
            fixed + per_unit * (n + 1) > most or fixed + per_unit * n >= 0.99 * most
        )
    assert longest(lambda n: n, lambda n: min(n, 30), 1000) >= 30  # there is no more


def test_a_plan_takes_turns():
    rows = [row.payload for row in Plan(["a", "b"], [8, 9], 6).rows()]
    assert rows == [("a", 8, 0), ("b", 8, 0), ("a", 9, 0), ("b", 9, 0), ("a", 8, 1), ("b", 8, 1)]


def test_to_a_file(prepare, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(" ".join(TEXT))
    command = [
        "--generate-task",
        "ruler:niah_multivalue",
        "babilong:qa2",
        "mrcr:2",
        "--task-tokens",
        "400",
        "1000",
        "--count",
        "6",
    ]
    command += ["--haystack", tmp_path / "texts", "--processes"]
    done = prepare(*command, "2", "--out", tmp_path / "a.h5", "--json", limits=[])
    assert json.loads(done.stdout)["kept"] == 6
    prepare(*command, "1", "--out", tmp_path / "b.h5", limits=[])
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    made = read_tasks(tmp_path / "a.h5")
    assert {one["task"] for one in made.values()} == {"niah_multivalue", "qa2", "mrcr_2_needles"}
    lengths = sorted((one["length_bin"], len(one["prompt_ids"])) for one in made.values())
    assert [name for name, _ in lengths] == ["1k"] * 6 and lengths[-1][1] > 940 and lengths[2][1] > 360
    assert all(n <= 400 for _, n in lengths[:3]) and all(n <= 1000 for _, n in lengths)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--generate-task", "ruler:vt", "--input", "x"], "--generate-task is instead of --input"),
        (["--generate-task", "ruler:vt", "--count", "all"], "needs a --count"),
        (["--generate-task", "ruler:vt", "--split", "held-out"], "another --seed"),
        (["--generate-task", "ruler:none"], "invalid choice"),
    ],
)
def test_flags(prepare, tmp_path, flags, words):
    assert words in prepare(*flags, "--out", tmp_path / "out.h5", expect=64).stderr


def test_what_has_no_room_is_counted(prepare, tmp_path):
    command = ["--generate-task", "ruler:cwe", "mrcr:2", "--task-tokens", "100", "--out", tmp_path / "out.h5"]
    message = prepare(*command, "--count", "2", expect=65).stderr
    assert "the task needs more than 100 tokens" in message and "--haystack is missing" in message
