// `lamina heal` of a pipeline: its denoiser learns from pictures, from a teacher, or from both.
#pragma once

namespace lamina::cli {

// Whether one of the arguments is a pipeline's folder.
bool heals_pipeline(int argc, char** argv);
int run_heal_pipeline(int argc, char** argv);

}  // namespace lamina::cli
