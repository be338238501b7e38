"""Perplexity as `lamina eval` computes it, against the sliding window of transformers' guide on the same folder, in
float32 to 1e-4, whole and with parts left out."""

import json
import math

import reference
import torch
from reference import (SHARED, Parity, needs_shared, needs_smollm2, open_reference, reference_folder, run, silence, slow)
from tokenizers import Tokenizer

DROP = "attention:10-12,mlp:20,25"
SITES = [(10, "attention"), (11, "attention"), (12, "attention"), (20, "mlp"), (25, "attention"), (25, "mlp")]
TEXT = SHARED / "wikitext-2" / "test.txt"


def perplexity(folder, text, tokens, length, stride, without=()):
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text.read_text(encoding="utf-8")).ids[:tokens]
    model = open_reference(folder, torch.float32)
    silence(model, without)
    nll, scored, windows, done = 0.0, 0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + length, len(ids))
        window = torch.tensor([ids[begin:end]])
        fresh = min(end - done, end - begin - 1)  # the first token of all has nothing that predicts it
        row = model(window).logits[0, -fresh - 1:-1].double()
        nll -= row.log_softmax(-1).gather(1, window[0, -fresh:, None]).sum().item()
        scored, windows, done = scored + fresh, windows + 1, end
        if end == len(ids):
            break
    return {"nll": nll / scored, "perplexity": math.exp(nll / scored), "tokens": scored, "windows": windows}


class Evaluation(Parity):
    def same(self, model, folder, tokens, length, stride, drop="", without=(), whole_text=False):
        text = TEXT
        if not whole_text:  # to tokenize all of it takes longer than to score its beginning
            text = self.folder / "text.txt"
            text.write_text(TEXT.read_text(encoding="utf-8")[:20000], encoding="utf-8")
        answer = json.loads(run("eval", model, "--text", text, "--tokens", tokens, "--length", length, "--stride", stride,
                                "--json", "-q", *(["--skip", drop] if drop else [])))
        expected = perplexity(folder, text, tokens, length, stride, without)
        self.assertEqual((answer["tokens"], answer["windows"]), (expected["tokens"], expected["windows"]))
        print(f"{folder.name}, {drop or 'whole'}: {answer['perplexity']:.6f} and {expected['perplexity']:.6f}")
        for key in ("perplexity", "nll"):
            self.within(f"{key}, relative", abs(answer[key] / expected[key] - 1), 1e-4)

    @needs_shared
    def test_stories(self):
        folder = reference_folder(reference.STORIES)
        self.same(folder, folder, 2048, 512, 256)
        self.same(reference.STORIES, folder, 2048, 512, 256, "attention:2,mlp:0", [(2, "attention"), (0, "mlp")])
        self.same(folder, folder, 1000, 300, 300)  # windows that do not overlap, and a short one at the end
        self.same(folder, folder, 601, 300, 299)

    @needs_smollm2
    @needs_shared
    def test_smollm2(self):
        folder = reference_folder(reference.SMOLLM2)
        self.same(reference.SMOLLM2, folder, 300, 200, 100, DROP, SITES)

    @slow
    @needs_smollm2
    @needs_shared
    def test_smollm2_at_length(self):
        folder = reference_folder(reference.SMOLLM2)
        self.same(folder, folder, 2048, 512, 256, whole_text=True)
        self.same(folder, folder, 2048, 512, 256, DROP, SITES, whole_text=True)


if __name__ == "__main__":
    reference.main()
