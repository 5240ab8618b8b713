"""Rendered conversations to token ids, with the answer beginning at a token."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from winnow.common.errors import ExitCode, Failure
from winnow.common.streams import note
from winnow.prepare.rendering.render import Rendered
from winnow.prepare.tokens.token_bound import TokenBound
from winnow.prepare.unusable import Unusable

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

SEAM = "no token begins where the answer begins"
NEAR_CHARACTERS = 20000  # how far before the answer an added token is looked for
PROBE = "It's  a probe:\n\n\t1234 naïve Straße, don't 你好 <x>\n"


# Vocabularies that Transformers converts, and the packages that it needs for them.
CONVERTIBLE = {
    "tokenizer.model*": ("sentencepiece", "protobuf"),
    "*.model": ("sentencepiece", "protobuf"),
    "tekken.json": ("mistral-common",),
    "*.tiktoken": ("tiktoken",),
}


@dataclasses.dataclass(frozen=True)
class Tokens:
    ids: list[int]
    answer_start: int  # index of the first scored token
    answer_tokens: int  # scored tokens without the end of turn
    end_of_turn: str  # the token that ends the answer, if it is scored


def load_tokenizer(model: pathlib.Path) -> "PreTrainedTokenizerFast":
    """Transformers' tokenizer of a checkpoint directory, without network and without code of the checkpoint's."""
    if not model.is_dir():
        raise Failure(
            ExitCode.NO_INPUT, f"{model}: no such directory; --model is a checkpoint as Hugging Face stores it"
        )
    _check_files(model)
    os.environ.update(
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        TRANSFORMERS_NO_ADVISORY_WARNINGS="1",
    )
    try:
        import transformers
    except ImportError as error:
        raise Failure(ExitCode.UNAVAILABLE, f"{error}; pip install -r requirements.txt") from error
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    try:
        with _in_utf8(model) as name:
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                name, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # of every kind, by the file that is damaged or missing
        text = " ".join(str(error).split())[:300]
        code = ExitCode.BAD_DATA if (model / "tokenizer.json").exists() else ExitCode.NO_INPUT
        raise Failure(
            code, f"{model}: no tokenizer that Transformers can load (tokenizer.json, tokenizer_config.json): {text}"
        ) from error
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerFast):
        raise Failure(
            ExitCode.BAD_DATA, f"{model}: the tokenizer gives no character offsets; a tokenizer.json is needed"
        )
    _compare_with_file(tokenizer, model / "tokenizer.json")
    return tokenizer


@contextlib.contextmanager
def _in_utf8(folder: pathlib.Path) -> Iterator[str]:
    """A name of the folder that is UTF-8, as tokenizers takes no other: that of its open descriptor, if need be."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        yield str(folder)


def _check_files(model: pathlib.Path) -> None:
    """Says which file is missing, or something else, and what makes it, where Transformers would guess."""
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json", "tokenizer.model"):
        _refuse_stand_in(model / name)
    if (model / "tokenizer.json").exists():
        return
    for pattern, packages in CONVERTIBLE.items():
        found = next(iter(sorted(model.glob(pattern))), None)
        missing = [name for name in packages if not _is_installed(name)]
        if found is not None and missing:
            wanted = " and ".join(missing)
            raise Failure(
                ExitCode.NO_INPUT,
                f"{model}: there is no tokenizer.json, only {found.name}, which this Python cannot convert: install "
                f"{wanted}, or make the file where they are: python3 -c 'from transformers import AutoTokenizer as A; "
                'A.from_pretrained("DIR").save_pretrained("DIR")\'',
            )
        if found is not None:
            return
    if not ((model / "vocab.json").exists() or (model / "vocab.txt").exists()):
        raise Failure(
            ExitCode.NO_INPUT,
            f"{model}: there is no tokenizer.json, nor another file of a tokenizer; download the checkpoint with it",
        )


def _refuse_stand_in(path: pathlib.Path) -> None:
    """Refuses what is often found in place of a file that was to be downloaded, and what has no end."""
    if path.exists() and not path.is_file():
        raise Failure(ExitCode.NO_INPUT, f"{path}: cannot be read: not a regular file")
    try:
        with open(path, "rb") as file:
            head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError:
        return  # whoever needs the file says so
    if head.startswith(b"version https://git-lfs"):
        what = "a Git LFS pointer, not the file itself: run git lfs pull where it was cloned, or download it again"
    elif head.startswith(b"<"):
        what = "a web page or XML, such as a server's error message: download the file again, with access to it"
    else:
        return
    raise Failure(ExitCode.BAD_DATA, f"{path}: it is {what}")


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _compare_with_file(tokenizer: "PreTrainedTokenizerFast", path: pathlib.Path) -> None:
    """Says when Transformers tokenises in another way than tokenizer.json does, as it does where the class named in
    tokenizer_config.json is the wrong one: programs that read the file alone would feed the model other tokens."""
    import tokenizers

    if not path.exists():
        return
    try:
        alone = tokenizers.Tokenizer.from_buffer(path.read_bytes()).encode(PROBE, add_special_tokens=False).ids
    except Exception as error:  # tokenizers throws plain Exception
        raise Failure(ExitCode.BAD_DATA, f"{path}: {' '.join(str(error).split())[:300]}") from error
    if alone != tokenizer(PROBE, add_special_tokens=False)["input_ids"]:
        note(
            f"winnow prepare: warning: Transformers makes other tokens than {path} alone (class "
            f"{type(tokenizer).__name__}); Transformers' are used"
        )


def tokenizer_sha256(tokenizer: "PreTrainedTokenizerFast", model: pathlib.Path) -> str:
    """Of tokenizer.json, or of what Transformers made of other files."""
    path = model / "tokenizer.json"
    data = path.read_bytes() if path.exists() else tokenizer.backend_tokenizer.to_str().encode()
    return hashlib.sha256(data).hexdigest()


