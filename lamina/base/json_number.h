// Numbers that may be none, written as JSON: it knows neither NaN nor infinity, so both are null.
#pragma once

#include <cmath>

#include "lamina/base/json.h"

namespace lamina {

inline Json number_or_null(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

}  // namespace lamina
