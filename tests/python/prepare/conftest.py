"""Models, winnow prepare on one of them, and what it is made of on each."""

import launch
import pytest
import vocabularies
from prepare_files import LIMITS
from prepare_models import DEEPSEEK_ENDS, Prepared, write_word_marker_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return vocabularies.write_thinking_model(tmp_path_factory.mktemp("model"), layers=3)


@pytest.fixture
def prepare(model, tmp_path):
    def run(*arguments, expect=0, model=model, limits=LIMITS):
        done = launch.run_python(["prepare", "--model", model, *limits, *arguments], tmp_path)
        assert done.returncode == expect, done.stderr
        if expect:
            assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("winnow: "), done.stderr
        return done

    run.model = model
    return run


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    deepseek = vocabularies.vocabulary("deepseek_tokenizer.json")
    vocabularies.write_qwen_tokenizer(folder / "qwen.json")
    llama = vocabularies.add_special(folder / "qwen.json", folder / "llama.json", vocabularies.LLAMA_SPECIAL)
    write_word_marker_tokenizer(folder / "marker.json")
    write = vocabularies.write_model
    return {
        "chatml": write(folder / "chatml", folder / "qwen.json", "chatml", {"eos_token": "<|im_end|>"}),
        "thinking": write(folder / "thinking", folder / "qwen.json", "thinking", {"eos_token": "<|im_end|>"}),
        "llama3": write(
            folder / "llama3", llama, "llama3", {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
        ),
        "mistral": write(folder / "mistral", deepseek, "mistral", DEEPSEEK_ENDS),
        "marker": write(
            folder / "marker", folder / "marker.json", "mistral", {"bos_token": "<s>", "eos_token": "</s>"}
        ),
        "base": write(folder / "base", deepseek, None, DEEPSEEK_ENDS),
    }


@pytest.fixture(scope="module")
def prepared(models):
    made = {}

    def get(style, **settings):
        key = (style, *sorted(settings.items()))
        if key not in made:
            made[key] = Prepared(models[style], **settings)
        return made[key]

    return get
