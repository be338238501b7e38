// A model is a walk over its parts. `begin` makes the stream from the inputs, `step` carries it over one
// part, `finish` reads logits from it; `run` is the three in a row. All state between two parts is in the
// Stream, a value: keep a copy before a part and another pass can start from there, exactly.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lamina/blueprint/blueprint.h"
#include "lamina/checkpoint/checkpoint.h"
#include "lamina/nn/attention.h"
#include "lamina/nn/linear.h"
#include "lamina/nn/norm.h"
#include "lamina/plan/plan.h"
#include "lamina/tensor/tensor.h"

namespace lamina {

// Keys and values that earlier tokens left, one entry a part; parts without attention hold none.
struct Cache {
  struct Entry {
    Tensor keys, values;  // [batch, groups, tokens, head_dim]
  };
  std::vector<Entry> entries;
  int64_t tokens = 0;
};

struct Inputs {
  Tensor ids = {};                     // [batch, tokens] int64
  std::optional<Tensor> padding = {};  // [batch, tokens] bool, true where a token stands
  std::optional<Cache> cache = {};     // what came before; an empty Cache starts one
  // Of a denoiser instead:
  Tensor sample = {};  // [batch, channels, height, width]
  Tensor time = {};    // [batch] timesteps, floating
  Tensor text = {};    // [batch, tokens, width]: what cross-attention reads
  // SDXL's: "text_embeds" [batch, width] and "time_ids" [batch, 6].
  std::map<std::string, Tensor> added = {};
};

struct Stream {
  Tensor x;  // [batch, tokens, width]; of a U-Net [batch, channels, height, width]
  std::map<std::string, Tensor> shared;  // what the family computes once a pass (rotary tables, time, text)
  std::optional<Tensor> padding;
  std::optional<Cache> cache;
  // What later parts take up again, the last put there first: the skips of a U-Net, the residual around a
  // transformer.
  std::vector<Tensor> stack = {};
};

// What attention did in one part. weights(queries, keys, options) gives where each head looked; `out` applied
// to from_heads of `mixed`, zeroed but for one head and without its bias, is what that head writes.
struct Heads {
  Tensor queries, keys, mixed;  // [batch, heads or groups, tokens, head_dim]
  AttendOptions options;
  const Linear& out;
};

// A self-attention over a map of tokens, as it finds it in a part: x are the normed tokens in rows of
// `width`.
struct MapQuery {
  const Tensor& x;  // [batch, height * width, channels]
  const Linear &q, &k, &v;
  int64_t heads = 1, height = 0, width = 0;
};
// Another way for tokens of a map to look at each other. What it gives, [batch, height * width, channels],
// goes through the part's output projection.
class MapAttention {
 public:
  virtual ~MapAttention() = default;
  virtual Tensor operator()(const MapQuery& query) const = 0;
};

// What one pass may see, skip or replace. The default does nothing.
class Tap {
 public:
  virtual ~Tap() = default;
  virtual bool skips(Site) const { return false; }
  // Called after a part that ran: the residual before and after it; behind a shortcut, if there is one.
  virtual void saw(Site, const Tensor& /*before*/, const Tensor& /*after*/) {}
  // What a part is to add to the residual in place of running (what it added in an earlier pass); null: it
  // runs.
  virtual const Tensor* stands_in(Site) const { return nullptr; }
  // Called where a stage of a U-Net ends, behind its sampler.
  virtual void saw_stage(int /*of Blueprint::stages*/, const Tensor& /*x*/) {}
  // Called behind what stands between parts and changes the residual: a sampler, the way out of a transformer
  // of several blocks.
  virtual void saw_between(std::string_view /*path*/, const Tensor& /*x*/) {}
  // Parts of a U-Net whose convolutions and linear maps this pass sees (Site{}: those between parts and
  // behind them): `saw_map` is called with what each reads and gives, by its path.
  virtual bool reads_maps(Site) const { return false; }
  virtual void saw_map(Site, std::string_view /*path*/, const Tensor& /*in*/, const Tensor& /*out*/) {}
  // How the self-attention of a U-Net's part is made in this pass; null: as the checkpoint has it.
  virtual const MapAttention* map_attention(Site) const { return nullptr; }
  // Parts whose neurons this pass reads or replaces: `neurons` is then called at each place the part has, in
  // the order gate, linear, post, with values [batch, tokens, neurons]; the pass goes on with what it
  // returns.
  virtual bool reads_neurons(Site) const { return false; }
  virtual Tensor neurons(Site, NeuronPlace, const Tensor& values) { return values; }
  // Parts whose norm this pass reads or replaces (Site{}: the last norm): `norm` is then called once for each
  // reader, and that reader goes on with what it returns.
  virtual bool reads_norm(Site) const { return false; }
  virtual Tensor norm(const NormPath&, const Norm& norm, const Tensor& x) { return norm(x); }
  // Parts with attention whose heads this pass sees.
  virtual bool reads_heads(Site) const { return false; }
  virtual void saw_heads(Site, const Heads&) {}
  // Attentions that look right in this pass, beside those that the model has.
  virtual bool unmasks(Site) const { return false; }
  // Called before the last norm and after it: "before_norm", "after_norm".
  virtual void saw_end(const Tensor& /*residual*/, const Tensor& /*normed*/) {}
};

// Skips a set of parts: the preview of a plan.
class Skip : public Tap {
 public:
  explicit Skip(const Blueprint& blueprint) : skipped_(blueprint.parts.size()) {}
  Skip(const Blueprint& blueprint, const Plan& plan) : Skip(blueprint) {
    for (Site site : removed_sites(plan, blueprint)) add(site);
  }
  void add(Site site) { skipped_[static_cast<size_t>(site.index)] = true; }
  void remove(Site site) { skipped_[static_cast<size_t>(site.index)] = false; }
  bool skips(Site site) const override { return skipped_[static_cast<size_t>(site.index)]; }

