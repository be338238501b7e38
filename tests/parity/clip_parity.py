"""CLIP's text encoders as transformers has them: small random models in either spelling of the names, cut and skipped,
and the tokens of vocab.json with merges.txt, as pipelines store them."""

import gzip
import json
import shutil
import unittest

import reference
import torch
import transformers
from reference import (Parity, SHARED, apply, float64_reference, forward_of, largest_difference, load_file, run, save_file,
                       save_small)
from tokenizer_parity import texts

VOCABULARY = SHARED / "tokenizers" / "clip" / "bpe_simple_vocab_16e6.txt.gz"
PLAIN, PROJECTED = transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection
END = 96

MODELS = {
    "as Stable Diffusion 1 has it": (PLAIN, {"eos_token_id": 2}),
    "an end of text": (PLAIN, {}),
    "projected, gelu": (PROJECTED, {"hidden_act": "gelu", "projection_dim": 20}),
    "projected, an old end": (PROJECTED, {"eos_token_id": 2, "layer_norm_eps": 1e-2}),
    "one head, one block": (PLAIN, {"num_attention_heads": 1, "num_hidden_layers": 1}),
}


def small(kind, seed=0, **changes):
    sizes = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 97,
             "max_position_embeddings": 24, "bos_token_id": 95, "eos_token_id": END, "pad_token_id": 0}
    torch.manual_seed(seed)
    net = kind(transformers.CLIPTextConfig(**{**sizes, **changes})).double()
    for name, weight in net.named_parameters():
        scale = 1.5 / weight.shape[-1] ** 0.5 if weight.dim() > 1 else 0.3
        weight.copy_(torch.randn_like(weight) * scale + (1 if "norm" in name and name.endswith("weight") else 0))
    return net


def spell(folder, out, root):
    """The same model with every name under `root`, and the positions that files used to hold."""
    shutil.copytree(folder, out)
    tensors = load_file(folder / "model.safetensors")
    named = {(name if name.startswith("text_projection") else root + name.removeprefix("text_model.")): tensor
             for name, tensor in tensors.items()}
    named[root + "embeddings.position_ids"] = torch.arange(24).unsqueeze(0)
    save_file(named, out / "model.safetensors", {"format": "pt"})
    return out


