#include <fmt/format.h>

#include <cmath>
#include <functional>

#include "lamina/atlas/atlas.h"
#include "lamina/atlas/impl/atlas_state.h"
#include "lamina/base/file.h"

namespace lamina::atlas {

namespace {

// A field of RFC 4180.
std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos && text.find('\0') == std::string_view::npos)
    return std::string(text);
  std::string out = "\"";
  for (char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

void each_neuron(const Atlas::State& state, const std::function<void(Set, NeuronId, const Shown&)>& visit) {
  NeuronReader neurons(state);
  LabelReader labels(state);
  const Header& header = state.stored.header;
  for (size_t id = 0; id < state.sets.size(); ++id) {
    const Set set = state.sets[id];
    const int64_t count = set.rows == Rows::random ? header.random : header.neurons;
    for (int block : blocks_of(header, set.rows)) {
      for (int64_t neuron = 0; neuron < count; ++neuron) {
        const int64_t row = row_of(header, static_cast<int64_t>(id), block, neuron);
        const std::optional<Decoded> decoded = neurons.read(row);
        if (!decoded) state.database.damaged(fmt::format("neuron {}.{} is missing", block, neuron));
        Shown shown{.decoded = *decoded, .top = {}, .bottom = {}};
        labels.read(row, shown);
        visit(set, {block, static_cast<int>(neuron)}, shown);
      }
    }
  }
}

// Whole pages at a time.
class Lines {
 public:
  explicit Lines(const std::filesystem::path& path) : file_(path) {}
  void add(std::string_view text) {
    text_ += text;
    if (text_.size() > 1 << 20) flush();
  }
  void commit() {
    flush();
    file_.commit();
  }

 private:
  void flush() {
    file_.write(text_);
    text_.clear();
  }
  AtomicFile file_;
  std::string text_;
};

}  // namespace

void Atlas::write_csv(const std::filesystem::path& path) const {
  Lines lines(path);
  lines.add("rows,head,block,neuron,pole,rank,token,text,score,p,p_pole\n");
  each_neuron(*state_, [&](Set set, NeuronId id, const Shown& shown) {
    for (const bool bottom : {false, true}) {
      int rank = 0;
      for (const Reading& reading : bottom ? shown.bottom : shown.top)
        lines.add(fmt::format("{},{},{},{},{},{},{},{},{},{},{}\n", rows_name(set.rows), head_name(set.head),
                              id.block, id.neuron, bottom ? "bottom" : "top", ++rank, reading.token,
                              csv_field(reading.text), reading.score, reading.p, reading.p_pole));
    }
  });
  lines.commit();
}

void Atlas::write_json(const std::filesystem::path& path) const {
  Lines lines(path);
  lines.add("{\"header\": " + to_json(header()).dump() + ",\n\"neurons\": [");
  bool first = true;
  each_neuron(*state_, [&](Set set, NeuronId id, const Shown& shown) {
    Json json = {{"rows", rows_name(set.rows)},
                 {"head", head_name(set.head)},
                 {"block", id.block},
                 {"neuron", id.neuron},
                 {"norm", shown.decoded.norm},
                 {"mean", shown.decoded.mean},
                 {"deviation", shown.decoded.deviation},
                 {"kurtosis", shown.decoded.kurtosis},
                 {"top", Json::array()},
                 {"bottom", Json::array()}};
    for (const bool bottom : {false, true}) {
      for (const Reading& reading : bottom ? shown.bottom : shown.top) {
        Json label = {
            {"id", reading.token}, {"token", reading.text}, {"p", reading.p}, {"score", reading.score}};
        if (bottom) label["p_pole"] = reading.p_pole;
        json[bottom ? "bottom" : "top"].push_back(std::move(label));
      }
    }
    lines.add((first ? "\n" : ",\n") + json.dump());
    first = false;
  });
  lines.add("\n]}\n");
  lines.commit();
}

}  // namespace lamina::atlas