 private:
  std::vector<bool> skipped_;
};

// Unmasks attentions: the preview of a plan's Unmask edits.
class Unmasking : public Tap {
 public:
  // Throws Error when the plan does not fit the model.
  Unmasking(const Blueprint& blueprint, const Plan& plan);
  bool unmasks(Site site) const override { return unmasked_[static_cast<size_t>(site.index)]; }

 private:
  std::vector<bool> unmasked_;
};

class Model {
 public:
  virtual ~Model() = default;
  const Blueprint& blueprint() const { return blueprint_; }
  at::ScalarType dtype() const { return dtype_; }

  virtual Stream begin(const Inputs& inputs) const = 0;
  // x <- x + f(x) for the part at `site`; nothing when it is absent or skipped.
  virtual void step(Stream& stream, Site site, Tap& tap) const = 0;
  // What the last map reads: the normed residual, [batch, tokens, width] or [batch, channels, height, width].
  virtual Tensor read_out(const Stream& stream, Tap& tap) const = 0;
  const Linear& head() const { return head_; }

  virtual Tensor finish(const Stream& stream, Tap& tap) const { return head_(read_out(stream, tap)); }
  // Logits, [batch, tokens, vocabulary]; of a denoiser what it predicts, [batch, channels, height, width].
  Tensor run(const Inputs& inputs, Tap& tap) const;
  Tensor run(const Inputs& inputs) const;

 protected:
  Model(Blueprint blueprint, at::ScalarType dtype) : blueprint_(std::move(blueprint)), dtype_(dtype) {}
  Linear head_;

 private:
  Blueprint blueprint_;
  at::ScalarType dtype_;
};

// Whether an attention masks what stands to the right in this pass. Throws Error where it does not and a
// cache is asked for: keys and values would change with every token that comes.
bool looks_left(bool causal, const Tap& tap, Site site, const Cache::Entry* cached);

// Throws Error unless the model says next tokens from those before: a token classifier does not, nor does a
// model with a block that looks right.
void check_speaks(const Blueprint& blueprint, std::string_view what);

// A norm as a part asks for it: through the pass's tap where that wants it. An absent one is the identity.
class NormTaps {
 public:
  NormTaps(const std::optional<Norm>& norm, Tap& tap, Site site)
      : norm_(norm), tap_(tap), site_(site), read_(norm.has_value() && tap.reads_norm(site)) {}
  bool any() const { return read_; }  // readers may then differ in what they get
  Tensor operator()(Reader reader, const Tensor& x) const {
    return read_ ? tap_.norm({site_, reader}, *norm_, x) : norm_ ? (*norm_)(x) : x;
  }

 private:
  const std::optional<Norm>& norm_;
  Tap& tap_;
  Site site_;
  bool read_;
};

// Weights by name for a family's builder: every slot is taken once, as the type the model computes in.
class Weights {
 public:
  struct Options {
    at::ScalarType dtype = at::kFloat;  // of the arithmetic
    bool keep_narrow = false;  // leave bfloat16 and float16 matrices as they are; they are widened when used
    // In place of the checkpoint's numbers, by tensor name: what is being trained, of type `dtype`. The model
    // holds these very tensors, so that what an optimizer writes into them is what it computes with.
    std::map<std::string, Tensor> trained = {};
    std::map<std::string, LowRank> low_rank = {};  // by path of the linear map
    // Linear maps packed for products of this type (Linear::packed).
    std::optional<at::ScalarType> packed = {};
  };
  Weights(const Checkpoint& checkpoint, Options options)
      : checkpoint_(checkpoint), options_(std::move(options)) {}
  Tensor matrix(const std::string& name) const;
  Tensor vector(const std::string& name) const;
  Tensor vector_or_none(const std::string& name) const;  // undefined when the checkpoint has none
  Linear linear(const std::string& path) const;          // path.weight, path.bias if there is one
  Linear linear_in_out(const std::string& path) const;   // stored [in, out]
  at::ScalarType dtype() const { return options_.dtype; }

 private:
  const Stored& at(const std::string& name) const;
  Linear plain(const std::string& path) const;
  const Checkpoint& checkpoint_;
  Options options_;
};

}  // namespace lamina
