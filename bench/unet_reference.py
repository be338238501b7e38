"""A pass of diffusers' U-Net, as tests/parity/unet_forward.cpp makes it of lamina's: MODEL INPUTS OUTPUT PASSES. In a process of its own, so that
its peak of memory is its own."""
import json
import sys
import time

import torch
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
torch.set_grad_enabled(False)


def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))


def main(model, inputs, output, passes):
    import diffusers
    empty = status("VmRSS")
    net = diffusers.UNet2DConditionModel.from_pretrained(model, torch_dtype=torch.float32).eval()
    given = load_file(inputs)
    added = {name: given[name] for name in ("text_embeds", "time_ids") if name in given}
    seconds, processor = [], []
    for _ in range(int(passes)):
        started, used = time.perf_counter(), time.process_time()
        prediction = net(given["sample"], given["time"], given["text"], added_cond_kwargs=added).sample
        seconds.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    save_file({"prediction": prediction}, output)
    print(json.dumps({"seconds": seconds, "processor_seconds": processor, "empty_bytes": empty, "peak_bytes": status("VmHWM")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
