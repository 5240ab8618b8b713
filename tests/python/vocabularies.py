"""Checkpoint directories with the tokenizers of published models, for tests; jobs/setup.sh python fetches the
vocabularies."""

import base64
import itertools
import json
import os
import pathlib
import shutil

import launch
import pytest
import tiny

FOLDER = launch.REPOSITORY / ".venv/vocabularies"
TEMPLATES = pathlib.Path(__file__).parent / "templates"
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA_SPECIAL = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def vocabulary(name):
    path = FOLDER / name
    if not path.exists():
        message = f"there is no {path}; jobs/setup.sh python fetches it and needs a network once"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def _merges(ranks):
    """The pair that each token is merged from: the last merge when its bytes are merged by rank."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, rank) for a, b in itertools.pairwise(parts)]
            at = min(range(len(pairs)), key=pairs.__getitem__)
            assert pairs[at] < rank
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            merges.append(parts)
    return merges


def write_qwen_tokenizer(path, n_tokens=None):
    """tokenizer.json of Qwen's byte-level BPE, from the ranks that dashscope carries: all, or the first n_tokens."""
    sources = [vocabulary("qwen.tiktoken"), pathlib.Path(__file__)]
    name = f"qwen-tokenizer-{n_tokens or 'all'}.json"
    shutil.copy(launch.made_once(name, sources, lambda made: _make_qwen_tokenizer(made, n_tokens)), path)


def _make_qwen_tokenizer(path, n_tokens):
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    ranks = {}
    for line in vocabulary("qwen.tiktoken").read_text().splitlines()[:n_tokens]:
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    # Byte-level vocabularies write each byte as a printable character.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letter = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}

    def spell(token):
        return "".join(letter[byte] for byte in token)

    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            {spell(token): rank for token, rank in ranks.items()}, [(spell(a), spell(b)) for a, b in _merges(ranks)]
        )
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(QWEN_SPECIAL)
    tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
    tokenizer.save(str(path))


def write_model(directory, tokenizer, template, special, **config):
    """A directory with tokenizer and chat template; template None: a base model. special: eos_token, bos_token."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(tokenizer, directory / "tokenizer.json")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | special
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    if template:
        shutil.copy(TEMPLATES / f"{template}.jinja", directory / "chat_template.jinja")
    if config:
        (directory / "config.json").write_text(json.dumps(config))
    return directory


def write_thinking_model(folder, layers):
    """folder/model: Qwen's commonest tokens (all take a second to read), a thinking template, random weights."""
    write_qwen_tokenizer(folder / "tokenizer.json.made", n_tokens=20000)
    tiny.write_checkpoint(folder / "model", layers=layers, vocab=20480)
    return write_model(folder / "model", folder / "tokenizer.json.made", "thinking", {"eos_token": "<|im_end|>"})


def add_special(tokenizer, path, tokens):
    """A copy of a tokenizer.json with further special tokens."""
    import tokenizers

    made = tokenizers.Tokenizer.from_file(str(tokenizer))
    made.add_special_tokens(tokens)
    made.save(str(path))
    return path


def write_byte_model(directory, template):
    """A checkpoint directory with a token for every byte and ChatML's marks; no weights. template: its text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    directory.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    made.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory
