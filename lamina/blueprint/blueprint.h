// What a checkpoint is made of, as data: slots (tensors with named axes) and parts (residual branches that
// can go). A blueprint holds no weights and computes nothing. It is made by an architecture's declaration
// from a config, and every difference between it and a file is an error, so that a truncated checkpoint
// cannot pass for a pruned one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lamina {

// resnet: two convolutions; transformer: self-attention, cross-attention and feed-forward in one.
enum class Kind { attention, mlp, resnet, transformer };
std::string_view kind_name(Kind kind);  // "attention", "mlp", "resnet", "transformer"

// An index into `Blueprint::parts`. Its text form is the part's weight path ("model.layers.7.mlp").
struct Site {
  int index = -1;
  auto operator<=>(const Site&) const = default;
};

// One axis of a tensor. Two slots that name the same axis in the same scope are cut and permuted together:
// `count` units of `unit` consecutive elements each (for "groups" of query heads, one unit is all rows of a
// group). Where several maps are stored as one (q, k and v of GPT-2), all units stand `repeats` times, map
// after map.
struct Axis {
  std::string name;
  int64_t count = 0;
  int64_t unit = 1;
  int64_t repeats = 1;
  int64_t size() const { return repeats * count * unit; }
};

struct Slot {
  std::string name;        // the checkpoint's own tensor name
  std::vector<Axis> axes;  // outermost first
  int part = -1;           // the part it belongs to; -1: outside every part
  int wrapper = -1;        // of `wrappers`, the one it belongs to
  bool silences = false;   // zeroing this tensor silences its part
};

// Where a neuron can be read or replaced; TransformerLens calls the places hook_pre, hook_pre_linear and
// hook_post. For a feed-forward without a gate, `linear` is what goes into the activation function.
enum class NeuronPlace { gate, linear, post };
std::string_view place_name(NeuronPlace place);  // "gate", "linear", "post"

// Who reads what a norm gives: queries and keys, values, neurons, the head. Norms are frozen reader by
// reader.
enum class Reader { qk, v, mlp, head };
std::string_view reader_name(Reader reader);  // "qk", "v", "mlp", "final"

// One reader of one norm. `site` is that of the part behind the norm; none (-1) for the last norm, which the
// head reads.
struct NormPath {
  Site site = {};
  Reader reader = Reader::head;
  auto operator<=>(const NormPath&) const = default;
};

// The norm in front of a part, and the maps that read it.
struct FrontNorm {
  struct Reading {
    Reader reader;
    std::string map;    // path of a linear map (".weight", ".bias")
    int64_t first = 0;  // of its outputs, those that this reader takes
    int64_t count = 0;
  };
  std::string path;  // of its ".weight" and, where it has one, ".bias"
  std::vector<Reading> readings = {};
};

// The neurons of a feed-forward: neuron n reads row n of `gate` and of `up`, a_n = act(gate_n . h) (up_n .
// h), and writes a_n times column n of `down`. All three are paths of linear maps (".weight", ".bias").
struct Neurons {
  int64_t count = 0;
  std::string gate = {};  // empty: none, a_n = act(up_n . h)
  std::string up = {}, down = {};
  std::string norm = {};      // path of the norm in front
  std::string bias_key = {};  // config key that gives all of them biases in every block; empty: there is none
};

// What stands around parts and goes when all of them are gone: the norm and the two projections of a
// transformer of several blocks in a U-Net.
struct Wrapper {
  std::string path;        // "down_blocks.1.attentions.0"
  std::vector<int> parts;  // in the order of the walk, without others between
};

// How the self-attention of a map looks where it does not look everywhere: a token sees those of its own
// window, and the rest of the map in the averages of cells ("global-regional", A-SDM-style).
struct Windows {
  // What cells do beside being seen. pooled: they see each other first; gate: they and the window are looked
  // at apart, and a number of each head says how much of which is taken.
  enum class Mix { none, pooled, gate };
  int64_t window = 16;  // sides, in tokens; a window is whole cells
  int64_t pool = 4;     // 0: there are no cells
  Mix mix = Mix::none;
  bool log_count = true;  // a cell of n tokens counts n times
  bool mask_own = true;   // cells of the own window are not seen beside its tokens
  bool operator==(const Windows&) const = default;
};

// A convolution whose kernel is mixed anew for every input from its own and those of others that are gone
// (CLME-CondConv, A-SDM-style): W + sum over e of g_e (W_e - W), g = tanh(router). With sigmoid or softmax
// the own kernel has a gate as well, the first, and W is the sum of all, each times its gate.
struct Experts {
  enum class Gate { tanh_residual, sigmoid, softmax };
  enum class Reads { time, input, both };  // what the router reads: time embedding, means of the channels
  std::string conv;                        // "down_blocks.0.resnets.0.conv2"
  std::vector<std::string> donors;         // where the other kernels came from, one each
  Gate gate = Gate::tanh_residual;
  Reads reads = Reads::time;
  int64_t gates() const {
    return static_cast<int64_t>(donors.size()) + (gate == Gate::tanh_residual ? 0 : 1);
  }
  bool operator==(const Experts&) const = default;
};

