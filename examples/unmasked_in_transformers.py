"""A partly unmasked tagger in transformers: python unmasked_in_transformers.py FOLDER "Some words to tag ."

transformers has no per-layer masks, so that `lamina_unmasked` of config.json is given to the layers here: each gets the mask of its own kind.
Needs torch, transformers, tokenizers, safetensors.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForTokenClassification


def open_tagger(folder):
    raw = json.loads((pathlib.Path(folder) / "config.json").read_text())
    unmasked = set(raw.pop("lamina_unmasked", []))
    raw["model_type"] = raw["model_type"].removeprefix("lamina_")
    config = AutoConfig.for_model(**raw)
    model = AutoModelForTokenClassification.from_config(config, attn_implementation="eager").eval()
    state = {}
    for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
        state.update(load_file(file))
    model.load_state_dict({name: value.to(torch.float32) for name, value in state.items()}, strict=True)

    def both_ways(_, arguments, keywords):
        keywords["attention_mask"] = model.both_ways
        return arguments, keywords

    for block in unmasked:  # for the GPT-2 family: model.transformer.h[block].attn
        model.model.layers[block].self_attn.register_forward_pre_hook(both_ways, with_kwargs=True)
    return model


def tag(model, ids, attention_mask):
    # Added to the scores: nothing where a token stands, minus infinity where none does.
    model.both_ways = torch.where(attention_mask.bool(), 0.0, torch.finfo(torch.float32).min)[:, None, None, :]
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=attention_mask).logits.argmax(-1)


if __name__ == "__main__":
    folder, words = sys.argv[1], sys.argv[2].split()
    tokenizer, tagger = Tokenizer.from_file(f"{folder}/tokenizer.json"), open_tagger(folder)
    # A word is tagged at its first token, with a space in front, as `lamina tag` feeds it; the beginning of a text, where the tokenizer has one, stands first.
    alone, begun = tokenizer.encode("x", add_special_tokens=False).ids, tokenizer.encode("x").ids
    pieces = [begun[:begun.index(alone[0])], *(tokenizer.encode(" " + word, add_special_tokens=False).ids for word in words)]
    ids = torch.tensor([sum(pieces, [])])
    said = tag(tagger, ids, torch.ones_like(ids))[0]
    starts = [sum(map(len, pieces[:i])) for i in range(1, len(pieces))]
    for word, at in zip(words, starts):
        print(word, tagger.config.id2label[int(said[at])], sep="\t")
