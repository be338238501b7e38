#!/usr/bin/env python3
"""Writes tests/golden/schedules.json: times, levels and whole ways down of diffusers' schedulers, with a network that says a line.

The betas are diffusers' own float32 ones; from there on everything is made in float64, by putting torch.float64 where the
schedulers say torch.float32. `schedules.py FILE` writes there instead."""
import json
import sys
import warnings
from pathlib import Path

import numpy
import torch

warnings.simplefilter("ignore")
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler  # noqa: E402
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm, scheduling_dpmsolver_multistep  # noqa: E402
from diffusers.utils import logging  # noqa: E402

logging.set_verbosity_error()
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
PLAIN = {**SD, "clip_sample": False}
FULL = (1, 2, 10, 25)
SHORT = (10,)


def cases():
    """(class, config, numbers of steps, eta)"""
    for spacing in ("leading", "trailing", "linspace"):
        yield DDIMScheduler, {**PLAIN, "timestep_spacing": spacing}, FULL, 0
        yield EulerDiscreteScheduler, {**SD, "timestep_spacing": spacing}, FULL, 0
        yield DPMSolverMultistepScheduler, {**SD, "timestep_spacing": spacing}, FULL, 0
        yield PNDMScheduler, {**SD, "skip_prk_steps": True, "timestep_spacing": spacing}, FULL, 0
        yield DDPMScheduler, {**PLAIN, "timestep_spacing": spacing}, SHORT, 0
    for cls in (DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, PNDMScheduler):
        own = {"skip_prk_steps": True} if cls is PNDMScheduler else {}
        yield cls, own, SHORT, 0
        for schedule in ("linear", "squaredcos_cap_v2"):
            yield cls, {**own, "beta_schedule": schedule, "num_train_timesteps": 400}, SHORT, 0
        yield cls, {**own, **PLAIN, "prediction_type": "v_prediction"}, SHORT, 0
        yield cls, {**own, "num_train_timesteps": 12, "trained_betas": [0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.12, 0.2, 0.2, 0.3, 0.4, 0.5]}, (5,), 0
        if cls is not PNDMScheduler:
            yield cls, {**PLAIN, "prediction_type": "sample"}, SHORT, 0
            yield cls, {**PLAIN, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, SHORT, 0
    yield DDIMScheduler, {**PLAIN, "set_alpha_to_one": False}, FULL, 0
    yield DDIMScheduler, {**PLAIN}, FULL, 0.7
    yield DDIMScheduler, {**SD, "clip_sample": True, "clip_sample_range": 0.5}, SHORT, 1
    yield DDIMScheduler, {**SD, "thresholding": True, "dynamic_thresholding_ratio": 0.7, "sample_max_value": 1.5}, SHORT, 0
    yield DDPMScheduler, {**SD}, SHORT, 0
    for variance in ("fixed_small", "fixed_small_log", "fixed_large"):
        yield DDPMScheduler, {**PLAIN, "variance_type": variance, "steps_offset": 0}, FULL, 0
    yield PNDMScheduler, {**SD, "skip_prk_steps": True, "set_alpha_to_one": True}, FULL, 0
    for cls in (EulerDiscreteScheduler, DPMSolverMultistepScheduler):
        for levels in ("use_karras_sigmas", "use_exponential_sigmas"):
            yield cls, {**SD, levels: True}, FULL, 0
        yield cls, {**SD, "final_sigmas_type": "sigma_min"}, FULL, 0
        yield cls, {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}, SHORT, 0
    yield EulerDiscreteScheduler, {**SD, "interpolation_type": "log_linear"}, SHORT, 0
    yield EulerDiscreteScheduler, {**SD, "use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 9.0}, SHORT, 0
    yield EulerDiscreteScheduler, {**SD, "prediction_type": "v_prediction", "timestep_type": "continuous"}, SHORT, 0
    for more in ({"solver_order": 1}, {"solver_type": "heun"}, {"solver_order": 3}, {"lower_order_final": False},
                 {"lower_order_final": False, "final_sigmas_type": "sigma_min"}, {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
                 {"algorithm_type": "sde-dpmsolver++"}, {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
                 {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, {"use_lu_lambdas": True}, {"lambda_min_clipped": -2.0},
                 {"thresholding": True, "dynamic_thresholding_ratio": 0.7, "sample_max_value": 1.5}):
        yield DPMSolverMultistepScheduler, {**SD, **more}, (2, 10, 25), 0


def noise(count):
    """What a solver draws the `count`-th time."""
    return torch.tensor([0.5, -1.0, 0.25, 2.0]).mul(1 - 0.3 * (count % 5)).reshape(1, 1, 2, 2)


def said(x, t):
    return 0.5 * x + 0.1 * numpy.cos(t / 250) - 0.05


def widened(scheduler):
    for name, value in vars(scheduler).items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            setattr(scheduler, name, value.double())


def way_down(scheduler, steps, eta):
    narrow, narrow_numpy, default = torch.float32, numpy.float32, torch.get_default_dtype()
    drawn = [0]

    def draw(*_, **__):
        drawn[0] += 1
        return noise(drawn[0] - 1)

    for module in (scheduling_ddim, scheduling_ddpm, scheduling_dpmsolver_multistep):
        module.randn_tensor = draw
    try:
        widened(scheduler)
        torch.set_default_dtype(torch.float64)
        torch.float32, numpy.float32 = torch.float64, numpy.float64
        scheduler.set_timesteps(steps)
        x = torch.tensor([1.0, -0.5, 0.25, 2.0]).reshape(1, 1, 2, 2) * scheduler.init_noise_sigma
        trail = []
        for t in scheduler.timesteps:
            output = said(scheduler.scale_model_input(x, t), float(t))
            options = {"eta": eta} if eta else {}
            drawn[0] = len(trail)
            x = scheduler.step(output, t, x, **options).prev_sample
            trail.append([float(f"{v:.9g}") for v in x.flatten().tolist()])
        return {"times": [float(f"{float(t):.9g}") for t in scheduler.timesteps], "first_scale": float(scheduler.init_noise_sigma),
                "trail": trail if steps <= 10 else trail[-1:]}
    finally:
        torch.float32, numpy.float32 = narrow, narrow_numpy
        torch.set_default_dtype(default)


def main():
    out = []
    for cls, config, counts, eta in cases():
        for steps in counts:
            scheduler = cls.from_config(dict(config))
            case = {"config": {"_class_name": cls.__name__, **config}, "steps": steps}
            if eta:
                case["config"]["eta"] = eta
            out.append({**case, **way_down(scheduler, steps, eta)})
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".json")
    path.write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in out) + "\n]\n")
    print(f"{len(out)} ways, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
