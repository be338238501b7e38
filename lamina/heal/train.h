// The one training loop: AdamW on a schedule, gradient accumulation, clipping, checkpoints from which a
// killed run goes on bit for bit, data parallelism over a Group.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lamina/base/progress.h"
#include "lamina/heal/batches.h"
#include "lamina/heal/group.h"
#include "lamina/heal/hook.h"
#include "lamina/heal/objective.h"
#include "lamina/heal/student.h"

namespace lamina {

enum class Schedule { constant, linear, cosine };
std::string_view schedule_name(Schedule schedule);
Schedule schedule_from_name(std::string_view name);  // throws Error that lists them

struct TrainOptions {
  int64_t steps = 100;
  int64_t batch = 8;       // samples in a micro-batch
  int64_t accumulate = 1;  // micro-batches in an optimizer step, over all ranks together
  Schedule schedule = Schedule::cosine;
  double learning_rate = 5e-4;
  double minimum_rate = 0;     // the floor of the schedule, an absolute rate
  int64_t warmup = 0;          // steps of linear rise
  int64_t schedule_steps = 0;  // steps after which the floor is reached; 0: `steps`
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0.01;  // decoupled (Loshchilov and Hutter, 2019)
  double clip = 1;             // largest norm of the gradient; 0: none
  bool gradient_checkpointing = false;
  std::string autocast = "";  // "bfloat16": products in bfloat16, weights and sums in float32
  uint64_t seed = 0;

  int64_t evaluate_every = 0;  // steps; 0: at the end alone
  int64_t checkpoint_every = 50;
  std::filesystem::path state = {};  // folder for checkpoints; empty: none are written
  bool resume = false;               // from the newest whole checkpoint in `state`

  template <class V>
  void fields(V& visit);
};

// The rate at step 1, 2, ...: linear from 0 over the warm-up, then down to the floor and there to stay; the
// cosine of transformers' get_cosine_with_min_lr_schedule_with_warmup, at step s of its count from 0.
double learning_rate_at(const TrainOptions& options, int64_t step);

struct Evaluation {
  int64_t step = 0;
  double loss = 0;  // the objective's measure, a target that counts
  int64_t positions = 0;
};

struct Trained {
  std::vector<StepRecord> curve;  // of the whole run, resumed parts included
  std::vector<Evaluation> evaluations;
  int64_t resumed_from = 0;  // steps that an earlier process had done
  // Not a number came up at this step: weights are those of the last step that was whole. 0: it did not.
  int64_t broke_at = 0;
  std::string broke_on = {};            // "the loss", "the gradient of model.layers.3..."
  std::vector<std::string> notes = {};  // "checkpoint step-50 is damaged (...); step-25 was taken"
};

struct TrainData {
  const Batches& train;
  const Batches* validation = nullptr;
  int64_t validation_samples = 0;  // the first so many; 0: all
};

// Throws Error when `state` holds a run of other options, data or model (naming what differs), Stopped after
// writing a checkpoint when asked to stop. The number of steps is no part of what a run is, so that one with
// `schedule_steps` given can be made longer; nor are ranks, evaluations and checkpoints. A damaged checkpoint
// is passed over for the one before it, with a note.
Trained train(Student& student, const Objective& objective, const TrainData& data,
              const TrainOptions& options, Hook& hook, Group& group, const Watch& watch = {},
              const std::function<void(const StepRecord&)>& on_step = {});

// Mean cross-entropy over the first `samples` of `data` (0: all), without gradients.
Evaluation evaluate(const Model& model, const Batches& data, int64_t samples, int64_t batch, Tap& tap);
// Mean of what `objective` measures, on the device where the model is.
struct EvaluateOptions {
  int64_t samples = 0;  // the first so many; 0: all
  int64_t batch = 8;
  at::Device device = at::kCPU;
};
Evaluation evaluate(const Model& model, const Objective& objective, const Batches& data,
                    const EvaluateOptions& options, Tap& tap);

template <class V>
void TrainOptions::fields(V& visit) {
  visit(steps, "steps", "optimizer steps");
  visit(batch, "batch", "samples in a micro-batch");
  visit(accumulate, "accumulate", "micro-batches in a step, over all ranks together");
  visit(learning_rate, "lr", "largest learning rate");
  visit(minimum_rate, "min-lr", "floor of the schedule");
  visit(warmup, "warmup", "steps of linear rise");
  visit(schedule_steps, "schedule-steps", "steps after which the floor is reached; 0: --steps");
  visit(beta1, "beta1", "AdamW");
  visit(beta2, "beta2", "AdamW");
  visit(epsilon, "epsilon", "AdamW");
  visit(weight_decay, "weight-decay", "decoupled, AdamW");
  visit(clip, "clip", "largest norm of the gradient; 0: none");
  visit(gradient_checkpointing, "gradient-checkpointing",
        "run parts again in backward: less memory, a third more time");
  visit(autocast, "autocast", "bfloat16: products in bfloat16");
  visit(seed, "seed", "of the order of the data and of adapters");
  visit(evaluate_every, "evaluate-every",
        "steps between two looks at the validation text; 0: at the end alone");
  visit(checkpoint_every, "checkpoint-every", "steps between two checkpoints");
}

}  // namespace lamina
