"""One process of PyTorch + transformers (+ peft) that trains: what lamina's training step is held against.

    bench/train_reference.py FOLDER full|lora STEPS SAMPLES.safetensors [--fused]

Prints one JSON object: seconds of each step by wall and by processor, losses, and the peak resident memory.
"""
import json
import pathlib
import resource
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "parity"))
from reference import load_file, torch, transformers  # noqa: E402

folder, kind, steps, samples = sys.argv[1:5]
batch = 4
torch.set_grad_enabled(True)
ids = load_file(samples)["input_ids"]
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
model.train()
if kind == "lora":
    import peft

    model = peft.get_peft_model(model, peft.LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))
leaves = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(leaves, lr=5e-5, weight_decay=0.01, fused="--fused" in sys.argv)
wall, processor, losses = [], [], []
for step in range(int(steps)):
    rows = ids[step * batch:(step + 1) * batch]
    started, used = time.perf_counter(), time.process_time()
    loss = model(input_ids=rows, labels=rows, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(leaves, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(loss.item())
    wall.append(time.perf_counter() - started)
    processor.append(time.process_time() - used)
print(json.dumps({"wall": wall, "processor": processor, "losses": losses,
                  "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
