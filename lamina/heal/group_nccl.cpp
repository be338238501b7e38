// Gradients between GPUs, built with -DLAMINA_NCCL=ON. Not yet run: see docs/adr/0015.
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "lamina/base/error.h"
#include "lamina/heal/impl/backend.h"

namespace lamina {

Backend nccl_backend(const Store& store, const Place& place, const GroupOptions& options) {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess || version != NCCL_VERSION_CODE) {
    fail(
        "libtorch holds NCCL {} and this program was built for {}; build it again with the nccl.h of this "
        "libtorch",
        version, NCCL_VERSION_CODE);
  }
  const auto how = c10d::ProcessGroupNCCL::Options::create();
  how->timeout = options.timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, place.rank, place.size, how);
}

}  // namespace lamina
