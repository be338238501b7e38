"""One process of PyTorch + transformers (+ peft) that tags or learns to tag: what lamina's taggers are held against.

    bench/tag_reference.py eval FOLDER DATA.conll DTYPE BATCH[,BATCH...]      tags all sentences once with each batch size
    bench/tag_reference.py train FOLDER DATA.conll BATCH                      one epoch, LoRA of rank 16 on q and v

FOLDER is a token classifier; the blocks that its config names in "lamina_unmasked" get masks without causality, the
others causal ones, made once a batch and handed to each layer by a hook. Sentences are sorted by length and padded on
the right. Prints one JSON object.
"""
import itertools
import json
import pathlib
import resource
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "parity"))
from reference import torch, transformers  # noqa: E402


class Masks:
    """What each layer's attention may see, in place of the mask that transformers made."""

    def __init__(self, model, unmasked):
        self.pair = (None, None)  # with causality, without
        for block, layer in enumerate(model.layers):
            right = block in unmasked
            layer.self_attn.is_causal = not right  # what sdpa does without a mask
            layer.self_attn.register_forward_pre_hook(
                lambda module, positional, named, right=right: (positional, {**named, "attention_mask": self.pair[right]}), with_kwargs=True)

    def set(self, stands):
        """stands [batch, tokens]; nothing to hide where all do."""
        if stands.all():
            self.pair = (None, None)
            return
        tokens = stands.shape[1]
        itself = torch.eye(tokens, dtype=torch.bool)
        both = stands[:, None, None].expand(-1, 1, tokens, tokens) | itself
        self.pair = (both & torch.ones(tokens, tokens, dtype=torch.bool).tril(), both)


def sentences(path):
    for empty, lines in itertools.groupby(pathlib.Path(path).read_text().splitlines(), lambda line: not line.strip()):
        if not empty:
            yield [line.split("\t") for line in lines]


def collate(rows, pad):
    longest = max(map(len, rows))
    ids, stands = torch.full((len(rows), longest), pad), torch.zeros(len(rows), longest, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        stands[number, : len(row)] = True
    return ids, stands


def clocks():
    return time.perf_counter(), time.process_time()


def spent(before):
    return {"seconds": time.perf_counter() - before[0], "processor_seconds": time.process_time() - before[1]}


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def tag(model, masks, tokenizer, words, batch):
    """A tag for each word: that of its first token."""
    coded = tokenizer(words, is_split_into_words=True)
    order = sorted(range(len(words)), key=lambda i: len(coded["input_ids"][i]))
    names, tags, padded = model.config.id2label, [["O"] * len(sentence) for sentence in words], 0
    for first in range(0, len(order), batch):
        some = order[first:first + batch]
        ids, stands = collate([coded["input_ids"][i] for i in some], tokenizer.pad_token_id)
        masks.set(stands)
        padded += ids.numel()
        said = model(ids, attention_mask=None if stands.all() else stands.long(), use_cache=False).logits.argmax(-1).tolist()
        for row, i in zip(said, some):
            last = None
            for token, word in enumerate(coded.word_ids(i)):
                if word is not None and word != last:
                    tags[i][word] = names[row[token]]
                last = word
    return tags, {"tokens": sum(map(len, coded["input_ids"])), "padded_tokens": padded}


def main():
    kind, folder, data = sys.argv[1:4]
    dtype = getattr(torch, sys.argv[4]) if kind == "eval" else torch.float32
    config = json.loads(pathlib.Path(folder, "config.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    masks = Masks(model.model, config["lamina_unmasked"])
    rows = list(sentences(data))
    # A space in front of each word, as in running text.
    words = [[" " + word for word, _ in sentence] for sentence in rows]
    if kind == "eval":
        model.eval()
        runs = {}
        with torch.inference_mode():
            tag(model, masks, tokenizer, words[:32], 32)  # warm
            for batch in map(int, sys.argv[5].split(",")):
                before = clocks()
                tags, counts = tag(model, masks, tokenizer, words, batch)
                runs[batch] = spent(before) | counts
        print(json.dumps({"runs": runs, "peak_mb": peak_mb(), "tags": tags}))
        return

    import peft

    torch.set_grad_enabled(True)
    batch = int(sys.argv[4])
    classes = {label: number for number, label in model.config.id2label.items()}
    model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, task_type="TOKEN_CLS",
                                                       target_modules=["q_proj", "v_proj"]))
    model.train()
    leaves = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(leaves, lr=2e-4, weight_decay=0.1, fused=True)
    coded = tokenizer(words, is_split_into_words=True)
    order = sorted(range(len(words)), key=lambda i: len(coded["input_ids"][i]))
    used, losses, tokens = [], [], 0
    for first in range(0, len(order), batch):
        before, some = clocks(), order[first:first + batch]
        ids, stands = collate([coded["input_ids"][i] for i in some], tokenizer.pad_token_id)
        targets = torch.full_like(ids, -100)
        for number, i in enumerate(some):
            last = None
            for token, word in enumerate(coded.word_ids(i)):
                if word is not None and word != last:
                    targets[number, token] = classes[rows[i][word][1]]
                last = word
        masks.set(stands)
        loss = model(input_ids=ids, attention_mask=None if stands.all() else stands.long(), labels=targets, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        used.append(spent(before))
        tokens += ids.numel()
    print(json.dumps({"steps": used, "losses": losses, "padded_tokens": tokens, "learnt": sum(weight.numel() for weight in leaves),
                      "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
