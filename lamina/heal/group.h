// The processes that train together. One process alone is a group of one, and every call is then free.
// Collectives must be called by all ranks in the same order. Throws Error, within the group's timeout, when a
// rank went away or stopped answering; the group is of no use after that.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lamina/tensor/tensor.h"

namespace lamina {

class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual void broadcast(Tensor& tensor, int root) = 0;          // in place
  virtual void sum(Tensor& tensor) = 0;                          // in place, over ranks
  virtual std::vector<Tensor> gather(const Tensor& tensor) = 0;  // of any size on each rank, in rank order
  virtual void barrier() = 0;
  // What the ranks are doing, for messages: "step 17, gradients".
  void at(std::string doing) { doing_ = std::move(doing); }
  const std::string& doing() const { return doing_; }

  // Sums the gradients of `leaves` over the ranks while backward still runs: arm before the last
  // micro-batch's backward, wait after it. Buckets in reverse order, the first small, so that it leaves
  // early; gradients are views of the buckets. A leaf that got no gradient by then is an Error that names it.
  class Gradients {
   public:
    virtual ~Gradients() = default;
    virtual void arm() = 0;
    virtual void wait() = 0;
  };
  virtual std::unique_ptr<Gradients> gradients(std::vector<std::pair<std::string, Tensor>> leaves) = 0;

 private:
  std::string doing_;
};

// The group of one.
std::unique_ptr<Group> alone();

struct GroupOptions {
  std::chrono::seconds timeout{1800};
  std::string interface = {};  // of the network; empty: as GLOO_SOCKET_IFNAME says, else found
  std::string ranks = {};      // "slurm": rank and size from Slurm's variables
};
// From what torchrun sets (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, TORCHELASTIC_...); `alone` when none
// of it is set. Throws Error for variables that are half set or no numbers, and when a rank does not arrive.
std::unique_ptr<Group> join(const GroupOptions& options);

// Everyone's `digest` (of model, data, options) must be the same: throws Error that names the rank that
// differs and, of `fields`, what differs there.
void agree(Group& group, const std::map<std::string, std::string>& fields);

}  // namespace lamina
