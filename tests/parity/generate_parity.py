"""Greedy text: the ids that `lamina generate` and transformers' generate give on the same folder in float32, plain and
through the chat template."""

import json
import shutil

import reference
import torch
from reference import Parity, needs_shared, needs_smollm2, open_reference, reference_folder, run, silence, slow
from transformers import AutoTokenizer

PROMPTS = ["The capital of France is", "def fibonacci(n):\n    ", "Es war einmal ein König, der"]
QUESTIONS = ["What is the capital of France?", "Name three primary colours."]


class Greedy(Parity):
    def greedy(self, folder, model, ids, tokens):
        """New ids without the one that ends the text, as lamina reports them, and by how little each was chosen."""
        answer = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
                                max_new_tokens=tokens, output_logits=True, return_dict_in_generate=True, num_beams=1,
                                repetition_penalty=1.0)
        new = answer.sequences[0, len(ids):].tolist()
        margins = [(top[0, 0] - top[0, 1]).item() for top in (row.topk(2).values for row in answer.logits)]
        if new and new[-1] == model.config.eos_token_id:
            new.pop()
        return new, margins

    def same(self, folder, model, tokenizer, prompt, tokens, *options, model_path=None):
        chat = "--chat" in options
        if chat:
            ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True,
                                                return_dict=False)
        else:
            ids = tokenizer(prompt)["input_ids"]
        expected, margins = self.greedy(folder, model, ids, tokens)
        answer = json.loads(run("generate", model_path or folder, "-p", prompt, "--tokens", tokens, "--json", *options))
        self.assertEqual(answer["prompt_tokens"], len(ids), prompt)
        agreed = next((i for i, (a, b) in enumerate(zip(answer["ids"], expected)) if a != b), len(expected))
        self.assertEqual(answer["ids"], expected, f"{prompt!r} from token {agreed}, margin {margins[min(agreed, len(margins) - 1)]:.2g}")
        self.assertEqual(answer["text"], tokenizer.decode(expected, skip_special_tokens=True), prompt)
        print(f"{prompt!r}: {len(expected)} tokens, narrowest margin {min(margins):.2g}: {answer['text']!r}")

    @needs_shared
    def test_stories(self):
        folder = reference_folder(reference.STORIES)
        model, tokenizer = open_reference(folder, torch.float32), AutoTokenizer.from_pretrained(folder)
        for path in (folder, reference.STORIES):
            for prompt in ("Once upon a time", "Lily and Ben"):
                self.same(folder, model, tokenizer, prompt, 60, model_path=path)
        self.same(folder, model, tokenizer, "The little dog", 30, "--no-cache")

    @needs_shared
    def test_narrow_weights(self):
        """Weights of 16 bits stay so in memory while lamina generates; transformers widens them first."""
        folder = reference_folder(reference.STORIES)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for dtype in (torch.bfloat16, torch.float16):
            narrow = self.folder / str(dtype)
            open_reference(folder, dtype).save_pretrained(narrow)
            for file in folder.glob("tokenizer*"):
                shutil.copy(file, narrow)
            self.same(narrow, open_reference(narrow, torch.float32), tokenizer, "Once upon a time", 60)

    @needs_smollm2
    def test_smollm2(self):
        folder = reference_folder(reference.SMOLLM2)
        model, tokenizer = open_reference(folder, torch.float32), AutoTokenizer.from_pretrained(folder)
        self.same(folder, model, tokenizer, PROMPTS[0], 12)
        self.same(folder, model, tokenizer, QUESTIONS[0], 16, "--chat", model_path=reference.SMOLLM2)
        silence(model, [(12, "attention"), (20, "mlp")])
        self.same(folder, model, tokenizer, PROMPTS[2], 10, "--skip", "attention:12,mlp:20")

    @slow
    @needs_smollm2
    def test_smollm2_at_length(self):
        folder = reference_folder(reference.SMOLLM2)
        model, tokenizer = open_reference(folder, torch.float32), AutoTokenizer.from_pretrained(folder)
        for prompt in PROMPTS:
            self.same(folder, model, tokenizer, prompt, 64)
        for question in QUESTIONS:
            self.same(folder, model, tokenizer, question, 64, "--chat")


if __name__ == "__main__":
    reference.main()
