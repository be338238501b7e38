// The only door to autograd's own headers (functions with a gradient written by hand, backward itself) and to
// the dispatcher, for operators that have no C++ function.
#pragma once

#include "lamina/tensor/tensor.h"
//
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
