"""The tokenizer of a GGUF: tokenizer.json, tokenizer_config.json and the chat template, made by Transformers."""

import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

from winnow.common.errors import ExitCode, Failure
from winnow.importing.gguf_file import GgufFile

if TYPE_CHECKING:
    import tokenizers

# What Transformers' converter reads, under its own names.
_FIELDS = {
    "tokenizer_type": "model",
    "pre_tokenizer_type": "pre",
    "tokens": "tokens",
    "scores": "scores",
    "token_type": "token_type",
    "merges": "merges",
}
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_BYTE_LEVEL = "gpt2"
_SENTENCEPIECE = "llama"
# Names of tokenizer.ggml.pre for GPT-2's own rule, after which each digit stands alone; Transformers would keep digits
# together.
_DIGITS_APART = {"smollm", "starcoder", "refact", "command-r", "codeshell"}
_GPT2_RULE = {"gpt-2", "gpt2", "phi-2"}
_COMPOSED = {"qwen2"}  # Unicode's composed form first
# A word that is a token as a whole is taken as it is, also where merges would not lead to it. Texts of these begin with
# a token of their own, unless the file says otherwise.
_WHOLE_WORDS_FIRST = {"llama3", "llama-v3", "llama-bpe", "falcon3", "tekken"}


def write_tokenizer(file: GgufFile, folder: pathlib.Path, n_vocabulary: int, n_positions: int) -> list[str]:
    """Writes the tokenizer's files and returns their names. Failure for a kind that cannot be said."""
    described = {name: file.field(f"tokenizer.ggml.{key}") for name, key in _FIELDS.items()}
    described = {name: value for name, value in described.items() if value is not None}
    _check(file, described, n_vocabulary)
    transformers = _transformers()
    backend = _convert(file, described)
    tokens = described["tokens"]
    flags: dict[str, Any] = {}
    for name, key in _SPECIAL.items():
        token_id = file.field(f"tokenizer.ggml.{key}_token_id")
        if token_id is None:
            continue
        if not isinstance(token_id, int) or not 0 <= token_id < len(tokens):
            raise file.refusal(f"tokenizer.ggml.{key}_token_id", f"the id of one of {len(tokens)} tokens")
        flags[name] = tokens[token_id]
    begins = described["tokenizer_type"] == _SENTENCEPIECE or described["pre_tokenizer_type"] in _WHOLE_WORDS_FIRST
    adds_bos = file.field("tokenizer.ggml.add_bos_token", begins)
    template = file.field("tokenizer.chat_template")
    if not isinstance(template, str | None):
        raise file.refusal("tokenizer.chat_template", "text")
    before = set(os.listdir(folder))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=template,
        add_bos_token=bool(adds_bos and "bos_token" in flags),
        add_eos_token=bool(file.field("tokenizer.ggml.add_eos_token", False)),
        model_max_length=n_positions,
        clean_up_tokenization_spaces=False,
        **flags,
    )
    tokenizer.save_pretrained(folder)
    _name_class_as_hub(folder / "tokenizer_config.json")
    return sorted(set(os.listdir(folder)) - before)


def _name_class_as_hub(path: pathlib.Path) -> None:
    """Transformers 5 writes a name that Transformers 4, which other engines still use, does not know. Both know this
    one. Raises OSError."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check(file: GgufFile, described: dict[str, Any], n_vocabulary: int) -> None:
    kind = described.get("tokenizer_type")
    if kind not in (_BYTE_LEVEL, _SENTENCEPIECE):
        raise file.refusal("tokenizer.ggml.model", f"{_BYTE_LEVEL} (BPE of bytes) or {_SENTENCEPIECE} (SentencePiece)")
    needed = ("tokens", "merges" if kind == _BYTE_LEVEL else "scores")
    for name in needed:
        if not isinstance(described.get(name), list) or not described[name]:
            raise file.refusal(f"tokenizer.ggml.{name}", "a list")
    n_tokens = len(described["tokens"])
    for name in ("scores", "token_type"):
        if name in described and len(described[name]) != n_tokens:
            raise Failure(
                ExitCode.BAD_DATA,
                f"{file.path}: metadata tokenizer.ggml.{name}: {len(described[name])} values for {n_tokens} tokens",
            )
    if n_tokens > n_vocabulary:
        raise Failure(
            ExitCode.BAD_DATA,
            f"{file.path}: metadata tokenizer.ggml.tokens: {n_tokens} tokens, but the embeddings have "
            f"{n_vocabulary} rows",
        )


def _transformers() -> Any:  # noqa: ANN401 - the package
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_NO_ADVISORY_WARNINGS="1")
    import transformers

    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    return transformers


def _convert(file: GgufFile, described: dict[str, Any]) -> "tokenizers.Tokenizer":
    from tokenizers import normalizers, pre_tokenizers
    from transformers.integrations.gguf import gguf_tokenizer_mapping as mapping

    rule = described.get("pre_tokenizer_type")
    is_byte_level = described["tokenizer_type"] == _BYTE_LEVEL
    known = set(mapping.GGUF_PRE_TOKENIZER_SPLITS) | _DIGITS_APART | _GPT2_RULE
    if is_byte_level and rule not in known:
        raise file.refusal("tokenizer.ggml.pre", f"the name of a rule that is known here ({', '.join(sorted(known))})")
    try:
        backend, _ = mapping.convert_gguf_tokenizer(file.architecture, described)
    except Exception as error:  # of every kind, by what the vocabulary lacks
        raise Failure(
            ExitCode.BAD_DATA, f"{file.path}: no tokenizer can be made of tokenizer.ggml.*: {error}"
        ) from error
    if not is_byte_level:
        _set_space_prefix(backend, file.field("tokenizer.ggml.add_space_prefix", True))
        return backend
    if rule in _DIGITS_APART:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if rule in _COMPOSED:
        backend.normalizer = normalizers.NFC()
    if rule in _WHOLE_WORDS_FIRST:
        model = backend.model
        model.ignore_merges = True
        backend.model = model
    return backend


def _set_space_prefix(backend: "tokenizers.Tokenizer", adds_space: bool) -> None:
    """Whether a text begins with a space of its own. Only Metaspace puts one before it: where a converter used another
    rule (Gemma) there is none, or it is the architecture's (Phi 3)."""
    from tokenizers import pre_tokenizers

    if not adds_space and isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=backend.pre_tokenizer.split)