def prompts():
    """Ends of text once, several times, as filling, first, and not at all; the largest id elsewhere than the end."""
    ids = torch.randint(1, 95, (6, 20), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = 95
    ids[0, 7:], ids[1, 19], ids[2, 9], ids[2, 14], ids[3, 0], ids[5, 3] = END, END, END, END, END, 94
    return ids


def theirs(kind, folder, ids, dtype=torch.float64):
    model = kind.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
    with float64_reference():
        out = model(ids, output_hidden_states=True)
    pooled = out.text_embeds if kind is PROJECTED else out.pooler_output
    return {"last": out.last_hidden_state, "penultimate": out.hidden_states[-2], "pooled": pooled}


class Clip(Parity):
    def same(self, what, ours, expected, bound=1e-9):
        for name, value in expected.items():
            self.within(f"{what}, {name}", largest_difference(ours[name], value), bound)

    def test_small_models(self):
        ids = prompts()
        for number, (name, (kind, changes)) in enumerate(MODELS.items()):
            with self.subTest(model=name):
                folder = save_small(small(kind, number, **changes), self.folder / str(number))
                expected = theirs(kind, folder, ids)
                self.same("float64", forward_of(folder, {"ids": ids}), expected)
                for root in ("text_model.", ""):
                    spelled = spell(folder, self.folder / f"{number}{root}-", root)
                    self.same("float64, names of files", forward_of(spelled, {"ids": ids}), expected)
                single = forward_of(folder, {"ids": ids}, dtype="float32")
                self.within("float32 last, relative",
                            largest_difference(single["last"], expected["last"]) / expected["last"].abs().max().item(), 1e-5)

    def test_cuts(self):
        """What is cut gives what skipping gives, and whole blocks out of it open in transformers."""
        ids = prompts()
        folder = save_small(small(PROJECTED), self.folder / "model")
        bare = spell(folder, self.folder / "bare", "")
        for number, (drop, form) in enumerate((("attention:1,mlp:2", "hf-zeroed"), ("1", "hf-compact"),
                                               ("attention:1,mlp:2", "hf-perlayer"))):
            for kind, model in (("full", folder), ("bare", bare)):
                skipped = forward_of(model, {"ids": ids}, skip=drop)["last"]
                out = apply(model, drop, self.folder / f"{kind}-{number}", form)
                ours = forward_of(out, {"ids": ids})
                self.within("cut and skipped", largest_difference(ours["last"], skipped), 1e-12)
                if form != "hf-perlayer" and kind == "full":
                    self.same("cut, in transformers", ours, theirs(PROJECTED, out, ids))

    def test_what_is_refused(self):
        folder = save_small(small(PLAIN), self.folder / "model")
        for ids, message in ((torch.full((1, 3), 97), "the id 97"), (torch.full((1, 3), -1), "the id -1"),
                             (torch.zeros(1, 25, dtype=torch.int64), "25 tokens, but the model has 24")):
            with self.assertRaisesRegex(AssertionError, message):
                forward_of(folder, {"ids": ids})


@unittest.skipUnless(VOCABULARY.exists(), "skipped: ../shared/data/tokenizers is not there")
class Tokens(Parity):
    TEXTS = ["", " ", "a photo of a cat", "  Two\t\tSpaces\n\nand LINES ", "it's we'll I'VE they'd 'S 's", "12345 3.14 a1b2 ½ Ⅷ ٣",
             "naïve café CAFÉ e\u0301 \u212b", "日本語 🙂👩‍👩‍👧 🇫🇷", "!!! wow! a!b ?!", "<|startoftext|>x<|endoftext|> y<|endoftext|>",
             "<|ENDOFTEXT|> <|StartOfText|>", "\u00a0\u2009wide\u0000zero \u200b\ufeff", "&amp; <b>html</b> \\n", "a-very-long-word" * 40,
             "İstanbul ẞ ŒUVRE ΑΣ", "word " * 200, "x'sy 'tis o'clock don't", "\ufffd\ufffe", "(masterpiece:1.2), [cat|dog], {x}"]

    def files(self, folder, config, special=None):
        """As published: the vocabulary in the order of the merges, each half of it twice."""
        folder.mkdir()
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        letters = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
        merges = gzip.open(VOCABULARY).read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
        tokens = letters + [letter + "</w>" for letter in letters] + ["".join(merge.split()) for merge in merges]
        tokens += ["<|startoftext|>", "<|endoftext|>"]
        (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
        if config is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
        if special is not None:
            (folder / "special_tokens_map.json").write_text(json.dumps(special))
        return folder

    def test_prompts(self):
        def token(text, normalized=True):
            return {"content": text, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}

        begin, end = token("<|startoftext|>"), token("<|endoftext|>")
        named = {"bos_token": begin, "eos_token": end, "unk_token": end}
        config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77,
                  "tokenizer_class": "CLIPTokenizer", **{key: {"__type": "AddedToken", **value} for key, value in named.items()}}
        listed = {"0": {**token("!", False), "special": True}, "49406": {**begin, "special": True},
                  "49407": {**end, "special": True}}
        newer = {**config, "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
        cases = {
            "ViT-L": ({**config, "pad_token": "<|endoftext|>"}, {**named, "pad_token": "<|endoftext|>"}),
            "bigG": ({**config, "pad_token": "!"}, {**named, "pad_token": "!"}),
            "bigG, listed by id": ({**newer, "pad_token": "!", "added_tokens_decoder": listed}, {**named, "pad_token": "!"}),
            "no map": ({**config, "pad_token": "<|endoftext|>"}, None),
            "a length alone": ({"model_max_length": 12}, None),
        }
        lines = self.TEXTS + texts()
        for name, (settings, special) in cases.items():
            with self.subTest(files=name):
                folder = self.files(self.folder / name, settings, special)
                tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
                saved = self.folder / f"{name}, saved"
                tokenizer.save_pretrained(saved)
                expected = tokenizer(lines, padding="max_length", max_length=tokenizer.model_max_length,
                                     truncation=True)["input_ids"]
                for where in (folder, saved):
                    self.equal(where, lines, expected)

    def test_whole_words(self):
        """A closed vocabulary in a tokenizer.json, filled up to a fixed length."""
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        words = {word: number for number, word in enumerate("<unk> <begin> <end> a red ring left of two".split())}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<begin> $A <end>", special_tokens=[("<begin>", 1), ("<end>", 2)])
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<begin>", eos_token="<end>",
                                                    pad_token="<end>", unk_token="<unk>", model_max_length=8)
        fast.save_pretrained(self.folder / "words")
        lines = ["", "a red ring", "two red ring left of a blue ring and a ring", "a <end> ring", "a  red\tring"]
        self.equal(self.folder / "words", lines, fast(lines, padding="max_length", max_length=8, truncation=True)["input_ids"])

    def equal(self, folder, lines, expected):
        answer = run("tokenize", folder, "--prompt", "--json", input="".join(json.dumps(line) + "\n" for line in lines).encode())
        ours = [json.loads(line) for line in answer.decode().splitlines()]
        self.assertEqual(len(ours), len(lines))
        for line, row, right in zip(lines, ours, expected):
            self.assertEqual(row, right, repr(line))


if __name__ == "__main__":
    reference.main()