def vocabulary_size(model: pathlib.Path) -> int | None:
    """vocab_size of config.json; None where it says none."""
    path = model / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except (ValueError, RecursionError) as error:
        raise Failure(ExitCode.BAD_DATA, f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise Failure(ExitCode.BAD_DATA, f"{path}: not a JSON object")
    text = config.get("text_config")
    size = config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
    return size if isinstance(size, int) else None


def special_prefix(tokenizer: "PreTrainedTokenizerFast") -> list[int]:
    """Token ids that the tokenizer puts before a text by itself: a beginning-of-text token, or none."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    ids = tokenizer("a")["input_ids"]
    return next((ids[:at] for at in range(len(ids)) if ids[at : at + len(bare)] == bare), [])


class Tokeniser:
    """score_end: whether the end-of-turn token belongs to the scored span; n_vocabulary: ids the model knows, or None;
    prefix: ids before the text. As text they would not do: what follows would no longer be the beginning, where some
    vocabularies put a word marker."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        score_end: bool,
        n_vocabulary: int | None,
        prefix: Iterable[int] = (),
    ) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        for part in ("pre_tokenizer", "post_processor"):
            _keep_white_space(self._backend, part)
        self._score_end, self._n_vocabulary, self._prefix = score_end, n_vocabulary, list(prefix)
        added = [token.content for token in self._backend.get_added_tokens_decoder().values()]
        added += [token for token in (tokenizer.eos_token,) if token]
        longest_first = sorted(map(re.escape, added), key=len, reverse=True)
        self._added = re.compile("|".join(longest_first)) if added else None
        self._end = re.compile(r"\s*(" + "|".join(longest_first) + ")") if added else None
        self.bound = TokenBound(self._backend)
        # At most one token for each byte; a normalizer may make a text longer.
        self._tokens_per_byte = 1 if self._backend.normalizer is None else 4

    @property
    def backend(self) -> "tokenizers.Tokenizer":
        return self._backend

    def most_tokens(self, text: str) -> int:
        """An upper bound of the number of tokens, without tokenising."""
        return len(self._prefix) + self._tokens_per_byte * len(text.encode())

    def encode(self, rendered: Rendered) -> Tokens:
        """Rendered -> Tokens; raises Unusable where the answer does not begin at a token."""
        end = self._end and self._end.match(rendered.text, rendered.answer_end)
        if not self._score_end:
            end = None
        # What follows the end of turn (the template's line break, say) is not the model's to predict. A token of this
        # kind is never merged with others, so the tokens before are the same with and without what follows.
        text = rendered.text[: end.end() if end else rendered.answer_end]
        ids, tail, first, shift = self._encode_in_parts(text, rendered.answer_begin)
        ids, first = self._prefix + ids, first + len(self._prefix)
        begin = rendered.answer_begin - shift
        start = tail.char_to_token(begin)
        if start is None or (tail.token_to_chars(start) or (None,))[0] != begin:
            raise Unusable(SEAM)
        if first + start == 0:
            raise Unusable("nothing before the answer")
        before = tail.token_to_chars(start - 1) if start else None
        if before is not None and before[1] > begin:
            raise Unusable(SEAM)
        self._check(ids, first + start, text[rendered.answer_begin :])
        closing = 0
        if end:
            closing = len(tail.ids) - (tail.char_to_token(end.start(1) - shift) or len(tail.ids) - 1)
        return Tokens(ids, first + start, len(ids) - first - start - closing, end[1] if end else "")

    def _encode_in_parts(self, text: str, answer_begin: int) -> tuple[list[int], "tokenizers.Encoding", int, int]:
        """(ids of the text, encoding with offsets of its end, tokens before that end, characters before it).

        Keeping offsets makes the tokenizer a quarter slower. Only those around the answer are needed, and an added
        token is where tokenizers cut a text first, so that what follows has the same tokens alone.
        """
        cut = None
        if self._added is not None:
            # The last one before the answer; a message's end is near.
            for match in self._added.finditer(text, max(0, answer_begin - NEAR_CHARACTERS), answer_begin):
                cut = match.start()
        if cut:
            ids = self._backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
            tail = self._backend.encode(text[cut:], add_special_tokens=False)
            if ids[len(ids) - len(tail.ids) :] == tail.ids:
                return ids, tail, len(ids) - len(tail.ids), cut
        encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding, 0, 0

    def _check(self, ids: list[int], start: int, answer: str) -> None:
        if self._n_vocabulary is not None and max(ids) >= self._n_vocabulary:
            raise Unusable("a token id beyond the model's vocabulary", f"{max(ids)}, vocab_size {self._n_vocabulary}")
        decoded = self._backend.decode(ids[start:], skip_special_tokens=False)
        # Vocabularies with word markers drop a leading space; normalizers compose characters.
        if decoded != answer and _comparable(decoded) != _comparable(answer):
            raise Unusable("the tokens do not spell the answer", f"{decoded[:60]!r}")


def _comparable(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace(" ", "")


def _keep_white_space(backend: "tokenizers.Tokenizer", part: str) -> None:
    """Trimmed offsets would leave out a word's leading space, and so hide that a token reaches over the seam."""
    component = getattr(backend, part)
    if component is None:
        return
    state = json.loads(component.__getstate__())
    _never_trim(state)
    component.__setstate__(json.dumps(state).encode())
    setattr(backend, part, component)


def _never_trim(node: Any) -> None:  # noqa: ANN401 - any JSON
    if isinstance(node, dict):
        if "trim_offsets" in node:
            node["trim_offsets"] = False
        for value in node.values():
            _never_trim(value)
    elif isinstance(node, list):
        for value in node:
            _never_trim(value)
