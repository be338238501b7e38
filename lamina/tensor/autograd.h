// The only door to autograd's own headers: functions with a gradient written by hand, and backward itself.
#pragma once

#include "lamina/tensor/tensor.h"
//
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
