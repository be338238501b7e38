// The processes that train together. One process alone is a group of one, and every call is then free.
// Collectives must be called by all ranks in the same order. Throws Error, within the group's timeout, when a
// rank went away or stopped answering; the group is of no use after that.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lamina/tensor/tensor.h"

namespace lamina {

class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual int local_rank() const { return 0; }  // among the ranks of this machine: which accelerator to take
  virtual void broadcast(Tensor& tensor, int root) = 0;          // in place
  virtual void sum(Tensor& tensor) = 0;                          // in place, over ranks
  virtual std::vector<Tensor> gather(const Tensor& tensor) = 0;  // of any size on each rank, in rank order
  virtual void barrier() = 0;  // waits without limit for ranks that live: one of them may work alone
  // What the ranks are doing, for messages: "step 17, gradients".
  virtual void at(std::string doing) { doing_ = std::move(doing); }
  const std::string& doing() const { return doing_; }

  // Sums the gradients of `leaves` over the ranks while backward still runs: arm before the last
  // micro-batch's backward, wait after it, and call nothing else of the group in between. Buckets in reverse
  // order, the first small, so that it leaves early; gradients are views of the buckets. A leaf that got no
  // gradient by then is an Error that names it.
  class Gradients {
   public:
    virtual ~Gradients() = default;
    virtual void arm() = 0;
    virtual void wait() = 0;
  };
  virtual std::unique_ptr<Gradients> gradients(std::vector<std::pair<std::string, Tensor>> leaves) = 0;

  // This rank is about to end because of `sentence`: the others' messages then say so.
  virtual void give_up(const std::string& /*sentence*/) {}

 private:
  std::string doing_;
};

// The group of one.
std::unique_ptr<Group> alone();

struct GroupOptions {
  std::chrono::seconds timeout{1800};
  std::chrono::seconds arrival{60};  // for all ranks to be there
  std::string interface = {};        // of the network; empty: as GLOO_SOCKET_IFNAME says, else found
  std::string ranks = {};            // "slurm": rank and size from Slurm's variables
};
// From what torchrun sets (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, TORCHELASTIC_...); `alone` when none
// of it is set. Throws Error for variables that are half set or no numbers, and when a rank does not arrive.
std::unique_ptr<Group> join(const GroupOptions& options);

// Everyone's `fields` (digests of model, data, options) must be the same: throws Error that names the rank
// that differs and what differs there.
void agree(Group& group, const std::map<std::string, std::string>& fields);

// For the command line: joins, does `work` as one of the ranks and waits for the others at the end. Ranks
// other than 0 have no standard output. When `work` throws in a group of several, `leave`; alone, what it
// throws passes through.
int together(const GroupOptions& options, const std::function<int(Group&)>& work);

// Says "lamina: rank 3: ..." on standard error, tells the launcher and the other ranks, and ends the process
// with status 71, at once and without destructors: those of a broken group may wait for ranks that are gone.
[[noreturn]] void leave(Group& group, const std::exception& error);

}  // namespace lamina
