#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <mutex>
#include <optional>

#include "lamina/base/error.h"
#include "lamina/heal/impl/buckets.h"

namespace lamina {

namespace {

constexpr int64_t kFirst = int64_t{1} << 20, kLater = int64_t{25} << 20;  // bytes

class Buckets final : public Group::Gradients {
 public:
  Buckets(std::vector<std::pair<std::string, Tensor>> leaves, StartSum start) : start_(std::move(start)) {
    // Backward fills gradients from the last to the first.
    for (auto leaf = leaves.rbegin(); leaf != leaves.rend(); ++leaf) {
      leaves_.push_back({.name = leaf->first, .tensor = leaf->second});
    }
    fill();
    for (size_t i = 0; i < leaves_.size(); ++i) {
      torch::autograd::impl::set_post_acc_grad_hooks(leaves_[i].tensor, std::make_unique<Hook>(*this, i));
    }
  }

  ~Buckets() override {
    for (const Leaf& leaf : leaves_) {
      torch::autograd::impl::set_post_acc_grad_hooks(leaf.tensor, nullptr);
    }
  }

  void arm() override {
    const c10::InferenceMode plain(false);
    const at::NoGradGuard no_gradients;
    for (Leaf& leaf : leaves_) {
      // Whoever zeroes gradients may have dropped them.
      Tensor& gradient = leaf.tensor.mutable_grad();
      if (!gradient.defined()) {
        leaf.view.zero_();
      } else if (!gradient.is_same(leaf.view)) {
        leaf.view.copy_(gradient);
      }
      gradient = leaf.view;
      leaf.fired = 0;
    }
    for (Bucket& bucket : buckets_) bucket.waiting = bucket.leaves;
    next_ = 0;
    pending_.clear();
    problem_.clear();
    armed_ = true;
  }

  void wait() override {
    const std::lock_guard lock(mutex_);
    armed_ = false;
    for (const Leaf& leaf : leaves_) {
      if (leaf.fired == 0) fail("{} got no gradient; freeze it, or see that the loss reads it", leaf.name);
    }
    if (!problem_.empty()) fail("{}", problem_);
    while (next_ < buckets_.size()) launch();
    for (const auto& sum : pending_) sum();
    pending_.clear();
    for (Leaf& leaf : leaves_) leaf.expected = leaf.fired;
  }

 private:
  struct Leaf {
    std::string name;
    Tensor tensor;
    Tensor view = {};
    size_t bucket = 0;
    // A leaf that is read both inside and outside of a part that runs again in backward gets its gradient in
    // several pieces. How many is known after the first step, which therefore sums at its end.
    int fired = 0;
    std::optional<int> expected = {};
  };
  struct Bucket {
    Tensor flat;
    int64_t leaves = 0;
    int64_t waiting = 0;
  };

  struct Hook final : torch::autograd::PostAccumulateGradHook {
    Hook(Buckets& of, size_t leaf) : buckets(&of), index(leaf) {}
    void operator()(const torch::autograd::Variable&) override { buckets->fired(index); }
    Buckets* buckets;
    size_t index;
  };

  void fill() {
    const c10::InferenceMode plain(false);
    size_t begin = 0;
    while (begin < leaves_.size()) {
      const Tensor& first = leaves_[begin].tensor;
      const int64_t limit = (buckets_.empty() ? kFirst : kLater) / first.element_size();
      size_t end = begin;
      int64_t numbers = 0;
      const auto fits = [&](const Tensor& tensor) {
        return end == begin || (numbers + tensor.numel() <= limit && tensor.dtype() == first.dtype() &&
                                tensor.device() == first.device());
      };
      while (end < leaves_.size() && fits(leaves_[end].tensor)) numbers += leaves_[end++].tensor.numel();
      Bucket bucket{.flat = at::zeros({numbers}, first.options().requires_grad(false)),
                    .leaves = int64_t(end - begin)};
      int64_t at = 0;
      for (size_t i = begin; i < end; ++i) {
        Leaf& leaf = leaves_[i];
        leaf.view = bucket.flat.narrow(0, at, leaf.tensor.numel()).view(leaf.tensor.sizes());
        leaf.bucket = buckets_.size();
        at += leaf.tensor.numel();
      }
      buckets_.push_back(std::move(bucket));
      begin = end;
    }
  }

  // On the thread of backward, where nothing may be thrown: a rank that skipped its sums would hang the rest.
  void fired(size_t index) {
    const std::lock_guard lock(mutex_);
    if (!armed_) return;
    Leaf& leaf = leaves_[index];
    ++leaf.fired;
    if (!leaf.tensor.grad().is_same(leaf.view)) {
      problem_ = leaf.name + " was given another gradient tensor in backward";
    } else if (leaf.bucket < next_) {
      problem_ = leaf.name + " got a part of its gradient after the ranks had begun to sum it";
    } else if (leaf.expected && leaf.fired == *leaf.expected) {
      --buckets_[leaf.bucket].waiting;
    }
    // In the order of the buckets, which is the same on every rank.
    while (next_ < buckets_.size() && buckets_[next_].waiting == 0) launch();
  }

  void launch() { pending_.push_back(start_(buckets_[next_++].flat)); }

  StartSum start_;
  std::vector<Leaf> leaves_;
  std::vector<Bucket> buckets_;
  std::mutex mutex_;
  bool armed_ = false;
  size_t next_ = 0;  // the bucket to be launched next
  std::vector<std::function<void()>> pending_;
  std::string problem_;
};

}  // namespace

std::unique_ptr<Group::Gradients> buckets(std::vector<std::pair<std::string, Tensor>> leaves,
                                          StartSum start) {
  return std::make_unique<Buckets>(std::move(leaves), std::move(start));
}

}  // namespace lamina
