"""Models with tokenizers of published vocabularies, and what winnow prepare makes of a conversation with them."""

import datetime
import json

from winnow.prepare.rendering.render import TemplateRenderer
from winnow.prepare.rendering.template import find_template
from winnow.prepare.rows.conversations import Layouts
from winnow.prepare.rows.sources import Row
from winnow.prepare.tokens.tokenise import Tokeniser, load_tokenizer

DATE = datetime.date.today()  # what Transformers' clock says, too
DEEPSEEK_ENDS = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}


def write_word_marker_tokenizer(path):
    """A small vocabulary that marks beginnings of words, as SentencePiece's do, with bytes for what it does not
    know."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    text = ["What is the capital of France? The capital is Paris. It lies on the Seine."] * 20
    tokenizer.train_from_iterator(text, trainers.BpeTrainer(vocab_size=600, special_tokens=special))
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if not token["content"].startswith("<0x")]
    path.write_text(json.dumps(spec))


class Prepared:
    """Tokenizer, renderer and tokeniser of a model; `tokens` of a row."""

    def __init__(self, model, think="empty", score_end=True, **arguments):
        self.tokenizer = load_tokenizer(model)
        self.template = find_template(self.tokenizer, None, model)
        self.renderer = TemplateRenderer(self.tokenizer, self.template, think, arguments, DATE)
        self.tokeniser = Tokeniser(self.tokenizer, score_end, None)

    def rendered(self, row, **layout):
        (self.conversation,) = Layouts(layout.pop("fields", {}), **layout).parse(Row("here", row, "source"))
        return self.renderer.render(self.conversation)

    def tokens(self, row, **layout):
        return self.tokeniser.encode(self.rendered(row, **layout))

    def scored(self, tokens):
        return self.tokeniser.backend.decode(tokens.ids[tokens.answer_start :], skip_special_tokens=False)

    def by_transformers(self, messages, **arguments):
        return self.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **arguments)["input_ids"]


def conversation(answer, prompt="What is the capital of France?"):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
