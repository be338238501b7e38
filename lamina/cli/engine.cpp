// The door of liblamina.so for the binary: the verbs that compute.
#include <cstdio>
#include <string_view>

#include "lamina/base/bus_error.h"
#include "lamina/cli/apply.h"
#include "lamina/cli/cli.h"
#include "lamina/tensor/tensor.h"

namespace lamina::cli {

namespace {

constexpr Verb kVerbs[] = {
    {"prune", "", run_prune},
    {"heal", "", run_heal},
    {"apply", "", run_apply_folding},
    {"repair", "", run_repair},
    {"train", "", run_train},
    {"scenes", "", run_scenes},
    {"denorm", "", run_denorm},
    {"eval", "", run_eval},
    {"analyse", "", run_analyse},
    {"generate", "", run_generate},
    {"draw", "", run_draw},
    {"forward", "", run_forward},
    {"tag train", "", run_tag_train},
    {"tag eval", "", run_tag_eval},
    {"tag predict", "", run_tag_predict},
    {"verify", "", run_verify},
    {"neurons map", "", run_neurons_map},
    {"neurons clamp", "", run_neurons_clamp},
    {"neurons erase", "", run_neurons_erase},
    {"neurons undo", "", run_neurons_undo},
    {"neurons serve", "", run_neurons_serve},
};

}  // namespace

extern "C" __attribute__((visibility("default"))) int lamina_run_verb(const char* name, int argc,
                                                                      char** argv) {
  explain_bus_errors();  // this library maps files of its own
  for (const Verb& verb : kVerbs) {
    if (std::string_view(name) == verb.name) {
      return guarded([&] { return verb.run(argc, argv); },
                     [](const std::exception& error) { return message_of(error); });
    }
  }
  return Status::usage;
}

}  // namespace lamina::cli