// A residual branch x + f(norm(x)), with its norm: present, or declared gone. Where a U-Net's branch changes
// the number of channels, x runs through the shortcut, which stays when the branch goes.
struct Part {
  std::string path;  // "model.layers.7.self_attn"
  Kind kind = Kind::attention;
  int block = 0;
  bool present = true;
  bool causal = true;       // of an attention: a token looks at itself and to its left; false: at every token
  int64_t kv_values = 0;    // numbers a token leaves in the key-value cache
  int64_t score_width = 0;  // query width: 4 * score_width * context FLOPs a token beside the matrix products
  std::optional<Neurons> neurons = {};  // of a feed-forward, present or not
  std::optional<FrontNorm> norm = {};   // nothing: it was folded into the maps that read it
  std::string short_name = {};          // "d1.r0", "mid.a0", "u2.a1.b3"; empty: kind and block say it
  int64_t map_heads = 0;                // of a self-attention over the tokens of a map; 0: there is none
  std::optional<Windows> windows = {};  // where that does not look everywhere
  int64_t skip = 0;  // of the channels that a ResNet reads, those that an earlier stage left, the last ones
  std::vector<Experts> experts = {};  // of its convolutions

  std::string label() const;  // "A7", "F7", or the short name
};

struct Blueprint {
  std::string family;  // "llama"
  std::vector<Slot> slots;
  std::vector<Part> parts;  // in the order of the walk
  std::vector<Wrapper> wrappers = {};
  std::vector<std::string>
      optional_slots;  // may be in the file or not (a head stored beside the embedding it is tied to)
  std::vector<std::string> unread = {};  // in some files, and no weights (the causal mask of old GPT-2 files)
  std::string stack;                     // "model.layers": where the blocks are numbered
  int blocks = 0;
  int64_t width = 0;
  int64_t vocabulary = 0;
  int64_t labels =
      0;  // classes of a token classifier, which has `head` for them; 0: the head says next tokens
  int64_t context = 0;         // longest sequence the model was made for
  std::string embedding;       // slot names
  std::string head;            // equals `embedding` when tied
  std::string final_norm;      // path of the norm that the head reads through; empty: it was folded away
  bool centred_norms = false;  // LayerNorm: the mean is taken off; else root mean square alone
  std::string epsilon_key = "rms_norm_eps";     // config key of what all norms add to the mean square
  std::string own_head = "lm_head.weight";      // slot name of a head that is not tied, in this family
  std::string depth_key = "num_hidden_layers";  // config key that holds `blocks`
  std::vector<std::string> per_layer_arrays;    // config keys that hold one value a block
  std::vector<std::string> front_counts;  // config keys that say how many blocks at the front are of one sort
  std::string removed_key = {};  // config key that lists the parts that are gone, by path; empty: absence.h's
  // Config key of a list of class names that loaders look up, and the names where the config does not say.
  std::pair<std::string, std::vector<std::string>> looked_up = {};
  std::vector<std::string> stages = {};  // of a U-Net, in the order of the walk: "down_blocks.0", "mid_block"

  bool speaks() const { return vocabulary > 0 && labels == 0; }  // its head says next tokens

  bool tied() const { return head == embedding; }
  std::string head_path() const { return head.substr(0, head.rfind('.')); }  // "lm_head"
  bool causal() const;                                                       // whether no block looks right
  const Slot* slot(std::string_view name) const;                             // null when there is none
  const Part& part(Site site) const { return parts.at(static_cast<size_t>(site.index)); }
  std::optional<Site> find(std::string_view path) const;
  // Throws Error with the nearest path when there is none.
  Site site(std::string_view path) const;
  std::vector<Site> present() const;
  std::vector<Site> with_neurons() const;  // the parts present that have neurons
  // Every reader of every norm of the parts present, in the order of the walk, the head last.
  std::vector<NormPath> norm_paths() const;
  // "model.layers.7.self_attn" or the last norm's path: how plans name the norm; "qk7", "final": short.
  const std::string& norm_site(const NormPath& path) const;
  std::string label(const NormPath& path) const;

  int64_t parameters(Site site) const;
  int64_t parameters() const;  // a tied head counts once
  // FLOPs (2 a multiply-add) to process one token when `context` tokens stand before it and itself included.
  double flops_per_token(Site site, int64_t context) const;
  double flops_per_token(int64_t context) const;  // all present parts and the head
  int64_t kv_values_per_token() const;
};

}  // namespace lamina
