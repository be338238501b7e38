// Products in bfloat16 for as long as the value lives, as torch.autocast has it: operators choose their own
// type, weights stay as they are.
#pragma once

#include "lamina/tensor/autograd.h"

namespace lamina {

class Autocast {
 public:
  Autocast(at::DeviceType device, bool on)
      : device_(device),
        before_(at::autocast::is_autocast_enabled(device)),
        type_(at::autocast::get_autocast_dtype(device)) {
    at::autocast::set_autocast_enabled(device_, on);
    if (on) at::autocast::set_autocast_dtype(device_, at::kBFloat16);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    // Narrow copies of weights are kept until the outermost pass ends.
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_dtype(device_, type_);
    at::autocast::set_autocast_enabled(device_, before_);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;
  static bool on(at::DeviceType device) { return at::autocast::is_autocast_enabled(device); }

 private:
  at::DeviceType device_;
  bool before_;
  at::ScalarType type_;
};

}  // namespace lamina
